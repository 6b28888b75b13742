"""Accumulation, clipping, number formats, and steps that are not finite."""

import pytest
import torch
import torch.nn.functional as F
from small_runs import dataset
from torch import nn

import etude
from etude.base.errors import ConfigError, DivergedError

DATA = dataset(20)
QUIET = {"device": "cpu", "precision": "float32", "say": lambda _: None, "progress": False, "log_every": "1 step"}


def line(width=5):
    torch.manual_seed(4)
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 1))


def fit(model=None, data=DATA, **options):
    options = {
        "max_duration": "2 epochs",
        "batch_size": 4,
        "learning_rate": 0.1,
        "optimizer": "sgd",
        **QUIET,
        **options,
    }
    loss = options.pop("loss", F.mse_loss)
    val = options.pop("val", None)
    return etude.fit(model or line(), data, val, loss=loss, **options)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def logged(result, key):
    return [row[key] for row in result.history if key in row]


def test_accumulated_steps_equal_those_of_large_batches_the_last_group_too():
    several, large = line(), line()

    result = fit(several, accumulate=4)
    other = fit(large, batch_size=16)

    assert result.progress[:4] == (4, 10, 2, 40)
    assert other.progress[:4] == (4, 4, 2, 40)
    assert torch.allclose(weights(several), weights(large), atol=1e-6)
    assert logged(result, "train/loss") == pytest.approx(logged(other, "train/loss"), rel=1e-5)
    assert logged(result, "train/grad_norm") == pytest.approx(logged(other, "train/grad_norm"), rel=1e-5)


def test_accumulation_may_follow_a_schedule_and_is_rounded():
    schedule = {"schedule": "linear", "from": 1, "to": 3, "over": "4 steps"}

    result = fit(accumulate=schedule, batch_size=1, max_duration="20 samples")

    groups = [b - a for a, b in zip([0, *logged(result, "samples")], logged(result, "samples"), strict=False)]
    assert groups[0] in {1, 2}
    assert groups[4] == 3
    assert groups == sorted(groups[:-1]) + groups[-1:]
    with pytest.raises(ConfigError, match="accumulate"):
        fit(accumulate=0)


def test_clipping_scales_the_whole_accumulated_gradient_and_the_norm_is_logged_before_it():
    for accumulate in (1, 2):
        plain, clipped = line(), line()
        before = weights(plain)
        size = 8 // accumulate
        options = {"batch_size": size, "accumulate": accumulate, "max_duration": "1 step"}

        free = fit(plain, **options)
        held = fit(clipped, clip_grad=0.05, **options)

        norm = logged(free, "train/grad_norm")[0]
        assert logged(held, "train/grad_norm") == [norm]
        assert norm > 0.05
        expected = (weights(plain) - before) * (0.05 / norm)
        assert torch.allclose(weights(clipped) - before, expected, rtol=1e-3, atol=1e-7)
        assert float((weights(clipped) - before).norm()) == pytest.approx(0.1 * 0.05, rel=1e-3)


def test_a_gradient_below_the_limit_is_left_as_it_is():
    free, held = line(), line()

    fit(free)
    fit(held, clip_grad=1e6)

    assert torch.equal(weights(free), weights(held))


