"""On any number of ranks a run optimises the same: each takes a part of every batch."""

import pytest
import torch
from in_ranks import in_ranks
from small_runs import trainer, without_clock
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import etude

STEPS = 24


class Two(etude.Task):
    """Two terms of different counts, a buffer of the user's, a part without a gradient, and hidden states."""

    def __init__(self, *, counts=True, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(11)
        self.rnn = nn.GRU(3, 6, batch_first=True)
        self.out = nn.Linear(6, 1)
        self.unused = nn.Linear(2, 2)
        self.register_buffer("mean", torch.zeros(()))
        self.counts = counts
        self.to(dtype)

    def training_step(self, batch, *, hiddens=None):
        inputs, targets, weight = batch
        states, last = self.rnn(inputs, hiddens)
        found = self.out(states).squeeze(-1)
        if self.training:
            self.mean.mul_(0.5).add_(0.5 * found.detach().mean())
        self.log("size", found.detach().abs().mean(), count=found.numel())
        weighted = ((found - targets).square() * weight[:, None]).sum()
        small = found.square().sum() * 0.01
        losses = {
            "error": etude.Loss(weighted, float(weight.sum()) * inputs.shape[1]),
            "size": etude.Loss(small, found.shape[0], weight=0.5),
        }
        return etude.StepOutput(losses if self.counts else losses["error"], hiddens=last.detach())

    def validation_step(self, batch):
        return self.training_step(batch).loss


def data(samples, dtype=torch.float64):
    draw = torch.Generator().manual_seed(5)
    inputs = torch.randn(samples, 12, 3, generator=draw, dtype=torch.float64)
    weight = torch.randint(0, 4, (samples,), generator=draw).double()
    return TensorDataset(inputs.to(dtype), inputs.sum(2).to(dtype), weight.to(dtype))


OPTIONS = {
    "plain": {},
    "accumulated": {"accumulate": 3},
    "one term": {"accumulate": 2},
    "in time": {"tbptt_steps": 5, "accumulate": 2},
}


def train(rank, folder, kind, steps=STEPS, dtype=torch.float64, **options):
    """A run of some steps; what it logged, and its weights."""
    given = {"max_duration": f"{steps} steps", "eval_every": "8 steps", **OPTIONS[kind], **options}
    task = Two(counts=kind != "one term", dtype=dtype)
    fit = trainer(folder, learning_rate=1e-2, **given)
    result = fit.fit(
        task, DataLoader(data(22, dtype), batch_size=4, shuffle=True), DataLoader(data(7, dtype), batch_size=2)
    )
    return result.history, {name: value.clone() for name, value in task.state_dict().items()}, str(result.best)


def close(one, other, tolerance):
    """Whether two records hold the same, to rounding."""
    assert len(one) == len(other)
    for row, another in zip(one, other, strict=True):
        assert row.keys() == another.keys()
        for name in without_clock(row):
            if "memory" not in name:
                assert row[name] == pytest.approx(another[name], rel=tolerance, abs=tolerance), name


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("kind", ["plain", "accumulated", "one term", "in time"])
def test_several_ranks_optimise_what_one_does(size, kind, tmp_path):
    alone = train(0, tmp_path / "one", kind)

    first, *others = in_ranks(size, train, tmp_path / "many", kind)

    for history, state, best in others:
        assert all(torch.equal(state[name], first[1][name]) for name in state)
        close(history, first[0], 0)
        assert best == first[2]
    close(alone[0], first[0], 1e-10)
    for name, value in alone[1].items():
        if name != "mean":  # of a batch's parts in place of the batch
            torch.testing.assert_close(value, first[1][name], rtol=1e-9, atol=1e-11)
    assert {path.name for path in (tmp_path / "many").iterdir()} == {path.name for path in (tmp_path / "one").iterdir()}
