"""What a run goes back to: weights that are finite and were judged to be, and the last where nothing was the best."""

import math

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import TensorDataset

import etude
from etude.errors import DivergedError, StorageError

QUIET = {"progress": False, "device": "cpu", "precision": "float32", "loggers": [], "batch_size": 4}
DATA = TensorDataset(
    torch.randn(8, 3, generator=torch.Generator().manual_seed(1)),
    torch.randn(8, 1, generator=torch.Generator().manual_seed(2)),
)


class Breaking(etude.Task):
    """Its validation, its weights and its training become infinite at steps of their own (counted from 1)."""

    def __init__(self, validation=99, weights=99, training=99):
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Linear(3, 1)
        self.register_buffer("mask", torch.full((2, 2), -math.inf))
        self.at = {"validation": validation, "weights": weights, "training": training}

    def training_step(self, batch):
        loss = (self.net(batch[0]) - batch[1]).square().mean()
        return loss * (math.nan if self.progress.step + 1 >= self.at["training"] else 1)

    def validation_step(self, batch):
        loss = (self.net(batch[0]) - batch[1]).square().mean()
        return loss * (math.nan if self.progress.step >= self.at["validation"] else 1)

    def optimizer_step(self, optimizer, closure, *, name, progress):
        optimizer.step(closure)
        if progress.step + 1 == self.at["weights"]:
            with torch.no_grad():
                self.net.weight[0, 1] = math.inf


def trained(folder, said, steps=9, *, judged=True, **broken):
    options = {"max_duration": f"{steps} steps", "save_every": "1 step", "eval_every": "1 step", "run_dir": folder}
    trainer = etude.Trainer(say=said.append, keep_last=99, learning_rate=0.01, **options, **QUIET)
    return trainer.fit(Breaking(**broken), DATA, DATA if judged else None)


def weight(folder):
    return load_file(folder / "model.safetensors")["net.weight"]


@pytest.mark.parametrize(("validation", "step"), [(4, 3), (8, 6), (99, 6)])
def test_the_checkpoint_that_a_diverged_run_names_is_from_before_anything_was_infinite(tmp_path, validation, step):
    with pytest.raises(
        DivergedError, match=r"5 steps in a row \(to step 11\), of which the first was step 7"
    ) as caught:
        trained(tmp_path / "run", [], steps=20, training=7, validation=validation)

    named = str(caught.value).partition("the last checkpoint before them is ")[2].partition(". ")[0]
    before = tmp_path / "run" / "checkpoints" / f"step-{step:08d}"
    expected = before if validation == 4 else before.with_name("step-00000010" if validation == 99 else "step-00000007")
    assert named == str(expected)
    assert torch.isfinite(weight(expected)).all()
    assert ("after validations that were not finite from step" in str(caught.value)) == (validation < 99)


def test_where_every_validation_was_infinite_no_checkpoint_is_named(tmp_path):
    with pytest.raises(DivergedError, match=r"not finite from step 1 on; the last checkpoint before them is none\."):
        trained(tmp_path, [], steps=20, training=4, validation=1)


def test_weights_that_are_not_finite_replace_no_checkpoint_and_the_run_goes_on_from_before(tmp_path):
    said = []
    straight = trained(tmp_path / "straight", [], judged=False)
    with pytest.raises(DivergedError, match=r"weights that were not finite from step 5 on;.*step-00000004"):
        trained(tmp_path / "broken", said, steps=12, judged=False, weights=5)

    checkpoints = tmp_path / "broken" / "checkpoints"
    assert (checkpoints / "last").resolve().name == "step-00000004"
    assert all(torch.isfinite(weight(folder)).all() for folder in checkpoints.glob("step-*"))
    (told,) = [text for text in said if "not saved" in text]
    assert told == (
        "Step 5: the weights are not finite (net.weight is the first); they are not saved, and the last checkpoint "
        "stays step-00000004."
    )
    again = trained(tmp_path / "broken", said, judged=False)
    assert any("Resuming from step 4" in text for text in said)
    assert torch.equal(weight(again.last), weight(straight.last))


def test_a_run_that_ends_with_infinite_weights_says_so_and_keeps_what_it_had(tmp_path):
    with pytest.raises(DivergedError, match=r"ends with weights that are not finite \(net.weight.*step-00000007"):
        trained(tmp_path, [], judged=False, weights=8)
    assert torch.isfinite(weight(tmp_path / "checkpoints" / "last")).all()

    said = []
    trained(None, said, judged=False, weights=8)
    assert any("the weights are not finite" in text for text in said)


def test_where_no_validation_gave_a_number_the_last_takes_the_bests_place(tmp_path):
    for folder in (tmp_path, None):
        said, task = [], Breaking(validation=0)
        trainer = etude.Trainer(say=said.append, max_duration="3 steps", run_dir=folder, **QUIET)
        result = trainer.fit(task, DATA, DATA)
        last = task.net.weight.detach().clone()

        assert "No validation gave a finite val/loss: the last weights take the best's place." in said
        trainer.test(task, DATA)
        assert torch.equal(result.load_best(Breaking()).net.weight, last)

    with pytest.warns(UserWarning, match="has no best checkpoint: its last is loaded, step-00000003"):
        assert torch.equal(Breaking.load(tmp_path).net.weight, last)


def test_a_link_to_the_best_that_leads_out_of_the_run_is_not_loaded(tmp_path):
    trained(tmp_path / "run", [], steps=2)
    trained(tmp_path / "other", [], steps=3)
    checkpoints = tmp_path / "run" / "checkpoints"
    for name in ("best", "last"):
        (checkpoints / name).unlink()
        (checkpoints / name).symlink_to(tmp_path / "other" / "checkpoints" / "step-00000003")

    with pytest.raises(StorageError, match="holds no task"):
        Breaking.load(tmp_path / "run")
