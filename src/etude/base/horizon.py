"""How long a run is, and how its units translate into steps."""

from dataclasses import dataclass
from typing import final

from etude.base.durations import Duration
from etude.base.errors import ConfigError


@final
@dataclass(frozen=True, slots=True)
class Horizon:
    """What is known of a run's length before its first step; None stands for what is not known.

    Estimated numbers are kept in State with the run, so that a schedule never changes under it.
    """

    steps: float | None = None
    """Steps of the whole run: None if only time bounds it, or if its data have no known length."""
    steps_per_epoch: float | None = None
    """Steps of one epoch."""
    samples_per_step: float | None = None
    """Samples of one step, all ranks together."""
    tokens_per_step: float | None = None
    """Targets that the loss counts in one step, all ranks together."""
    batches_per_step: float = 1.0
    """Batches of one step."""
    exact: bool = True
    """Whether `steps` is counted rather than estimated."""

    def in_steps(self, duration: Duration, key: str) -> float:
        """Translate a duration into steps (a fraction where it is no whole number of them).

        Raises ConfigError naming `key` where that is not known: for a time always, for the rest where this horizon
        does not hold what it takes.
        """
        amount = duration.amount
        match duration.unit:
            case "steps":
                return float(amount)
            case "epochs":
                return float(amount) * _known(self.steps_per_epoch, "the length of an epoch", duration, key)
            case "batches":
                return float(amount) / self.batches_per_step
            case "samples":
                return float(amount) / _known(self.samples_per_step, "the number of samples per step", duration, key)
            case "tokens":
                return float(amount) / _known(self.tokens_per_step, "the number of tokens per step", duration, key)
            case "percent":
                return float(amount) * _known(self.steps, "the length of the run", duration, key) / 100
        raise ConfigError(f"{key} must not be a time, but is {duration}: give it in epochs, steps, tokens or %.")


def _known(count: float | None, what: str, duration: Duration, key: str) -> float:
    if not count:
        raise ConfigError(f"{key} is {duration}, but {what} is unknown here; give {key} in steps.")
    return count
