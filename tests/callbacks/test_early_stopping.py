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


def fit(losses, *callbacks, folder=None, until="8 steps"):
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
    return trainer.fit(Worse(losses), [torch.ones(2)] * 8, [torch.ones(2)])


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
