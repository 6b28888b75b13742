"""A resumed run ends where an unbroken one does, to the bit."""

import pytest
import torch
from laws import assert_a_cut_changes_nothing
from small_runs import Regression, dataset, loaders, rows, trainer, weights

import etude

VARIANTS = {
    "plain": {},
    "accumulated": {"accumulate": 2},
    "patience": {"patience": 2, "monitor": "val/loss", "min_delta": 1e-3},
    "sgd": {"optimizer": {"type": "sgd", "momentum": 0.9}},
    "adafactor": {"optimizer": "adafactor"},
    "muon": {"optimizer": "muon"},
    "amsgrad": {"optimizer": {"type": "adam", "amsgrad": True}},
    "scheduled accumulation": {"accumulate": {"schedule": "stairs", "values": [1, 3], "at": ["0 epochs", "1 epochs"]}},
    "bfloat16": {"precision": "bfloat16"},
}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """Runs that were never interrupted, by variant."""
    made = {}

    def get(variant):
        if variant not in made:
            folder = tmp_path_factory.mktemp("unbroken")
            train, val = loaders()
            result = trainer(folder, **VARIANTS[variant]).fit(Regression(), train, val)
            made[variant] = folder, result
        return made[variant]

    return get


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("cut", [1, 3, 4, 5])
def test_a_resumed_run_ends_where_an_unbroken_one_does(variant, cut, unbroken, tmp_path):
    straight, expected = unbroken(variant)

    for until in [f"{cut} steps", f"{cut + 2} steps", "3 epochs"]:
        torch.manual_seed(cut)  # what global generators hold must not matter
        train, val = loaders()
        result = trainer(tmp_path, max_duration=until, **VARIANTS[variant]).fit(Regression(), train, val)

    assert rows(tmp_path) == rows(straight)
    assert weights(tmp_path) == weights(straight)
    assert result.progress._replace(seconds=0) == expected.progress._replace(seconds=0)
    assert result.best.name == expected.best.name


def test_loader_workers_change_nothing(unbroken, tmp_path):
    straight, _ = unbroken("plain")
    train, val = loaders(workers=2)

    trainer(tmp_path, max_duration="9 steps").fit(Regression(), train, val)
    trainer(tmp_path).fit(Regression(), *loaders(workers=2))

    assert rows(tmp_path) == rows(straight)
    assert weights(tmp_path) == weights(straight)


def test_validation_logging_and_callbacks_change_no_weight(unbroken, tmp_path):
    class Watching(etude.Callback):
        def on_step_end(self, run, outcome):
            torch.rand(3)

    straight, _ = unbroken("plain")
    options = {"eval_every": "2 steps", "log_every": "3 steps", "callbacks": [Watching()], "sanity_batches": 0}
    trainer(tmp_path, **options).fit(Regression(), *loaders())

    assert weights(tmp_path)["model.safetensors"] == weights(straight)["model.safetensors"]


def test_a_finished_run_is_left_as_it_is(unbroken, tmp_path):
    trainer(tmp_path).fit(Regression(), *loaders())
    before = (tmp_path / "metrics.jsonl").read_bytes()
    said = []

    result = trainer(tmp_path, say=said.append).fit(Regression(), *loaders())

    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    assert any("finished" in sentence for sentence in said)
    assert result.reason.startswith("max_duration")


def test_a_stop_asked_for_by_a_callback_is_still_the_end_when_run_again(tmp_path):
    class Enough(etude.Callback):
        def on_step_end(self, run, outcome):
            return etude.Stop("enough") if run.progress.step == 4 else None

    first = trainer(tmp_path, callbacks=[Enough()]).fit(Regression(), *loaders())
    again = trainer(tmp_path, callbacks=[Enough()]).fit(Regression(), *loaders())

    assert first.reason == again.reason == "enough"
    assert again.progress.step == 4


def test_python_and_numpy_draws_in_a_step_resume_too(tmp_path):
    import random

    import numpy as np

    class Drawing(Regression):
        def training_step(self, batch):
            inputs, targets = batch
            noise = random.random() + float(np.random.rand())  # noqa: NPY002 - what a user may write
            return (self.layers(inputs) * noise - targets).square().mean()

    def seeded(folder, *ends):
        for until in ends:
            random.seed(1)
            np.random.seed(1)  # noqa: NPY002 - what a user may write
            trainer(folder, max_duration=until).fit(Drawing(), *loaders())
            random.seed(99)

    seeded(tmp_path / "straight", "2 epochs")
    seeded(tmp_path / "cut", "5 steps", "2 epochs")

    assert weights(tmp_path / "cut") == weights(tmp_path / "straight")


def test_resume_must_and_never_are_held(tmp_path):
    with pytest.raises(etude.errors.RefusedError, match="nothing to resume"):
        trainer(tmp_path, resume="must").fit(Regression(), *loaders())
    trainer(tmp_path, max_duration="2 steps").fit(Regression(), *loaders())
    with pytest.raises(etude.errors.RefusedError, match="already holds a run"):
        trainer(tmp_path, resume="never").fit(Regression(), *loaders())


class Saving(Regression):
    """Computes a gradient in every round and takes a step with the sum of three."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)

    def optimizer_step(self, optimizer, closure, *, name, progress):
        if progress.step % 3 == 2:
            optimizer.step(closure)
        else:
            closure()


@pytest.mark.parametrize("cut", [1, 2, 3, 5])
def test_the_gradient_that_an_optimizer_has_kept_is_part_of_the_checkpoint(cut, tmp_path):
    def make(folder, callbacks):
        return trainer(folder, callbacks=callbacks, learning_rate=None).fit(Saving(), *loaders())

    assert_a_cut_changes_nothing(tmp_path, make, [cut + 1])


def test_a_gradient_from_before_the_run_is_no_part_of_it():
    ends = []
    for before in (False, True):
        task = Regression()
        if before:
            task.training_step(dataset().tensors).value.backward()
        trainer(learning_rate=0.01).fit(task, *loaders())
        ends.append([p.detach().clone() for p in task.parameters()])

    assert all(torch.equal(clean, later) for clean, later in zip(*ends, strict=True))
