"""Sparse gradients among ranks: added up as dense ones are, also where a rank has none."""

import pytest
import torch
from in_ranks import in_ranks
from small_runs import trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import etude

RARE = 5
"""Batches are of four samples: of two ranks, one has a sample of this kind in few of its parts."""


class Words(etude.Task):
    """A table that every sample reads, one that few read, and one that is read and multiplied by."""

    def __init__(self, *, sparse, terms):
        super().__init__()
        self.terms = terms
        torch.manual_seed(3)
        self.common, self.rare, self.both = (nn.Embedding(8, 4, sparse=sparse).double() for _ in range(3))
        self.out = nn.Linear(4, 1).double()

    def training_step(self, batch):
        words, targets = batch
        few = words == RARE
        seen = self.common(words) + self.both(words)
        if few.any():  # what the other samples do not see, and may be left out without them
            seen = seen + few[:, None] * (self.rare(words) + torch.softmax(seen, 1) @ self.both.weight[:4])
        error = etude.Loss((self.out(seen).squeeze(1) - targets).square().sum(), len(words))
        if self.terms == 1:
            return error
        size = etude.Loss(self.common(words).square().sum(), len(words) + int(few.sum()), weight=0.1)
        return {"error": error, "size": size}


def words():
    draw = torch.Generator().manual_seed(1)
    found = torch.randint(0, 8, (30,), generator=draw)
    return TensorDataset(found, found.double() / 8)


def train(rank, folder, options, terms, *, sparse=True):
    fit = trainer(
        folder, max_duration="12 steps", learning_rate=0.05, ema_decay=None, optimizer="torch.optim:SGD", **options
    )
    fit.fit(task := Words(sparse=sparse, terms=terms), DataLoader(words(), batch_size=4, shuffle=True))
    return {name: value.clone() for name, value in task.state_dict().items()}


@pytest.mark.parametrize(
    ("options", "terms", "size"),
    [({}, 1, 2), ({}, 1, 3), ({"accumulate": 2, "clip_grad": 0.1}, 1, 3), ({"accumulate": 2}, 2, 2)],
    ids=["plain", "three ranks", "accumulated", "two terms"],
)
def test_sparse_gradients_are_added_up_as_dense_ones(options, terms, size, tmp_path):
    options = {"clip_grad": None, **options}
    alone = train(0, tmp_path / "one", options, terms, sparse=False)

    for found in in_ranks(size, train, tmp_path / "many", options, terms):
        for name, value in alone.items():
            torch.testing.assert_close(value, found[name], rtol=1e-9, atol=1e-11)
