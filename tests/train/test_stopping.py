"""Which validation is the best, and when patience ends."""

import math

import pytest
import torch
from small_runs import dataset
from torch import nn

import etude
from etude.base.durations import Duration
from etude.base.errors import ConfigError
from etude.base.progress import Progress
from etude.callbacks.early_stopping import EarlyStopping
from etude.train.stopping import Stopping, known_mode

QUIET = {"device": "cpu", "say": lambda _: None, "progress": False, "learning_rate": 0.0, "sanity_batches": 0}
NAN = math.nan


class Scripted(etude.Task):
    """Validates to the values of a script, one after another."""

    def __init__(self, script):
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.script = script
        self.passes = 0

    def training_step(self, batch):
        return (self.layer(batch[0]) - batch[1]).square().mean()

    def validation_step(self, batch):
        # Beyond its script it improves for ever.
        value = self.script[self.passes] if self.passes < len(self.script) else -self.passes
        self.passes += 1
        return etude.Loss(torch.tensor(0.0), 0) if value is None else torch.tensor(float(value))


def run(script, **options):
    """A run of one step and one validation an epoch."""
    defaults = {"max_duration": "12 epochs", "batch_size": 8, "patience": 2}
    return etude.Trainer(**{**QUIET, **defaults, **options}).fit(Scripted(script), dataset(8), dataset(8))


@pytest.mark.parametrize(
    ("script", "patience", "steps", "best"),
    [
        ([5, 4, 3, 2, 1], 2, 12, 12),
        ([5, 4, 6, 6, 1], 2, 4, 2),
        ([5, 4, 6, 3, 6, 6, 1], 2, 6, 4),
        ([5, 5, 5], 2, 3, 1),
        ([5, 4, 6, 6, 6, 1], 3, 5, 2),
        ([5, 6, 1], 1, 2, 1),
        ([5, NAN, NAN, 1], 2, 3, 1),
        ([NAN, NAN, 1], 2, 2, None),
        ([NAN, 3, NAN, 2, NAN, NAN], 2, 6, 4),
        ([math.inf, math.inf, 1], 2, 2, 1),
        ([5, None, None, None, 6, 6], 2, 6, 1),
        ([None, None, 5, 6, None, 7], 2, 6, 3),
        ([NAN, None, NAN, 1], 2, 3, None),
    ],
)
def test_the_run_stops_at_the_pth_validation_in_a_row_that_did_not_beat_the_best(script, patience, steps, best):
    result = run(script, patience=patience)

    assert result.progress.step == steps
    assert result.best_step == best
    if steps < 12:
        assert result.reason == f"early stopping: val/loss has not improved for {patience} validations"


class Sometimes(Scripted):
    """Logs a score where its script has one."""

    def validation_step(self, batch):
        value = self.script[self.passes] if self.passes < len(self.script) else 0
        self.passes += 1
        if value is not None:
            self.log("score", value)
        return torch.tensor(1.0)


def test_a_metric_that_a_validation_does_not_give_is_no_bad_one_for_whoever_waits():
    script = [1, None, None, None, 3, 2, None, 2, 9]
    options = {"max_duration": "12 epochs", "batch_size": 8, "monitor": "val/score", "mode": "max", **QUIET}
    callback = EarlyStopping("val/score", patience=2, mode="max")

    result = etude.Trainer(patience=2, **options).fit(Sometimes(script), dataset(8), dataset(8))
    told = etude.Trainer(callbacks=[callback], **options).fit(Sometimes(script), dataset(8), dataset(8))

    assert (result.progress.step, result.best_step) == (8, 5)
    assert told.progress.step == 8


def test_torchs_plateau_is_told_of_no_validation_that_gave_nothing():
    class Driven(Scripted):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
            return optimizer, torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)

    script = [5, None, None, NAN, None, 6]
    options = {**QUIET, "learning_rate": None, "max_duration": "7 epochs", "batch_size": 8, "log_every": "1 step"}

    result = etude.Trainer(**options).fit(Driven(script), dataset(8), dataset(8))

    assert [row["train/learning_rate"] for row in result.history if "train/loss" in row] == [1, 1, 1, 1, 0.5, 0.5, 0.25]


def test_newbob_compares_with_no_validation_before_a_missing_one():
    rate = {"schedule": "newbob", "peak": 0.01, "threshold": 0.1}
    options = {**QUIET, "learning_rate": rate, "max_duration": "5 epochs", "batch_size": 8, "log_every": "1 step"}

    result = etude.Trainer(**options).fit(Scripted([2, None, 2, 2, 2]), dataset(8), dataset(8))

    rates = [row["train/learning_rate"] for row in result.history if "train/loss" in row]
    assert rates == [0.01, 0.01, 0.01, 0.01, 0.005]


def test_a_validation_in_which_nothing_counted_says_so_and_the_run_goes_on():
    said = []
    options = {**QUIET, "sanity_batches": 2, "say": said.append, "max_duration": "3 epochs", "batch_size": 8}

    result = etude.Trainer(**options).fit(Scripted([None, None, 4, 3]), dataset(8), dataset(8))

    told = [sentence for sentence in said if "No target counted in the validation data" in sentence]
    assert len(told) == 2
    assert (result.best_step, result.metrics["val/loss"]) == (3, 3.0)


