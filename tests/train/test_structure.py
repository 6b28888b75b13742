"""A task whose structure is replaced at an epoch's begin: what both have goes on, and a resumed run ends the same."""

import json

import pytest
import torch
from laws import Cut, Cutting, state
from small_runs import dataset, rows, trainer, weights
from torch import nn

import etude
from etude.app.python import trainer as face
from etude.base.errors import StorageError
from etude.train.structure import Change, Structured


class Growing(etude.Task):
    def __init__(self, *, deep=False):
        super().__init__()
        torch.manual_seed(3)
        self.first = nn.Linear(4, 4)
        self.last = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)) if deep else nn.Linear(4, 1)

    def training_step(self, batch):
        hidden = self.first(batch[0])
        return (self.last(hidden) - batch[1]).square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Grows:
    """Makes the last layer two when epoch 2 begins."""

    def __init__(self, job, **options):
        self.job = job
        self.options = options
        self.asked = []

    def at(self, progress, name):
        self.asked.append(progress.epoch)
        return self.named("deep") if progress.epoch >= 2 and name != "deep" else None

    def names(self):
        return ()

    def named(self, name):
        return Change({"deep": name}[name], self.make, **self.options)

    def make(self):
        return Structured(Growing(deep=True), self.job.train, self.job.val, self.job.optimizers)


@pytest.fixture
def structure(monkeypatch):
    """Every run of a trainer grows."""
    run_job, made = face.run_job, Made()

    def fit(job):
        made.append(Grows(job, **made.options))
        job.structure = made[-1]
        return run_job(job)

    monkeypatch.setattr(face, "run_job", fit)
    return made


class Made(list):
    """The structures of the runs so far, and the options of those to come."""

    options = {}  # noqa: RUF012 - replaced whole


def fit(folder, *callbacks, **options):
    task = Growing()
    given = {"max_duration": "4 epochs", "batch_size": 16, "learning_rate": None, "callbacks": list(callbacks)}
    trainer(folder, **given, **options).fit(task, dataset(48), dataset(16))
    return task


@pytest.mark.parametrize("cuts", [[4], [7], [8], [5, 9], [3, 6, 11]])
def test_a_run_that_was_cut_before_or_after_its_growth_ends_as_an_unbroken_one(cuts, structure, tmp_path):
    fit(tmp_path / "straight")
    for step in cuts:
        with pytest.raises(Cut):
            fit(tmp_path / "cut", Cutting(step))

    task = fit(tmp_path / "cut")

    assert isinstance(task.last, nn.Sequential)
    assert rows(tmp_path / "cut") == rows(tmp_path / "straight")
    assert weights(tmp_path / "cut") == weights(tmp_path / "straight")
    assert state(tmp_path / "cut") == state(tmp_path / "straight")


def test_what_both_structures_have_goes_on(structure, tmp_path):
    held = {}

    class Holding(etude.Callback):
        def on_epoch_end(self, run):
            held[run.progress.epoch] = run.task.first.weight.detach().clone()

        def on_epoch_start(self, run):
            if run.progress.epoch == 2:
                assert torch.equal(run.task.first.weight, held[2])

    fit(tmp_path, Holding())

    assert structure[0].asked == [0, 1, 2, 3]
    kept = json.loads((tmp_path / "checkpoints/last/state.json").read_text())
    assert kept["part structure"] == {"name": "deep", "since": 6}
    moments = kept["optimizers"]["0"]["state"]
    assert set(moments) == {name for name, _ in fit(tmp_path / "again").named_parameters()}
    assert kept["optimizers"]["0"]["steps"] == 12


def test_a_checkpoint_of_a_structure_that_the_run_does_not_have_is_refused(structure, tmp_path, monkeypatch):
    fit(tmp_path)
    monkeypatch.undo()

    with pytest.raises(StorageError, match="no structure 'deep'"):
        fit(tmp_path)
