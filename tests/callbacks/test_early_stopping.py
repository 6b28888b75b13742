"""Early stopping as a callback."""

import pytest
import torch
from torch import nn

import etude


class Worse(etude.Task):
    """Validation gives a series of losses."""

    def __init__(self, losses):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.losses = losses

    def training_step(self, batch):
        return (self.weight * batch).square().mean()

    def validation_step(self, batch):
        return torch.tensor(self.losses[self.progress.step - 1])


def fit(losses, *callbacks, folder=None, until="8 steps", task=None):
    trainer = etude.Trainer(
        max_duration=until,
        eval_every="1 step",
        sanity_batches=0,
        callbacks=callbacks,
        run_dir=folder,
        device="cpu",
        progress=False,
        say=lambda _: None,
    )
    return trainer.fit(task or Worse(losses), [torch.ones(2)] * 8, [torch.ones(2)])


LOSSES = [3.0, 2.0, 2.5, 2.4, 2.3, 1.0, 0.9, 0.8]


def test_the_run_ends_at_the_validation_that_used_the_patience_up():
    result = fit(LOSSES, etude.EarlyStopping("val/loss", patience=2))

    assert result.progress.step == 4
    assert result.reason.startswith("early stopping")


def test_the_first_of_several_to_lose_patience_ends_the_run():
    result = fit(LOSSES, etude.EarlyStopping(patience=5), etude.EarlyStopping(patience="3 steps"))

    assert result.progress.step == 5


def test_its_counters_are_resumed(tmp_path):
    fit(LOSSES, etude.EarlyStopping(patience=3), folder=tmp_path, until="3 steps")

    result = fit(LOSSES, etude.EarlyStopping(patience=3), folder=tmp_path)

    assert result.progress.step == 5


@pytest.mark.parametrize("patience", [0, -1, True, "soon", 1.5])
def test_what_is_no_patience_is_refused(patience):
    with pytest.raises(etude.errors.ConfigError, match="patience"):
        etude.EarlyStopping(patience=patience)


class Several(Worse):
    """Validation gives two series, of which the run logs both."""

    def __init__(self, losses, scores):
        super().__init__(losses)
        self.scores = scores

    def validation_step(self, batch):
        self.log("accuracy", self.scores[self.progress.step - 1])
        return super().validation_step(batch)


@pytest.mark.parametrize(("patience", "ends"), [((9, 2), 5), ((2, 9), 4), ((9, 9), 8)])
def test_each_of_several_follows_its_own_metric(patience, ends):
    task = Several(LOSSES, [0.1, 0.2, 0.3, 0.3, 0.2, 0.1, 0.1, 0.1])
    stops = [etude.EarlyStopping("val/loss", patience[0]), etude.EarlyStopping("val/accuracy", patience[1])]

    result = fit(LOSSES, *stops, task=task)

    assert result.progress.step == ends


def test_the_states_of_several_are_kept_apart(tmp_path):
    def stops():
        return [etude.EarlyStopping(patience=5), etude.EarlyStopping(patience=3)]

    fit(LOSSES, *stops(), folder=tmp_path, until="3 steps")

    assert fit(LOSSES, *stops(), folder=tmp_path).progress.step == 5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mode": "up"}, "EarlyStopping.mode must be"),
        ({"min_delta": -1.0}, "EarlyStopping.min_delta must be"),
        ({"min_delta": float("nan")}, "EarlyStopping.min_delta must be"),
        ({"monitor": 3}, "EarlyStopping.monitor must be"),
        ({"monitor": "val/zest"}, "give mode"),
        ({"patience": "10 %"}, "must not be a share"),
    ],
)
def test_what_the_options_of_the_run_would_not_take_is_refused_here_too(wrong, message):
    with pytest.raises(etude.errors.ConfigError, match=message):
        etude.EarlyStopping(**wrong)