class Formats(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = line()
        self.seen = set()

    def forward(self, inputs):
        hidden = self.body(inputs)
        if self.training:
            self.seen.add(hidden.dtype)
        return hidden


@pytest.mark.parametrize(
    ("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)]
)
def test_the_forward_runs_in_the_format_asked_for_while_weights_and_losses_stay_float32(precision, dtype):
    given = set()

    def loss(logits, targets):
        given.add(logits.dtype)
        return F.mse_loss(logits, targets)

    for options in ({}, {"accumulate": 2}, {"optimizer": "adamw", "clip_grad": 0.5}):
        model = Formats()
        result = fit(model, val=DATA, precision=precision, loss=loss, max_duration="4 epochs", **options)

        assert model.seen == {dtype}
        assert given == {torch.float32}
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        losses = logged(result, "val/loss")
        assert losses[-1] < losses[0]


def test_narrow_formats_end_near_the_wide_one():
    wide = line()
    fit(wide, learning_rate=0.01)
    for precision in ("bfloat16", "float16"):
        narrow = line()
        result = fit(narrow, learning_rate=0.01, precision=precision)
        assert torch.allclose(weights(narrow), weights(wide), atol=0.05)
        assert not torch.equal(weights(narrow), weights(wide))
        if result.skipped:
            assert logged(result, "train/skipped_steps")[-1] == result.skipped


def test_only_the_scale_of_float16_overflowing_does_not_end_a_run():
    def steep(logits, targets):
        return F.mse_loss(logits, targets) * 1000

    result = fit(loss=steep, precision="float16", learning_rate=1e-6, max_duration="5 epochs")

    assert result.skipped > 5
    assert result.progress.step == 25


class Poisoned(etude.Task):
    """Gives NaN at the steps that are listed."""

    def __init__(self, steps, where="loss"):
        super().__init__()
        torch.manual_seed(1)
        self.norm = nn.BatchNorm1d(4)
        self.layer = nn.Linear(4, 1)
        self.steps = set(steps)
        self.where = where

    def training_step(self, batch):
        inputs = batch[0]
        bad = self.progress.step + 1 in self.steps
        if bad and self.where == "inputs":
            inputs = inputs * float("nan")
        loss = (self.layer(self.norm(inputs)) - batch[1]).square().mean()
        if bad and self.where == "gradient":
            return loss + self.layer.weight.sum().mul(0.0).sqrt() * 1.0
        return loss * float("nan") if bad and self.where == "loss" else loss

    def validation_step(self, batch):
        return (self.layer(self.norm(batch[0])) - batch[1]).square().mean()


def trainer(**options):
    options = {"batch_size": 4, "max_duration": "10 steps", "learning_rate": 0.01, **QUIET, **options}
    return etude.Trainer(**options)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", torch.optim.Adam])
@pytest.mark.parametrize("where", ["loss", "inputs", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing_but_counts(where, optimizer, accumulate):
    states, said = [], []

    class Reading(etude.Callback):
        def on_step_end(self, run, outcome):
            states.append({name: value.clone() for name, value in run.task.state_dict().items()})

    task = Poisoned([3], where)
    result = trainer(
        optimizer=optimizer, accumulate=accumulate, callbacks=[Reading()], say=said.append, max_duration="5 steps"
    ).fit(task, DATA)

    assert result.progress.step == 5
    assert result.skipped == 1
    assert all(torch.equal(states[1][name], states[2][name]) for name in states[1])
    assert not torch.equal(states[2]["layer.weight"], states[3]["layer.weight"])
    assert any("Step 3" in text and "skipped" in text for text in said)
    row = next(row for row in result.history if row["step"] == 3)
    if where != "gradient":
        assert row["train/loss"] is None
    assert logged(result, "train/skipped_steps")[-1] == 1


def test_five_steps_in_a_row_that_are_not_finite_end_the_run_with_the_last_finite_checkpoint(tmp_path):
    with pytest.raises(DivergedError, match=r"5 steps in a row \(to step 7\).*step-0000000[26]") as caught:
        trainer(run_dir=tmp_path / "a", save_every="2 steps", loggers=[]).fit(Poisoned([*range(3, 99)]), DATA)
    assert caught.value.exit_code == 4
    with pytest.raises(DivergedError, match=r"5 steps in a row \(to step 6\).*step-00000005"):
        trainer(run_dir=tmp_path / "b", save_every="1 hour", loggers=[]).fit(Poisoned([*range(2, 99)]), DATA)
    for part in ("a", "b"):
        task = Poisoned.load(tmp_path / part / "checkpoints" / "last")
        assert all(torch.isfinite(value).all() for value in task.state_dict().values())
    with pytest.raises(DivergedError, match="2 steps in a row"):
        trainer(max_skipped_steps=2).fit(Poisoned([4, 5]), DATA)
    assert trainer().fit(Poisoned([1, 2, 3, 4, 6, 7, 8, 9]), DATA).skipped == 8
