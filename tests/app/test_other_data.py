"""A script that is started again with other data is told so; with the same, in whatever form, it goes on."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

import etude
from etude.errors import ConfigError, RefusedError

QUIET = {"say": lambda _: None, "progress": False, "device": "cpu", "precision": "float32", "loggers": []}


class Linear(etude.Task):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Linear(3, 1)

    def training_step(self, batch):
        return (self.net(batch[0].float()) - batch[1].float().reshape(-1, 1)).square().mean()


class Table(Dataset):
    """Samples of a user's own: arrays, text and numbers, read one by one."""

    def __init__(self, count, label=0.0, draws=None):
        self.count, self.label, self.read = count, label, 0
        if draws is not None:
            self.draws = draws

    def __len__(self):
        return self.count

    def __getitem__(self, place):
        self.read += 1
        return np.full(3, place, dtype=np.float32), self.label + place


class Stream(IterableDataset):
    def __init__(self, count):
        self.count = count

    def __iter__(self):
        return iter([(torch.ones(3), torch.zeros(1))] * self.count)

    def __len__(self):
        return self.count


class Drawn(Table):
    def __getitem__(self, place):
        return np.full(3, random.random(), dtype=np.float32), 1.0


def tensors(count=12, label=0.0):
    return TensorDataset(torch.arange(count * 3.0).reshape(count, 3), torch.arange(float(count)) + label)


def relabelled(place, count=12):
    made = tensors(count)
    made.tensors[1][place] += 1
    return made


def batches(count=3, label=0.0):
    return [(torch.ones(2, 3), torch.full((2,), label)) for _ in range(count)]


def fit(folder, train, val=None, steps=2, **options):
    trainer = etude.Trainer(run_dir=folder, max_duration=f"{steps} steps", batch_size=None, **QUIET, **options)
    return trainer.fit(Linear(), train, val)


def loader(data, **options):
    return DataLoader(data, **{"batch_size": 2, **options})


OTHERS = {
    "labels": (tensors(), tensors(label=1.0), "The train data holds other samples"),
    "one label": (tensors(), relabelled(7), "holds other samples"),
    "a longer dataset": (tensors(), tensors(24), "holds 24 samples, but held 12"),
    "a longer loader": (loader(Stream(6)), loader(Stream(12)), "holds 6 batches, but held 3"),
    "other batches": (loader(tensors()), loader(tensors(), batch_size=3), "holds 4 batches, but held 6"),
    "a dataset of one's own": (Table(9), Table(9, label=1.0), "holds other samples"),
    "a list of batches": (batches(), batches(label=1.0), "holds other samples"),
    "a longer list": (batches(), batches(6), "holds 6 batches, but held 3"),
    "a subset": (Subset(tensors(), [0, 1, 2]), Subset(tensors(), [3, 4, 5]), "holds other samples"),
}


@pytest.mark.parametrize(("first", "then", "said"), OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("steps", [2, 4], ids=["finished", "longer"])
def test_other_data_is_refused_and_named(tmp_path, first, then, said, steps):
    fit(tmp_path, first)

    with pytest.raises(RefusedError, match=said):
        fit(tmp_path, then, steps=steps)
    assert fit(tmp_path, first, steps=steps).progress.step == steps


def test_other_validation_data_is_refused_and_named(tmp_path):
    fit(tmp_path, tensors(), tensors(4))

    with pytest.raises(RefusedError, match="The val data holds other samples than at the start of the run"):
        fit(tmp_path, tensors(), tensors(4, label=1.0))


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (Drawn(9), Drawn(9)),
        (Table(9, draws=np.random.default_rng(1)), Table(9, 1.0, draws=np.random.default_rng(1))),
        (loader(Stream(6)), loader(Stream(6))),
        (tensors(), loader(tensors(), shuffle=True)),
    ],
    ids=["drawn anew", "with a generator of its own", "a stream", "the same in a loader"],
)
def test_what_cannot_be_compared_or_is_the_same_goes_on(tmp_path, first, then):
    fit(tmp_path, first)

    assert fit(tmp_path, then, steps=3).progress.step == 3


def test_reading_samples_to_compare_them_disturbs_nothing(tmp_path):
    data = Table(200, draws=None)
    straight = fit(None, data)
    read = data.read
    kept = fit(tmp_path, data)

    assert data.read == 2 * read
    assert [row["train/loss"] for row in kept.history if "train/loss" in row] == [
        row["train/loss"] for row in straight.history if "train/loss" in row
    ]


def test_all_samples_are_compared_on_request(tmp_path):
    fit(tmp_path / "sample", tensors(1000))
    assert fit(tmp_path / "sample", relabelled(3, 1000)).progress.step == 2  # none of the 64
    fit(tmp_path / "full", tensors(1000), check_data="full")
    with pytest.raises(RefusedError, match="holds other samples"):
        fit(tmp_path / "full", relabelled(3, 1000))
    fit(tmp_path / "full", relabelled(3, 1000), check_data="lengths")

    with pytest.raises(ConfigError, match='check_data must be "sample", "full" or "lengths", but is 3'):
        etude.Trainer(check_data=3)
