"""What a dataset remembers: it reaches loader workers, kept or not, and a run that is resumed."""

import os

import pytest
import torch
from small_runs import Regression, rows, trainer, without_clock
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

import etude

SAMPLES, BATCH = 12, 4
STEPS = SAMPLES // BATCH


class Scale:
    """A transform with a strength of its own."""

    def __init__(self):
        self.strength = 1.0


class Levels(Dataset):
    """Samples whose inputs are the level, the epoch and the strength of a transform."""

    def __init__(self):
        self.level, self.epoch, self.transform = 0, -1, Scale()

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        return torch.tensor([float(self.level), float(self.epoch), self.transform.strength, 0.0]), torch.zeros(1)


class Flow(IterableDataset):
    """The same as a stream."""

    def __init__(self):
        self.level, self.epoch, self.transform = 0, -1, Scale()

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        mine = range(0, SAMPLES, 1 if info is None else info.num_workers)
        return iter([Levels.__getitem__(self, index) for index in mine])


class Raise(etude.Callback):
    """Makes every epoch harder, in steps from what the data remembers; may end the run in the middle of one."""

    def __init__(self, data, dies=None):
        self.data, self.dies = data, dies

    def on_epoch_start(self, run):
        self.data.level += 1
        self.data.transform.strength *= 2.0

    def on_step_start(self, run):
        if run.progress.step == self.dies:
            raise ZeroDivisionError


class Seen(Regression):
    """Remembers what it was given."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def training_step(self, batch):
        self.seen.append(batch[0][0, :3].tolist())
        return super().training_step(batch)


def loader(data, workers, kept):
    options = {"num_workers": workers, "persistent_workers": kept} if workers else {}
    return DataLoader(data, batch_size=BATCH, **options)


EXPECTED = [[float(epoch + 1), float(epoch), 2.0 ** (epoch + 1)] for epoch in range(3) for _ in range(STEPS)]
WORKERS = [(0, False), (1, False), (1, True), (2, True)]


@pytest.mark.parametrize(("workers", "kept"), WORKERS)
@pytest.mark.parametrize("kind", [Levels, Flow])
def test_what_changes_at_the_beginning_of_an_epoch_reaches_every_batch_of_it(kind, workers, kept):
    if kind is Flow and workers == 2:
        pytest.skip("a stream of two workers has other batches")
    data, task = kind(), Seen()

    trainer(callbacks=[Raise(data)], save_every="1 epoch", eval_every="1 epoch").fit(
        task, train=loader(data, workers, kept)
    )

    assert task.seen == EXPECTED


def test_data_inside_of_other_data_is_watched_too():
    data, task = Levels(), Seen()

    trainer(callbacks=[Raise(data)], save_every="1 epoch", eval_every="1 epoch").fit(
        task, train=loader(Subset(data, range(SAMPLES)), 1, kept=True)
    )

    assert [level for level, _, _ in task.seen] == [level for level, _, _ in EXPECTED]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("step", [STEPS, STEPS + 1, 2 * STEPS + 2])
def test_a_resumed_run_goes_on_with_what_its_data_remembered(step, workers, tmp_path):
    def fit(folder, dies=None):
        data = Levels()
        return trainer(folder, callbacks=[Raise(data, dies)]).fit(Seen(), train=loader(data, workers, kept=True))

    fit(tmp_path / "whole")
    with pytest.raises(ZeroDivisionError):
        fit(tmp_path / "cut", dies=step)
    fit(tmp_path / "cut")

    assert list(map(without_clock, rows(tmp_path / "cut"))) == list(map(without_clock, rows(tmp_path / "whole")))


def test_what_no_checkpoint_can_hold_is_said_once(tmp_path):
    heard, data = [], Levels()
    data.weights = torch.ones(100)

    class Replace(etude.Callback):
        def on_epoch_start(self, run):
            data.weights = data.weights + 1

    trainer(tmp_path, callbacks=[Replace()], say=heard.append).fit(Regression(), train=loader(data, 0, kept=False))

    assert [line for line in heard if "a checkpoint cannot hold (weights)" in line] == [
        line for line in heard if "a checkpoint cannot hold" in line
    ]
    assert sum("a checkpoint cannot hold" in line for line in heard) == 1


def test_workers_are_kept_while_nothing_changes():
    pids = set()

    class Look(Regression):
        def training_step(self, batch):
            pids.update(batch[0][:, 0].tolist())
            return super().training_step(batch)

    trainer(save_every="1 epoch", eval_every="1 epoch").fit(Look(), train=loader(Still(), 1, kept=True))

    assert len(pids) == 1


class Still(Dataset):
    """Tells which process has read it; nothing of it changes."""

    def __init__(self):
        self.level = 1

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        return torch.full((4,), float(os.getpid())), torch.zeros(1)


def test_a_loader_of_ones_own_that_keeps_its_workers_is_told_of():
    heard, data = [], Levels()

    class Own:
        dataset, persistent_workers, num_workers = data, True, 1

        def __iter__(self):
            return iter([(torch.zeros(2, 4), torch.zeros(2, 1))] * 2)

    trainer(callbacks=[Raise(data)], say=heard.append, save_every="1 epoch", eval_every="1 epoch").fit(
        Regression(), train=Own()
    )

    assert sum("keeps its workers, which may not know it" in line for line in heard) == 1