def test_a_validation_outside_of_a_run_says_so_too():
    said = []

    metrics = etude.Trainer(**QUIET | {"say": said.append}).validate(Scripted([None]), dataset(8))

    assert metrics == {}
    assert said == [
        "Validating in float32 on cpu.",
        "No target counted in the validation data, so there is no loss: is all of it padding?",
    ]


def test_a_metric_that_never_was_is_still_refused():
    with pytest.raises(ConfigError, match="'val/wer', which this run does not log; it logs"):
        run([1, 2], monitor="val/wer", mode="min")


def test_a_metric_may_be_missing_after_a_resume_too(tmp_path):
    options = {**QUIET, "batch_size": 8, "monitor": "val/score", "mode": "max", "patience": 3, "run_dir": tmp_path}

    etude.Trainer(max_duration="1 epoch", **options).fit(Sometimes([1]), dataset(8), dataset(8))
    result = etude.Trainer(max_duration="3 epochs", **options).fit(Sometimes([None, None]), dataset(8), dataset(8))

    assert (result.progress.step, result.best_step) == (3, 1)


def test_no_patience_no_early_stopping():
    assert run([5, 6], patience=None).progress.step == 12


def test_best_is_any_strict_improvement_while_patience_asks_for_min_delta():
    result = run([5, 4.9, 4.8, 4.7, 1], min_delta=0.5, patience=3)

    assert result.progress.step == 4
    assert result.best_step == 4
    assert run([5, 4.9, 4.8, 4.4, 4.3, 4.2, 1], min_delta=0.5, patience=3).progress.step == 12


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"patience": "3 epochs"}, 5),
        ({"patience": "3 steps"}, 5),
        ({"patience": "25 %"}, 5),
        ({"patience": "24 samples"}, 5),
        ({"patience": "3 steps", "eval_every": "2 steps"}, 8),
        ({"patience": 2, "eval_every": "2 steps"}, 8),
        ({"patience": "1 hour"}, 12),
    ],
)
def test_patience_may_be_a_duration_that_a_validation_finds_elapsed(options, steps):
    assert run([5, 4, 6, 6, 6, 6, 6, 6], **options).progress.step == steps


def test_patience_counts_before_min_duration_but_the_stop_waits():
    assert run([5, 6, 6, 6, 6, 6, 6, 6], min_duration="5 epochs").progress.step == 5
    assert run([5, 6, 6, 6, 1, 6, 6, 6], min_duration="5 epochs").progress.step == 7
    assert run([5, *[6] * 9], min_duration="50 %").progress.step == 6


def test_mode_is_known_by_the_metrics_name_or_given():
    for name in ("val/loss", "val/perplexity", "val/epoch_loss", "val/word_error_rate", "val/wer", "val/ctc_loss"):
        assert known_mode(name) == "min"
    for name in ("val/bleu", "val/chrf", "val/accuracy", "val/f1", "val/macro_f1"):
        assert known_mode(name) == "max"
    with pytest.raises(ConfigError, match="mode"):
        known_mode("val/thing")
    assert run([5, 6, 7, 6, 6], mode="max").best_step == 3
    with pytest.raises(ConfigError, match="mode"):
        run([1], mode="least")


def test_the_validation_at_the_end_off_the_beat_may_be_the_best_but_moves_no_patience():
    result = run([5, 6, 4], max_duration="5 steps", eval_every="2 steps")

    assert result.best_step == 5
    assert result.reason.startswith("max_duration")
    stopping = Stopping(patience=2)
    for step, value, due in ((1, 5.0, True), (2, 6.0, True), (3, 4.0, False), (4, 4.5, True), (5, 4.4, True)):
        stopping.record(value, Progress(step=step), due=due)
    assert stopping.best == 4.0
    assert stopping.reason() is None


@pytest.mark.parametrize("cut", [1, 3, 4, 5])
@pytest.mark.parametrize("patience", [2, "4 steps"])
def test_a_longer_run_equals_a_straight_one_in_patience_too(cut, patience, tmp_path):
    script = [5, 6, 4, 5, 4.5, 4.6, 1]

    class ByStep(Scripted):
        def validation_step(self, batch):
            step = self.progress.step + 1
            return (
                torch.tensor(float(self.script[min(step // 2, len(self.script)) - 1])) if step > 1 else torch.ones(())
            )

    def fit(folder, until):
        options = {**QUIET, "learning_rate": 0.1, "max_duration": until, "eval_every": "2 steps", "patience": patience}
        options |= {"save_every": "1 hour"}
        trainer = etude.Trainer(run_dir=folder, loggers=[], batch_size=8, **options)
        return trainer.fit(ByStep(script), dataset(8), dataset(8))

    straight = fit(tmp_path / "straight", "40 steps")
    fit(tmp_path / "cut", f"{cut} steps")
    longer = fit(tmp_path / "cut", "40 steps")

    assert longer.progress.step == straight.progress.step < 40
    assert longer.reason == straight.reason


def test_every_counter_is_kept_over_a_restart():
    values = [5.0, 4.0, NAN, 4.2, 3.9, 4.1, 4.3, 4.0]
    for patience in (3, Duration(3, "steps")):
        for cut in range(len(values)):
            straight, parts = Stopping(patience=patience), Stopping(patience=patience)
            for step, value in enumerate(values, start=1):
                if step == cut:
                    again = Stopping(patience=patience)
                    again.load_state_dict(parts.state_dict())
                    parts = again
                for one in (straight, parts):
                    one.record(value, Progress(step=step))
                assert parts.reason() == straight.reason()
            assert parts.state_dict() == straight.state_dict()
