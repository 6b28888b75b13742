"""Data whose length is not what it says: an epoch is one pass, progress never goes back, and it is said once."""

import warnings

import pytest
import torch
from small_runs import Regression, dataset, rows, trainer, without_clock
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, SequentialSampler

import etude
from etude.base.errors import DataError

BATCHES = 6
BATCH = 4


class Lying:
    """Whatever it is, it says another length than it has."""

    def __init__(self, said):
        self.said = said

    def __len__(self):
        return self.said


class Batches(Lying):
    """An iterable of batches."""

    def __iter__(self):
        inputs, targets = dataset(BATCHES * BATCH)[:]
        return iter(list(zip(inputs.split(BATCH), targets.split(BATCH), strict=True)))


class Stream(Lying, IterableDataset):
    """A stream of samples."""

    def __iter__(self):
        return iter([dataset(BATCHES * BATCH)[place] for place in range(BATCHES * BATCH)])


class Order(Lying, SequentialSampler):
    """A sampler of all samples."""

    def __iter__(self):
        return iter(range(BATCHES * BATCH))


class Draws(Lying, BatchSampler):
    """A sampler of batches."""

    def __iter__(self):
        return iter(torch.arange(BATCHES * BATCH).split(BATCH))


class Dies(etude.Callback):
    """Ends a run in the middle of its second epoch."""

    def on_step_start(self, run):
        if run.progress.step == BATCHES + 3:
            raise ZeroDivisionError


KINDS = {
    "an iterable": Batches,
    "a loader of a stream": lambda said: DataLoader(Stream(said * BATCH), batch_size=BATCH),
    "a sampler": lambda said: DataLoader(dataset(BATCHES * BATCH), BATCH, sampler=Order(said * BATCH)),
    "a sampler of batches": lambda said: DataLoader(dataset(BATCHES * BATCH), batch_sampler=Draws(said)),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
@pytest.mark.parametrize("said", [1, 5, 50])
def test_an_epoch_is_one_pass_and_progress_never_goes_back(kind, said, tmp_path):
    heard, seen = [], []

    class Watch(etude.Callback):
        def on_step_end(self, run, outcome):
            seen.append(run.progress.epochs)

    run = trainer(tmp_path, say=heard.append, callbacks=[Watch()], eval_every="1 epoch", save_every="1 epoch")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = run.fit(Regression(), train=KINDS[kind](said), val=dataset(8))

    assert (result.progress.step, result.progress.epoch) == (3 * BATCHES, 3)
    assert seen == sorted(set(seen))
    assert [int(epochs) for epochs in seen[BATCHES - 1 :: BATCHES]] == [1, 2, 3]
    assert all(epochs < 1 + place // BATCHES for place, epochs in enumerate(seen) if (place + 1) % BATCHES)
    told = [line for line in heard if "by its __len__" in line]
    assert told == [line for line in told if f"has {said} batches, but it gave {BATCHES}" in line]
    assert len(told) == 1


@every_kind
def test_an_honest_length_is_not_spoken_of(kind, tmp_path):
    heard = []

    trainer(tmp_path, say=heard.append).fit(Regression(), train=KINDS[kind](BATCHES), val=dataset(8))

    assert not [line for line in heard if "__len__" in line]


@every_kind
@pytest.mark.parametrize("said", [4])
def test_a_resumed_run_ends_as_an_unbroken_one(kind, said, tmp_path):
    whole = trainer(tmp_path / "whole", max_duration="2 epochs").fit(Regression(), train=KINDS[kind](said))
    with pytest.raises(ZeroDivisionError):
        trainer(tmp_path / "cut", max_duration="2 epochs", callbacks=[Dies()]).fit(
            Regression(), train=KINDS[kind](said)
        )
    again = trainer(tmp_path / "cut", max_duration="2 epochs").fit(Regression(), train=KINDS[kind](said))

    assert again.progress._replace(seconds=0) == whole.progress._replace(seconds=0)
    assert list(map(without_clock, rows(tmp_path / "cut"))) == list(map(without_clock, rows(tmp_path / "whole")))


def test_half_an_epoch_is_due_once_in_each_though_its_length_is_not_known_rightly(tmp_path):
    seen = []

    class Watch(etude.Callback):
        def on_validation_end(self, run, metrics):
            seen.append(run.progress.step)

    trainer(callbacks=[Watch()], eval_every="1 epoch", save_every="1 epoch").fit(
        Regression(), train=Batches(2), val=dataset(8)
    )

    assert [step for step in seen if step] == [6, 12, 18]


class Short(Dataset):
    """Says that it has more samples than it holds."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        return dataset(8)[range(8)[index]]


def test_a_dataset_without_the_samples_that_it_counts_is_told_of_with_its_length():
    with pytest.raises(DataError, match=r"could not be loaded: IndexError: .*its __len__ says that it has 40 samples"):
        trainer(batch_size=4).fit(Regression(), train=Short())
