"""Laws of Horizon: durations in steps."""

import pytest

from etude.base.durations import Duration
from etude.base.errors import ConfigError
from etude.base.horizon import Horizon

KNOWN = Horizon(steps=1000, steps_per_epoch=100, samples_per_step=64, tokens_per_step=2000, batches_per_step=4)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("7 steps", 7),
        ("2.5 epochs", 250),
        ("10 batches", 2.5),
        ("6400 samples", 100),
        ("1e6 tokens", 500),
        ("5 %", 50),
    ],
)
def test_every_unit_but_time_is_so_many_steps(text, steps):
    assert KNOWN.in_steps(Duration.parse(text), "x") == steps


@pytest.mark.parametrize("text", ["2 epochs", "10 samples", "10 tokens", "5 %"])
def test_what_is_not_known_ahead_is_said_with_the_key(text):
    with pytest.raises(ConfigError, match=rf"optimizer\.learning_rate\.warmup is {text}.*unknown here") as caught:
        Horizon().in_steps(Duration.parse(text), "optimizer.learning_rate.warmup")

    assert str(caught.value).endswith("in steps.")


def test_time_is_never_so_many_steps():
    with pytest.raises(ConfigError, match="x must not be a time, but is 10 minutes"):
        KNOWN.in_steps(Duration.parse("10 minutes"), "x")
