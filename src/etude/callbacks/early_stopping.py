"""Early stopping as a callback, for a second metric or from Python."""

import math
from collections.abc import Mapping

from etude.base.durations import Duration
from etude.base.errors import ConfigError
from etude.base.numbers import is_number
from etude.train.stopping import Stopping, StoppingState
from etude.train.watch.callback import Callback, RunView, Stop


class EarlyStopping(Callback):
    """Ends a run at the `patience`-th validation in a row (or after a Duration) that did not beat the best.

    The words mean what they mean in `[train]`; several may be given, and the first to lose patience ends the run.
    Its counters are part of every checkpoint. It does not change which weights are the best.

    >>> stopping = EarlyStopping("val/accuracy", patience=3)
    >>> stopping.mode
    'max'
    """

    def __init__(
        self,
        monitor: str = "val/loss",
        patience: int | str | Duration = 3,
        min_delta: float = 0.0,
        mode: str | None = None,
    ) -> None:
        _check(monitor, min_delta, mode)
        self._stopping = Stopping(monitor, patience=_read_patience(patience), min_delta=min_delta, mode=mode)
        if self._stopping.unknown is not None:
            raise ConfigError(
                f"EarlyStopping.monitor is {monitor!r}, which Etude does not know: give mode if it is a metric."
            )

    @property
    def mode(self) -> str:
        """Whether less (`min`) or more (`max`) of the metric is better."""
        return self._stopping.mode

    def on_validation_end(self, run: RunView, metrics: Mapping[str, float]) -> Stop | None:
        """Take the validation in, and ask for a stop when patience is at its end."""
        self._stopping.record(self._monitored(metrics, run), run.progress, due=run.validation_due)
        reason = self._stopping.reason()
        return None if reason is None else Stop(f"early stopping: {reason}")

    def _monitored(self, metrics: Mapping[str, float], run: RunView) -> float | None:
        """The metric, of training as it was logged last; None where this validation did not give one that there is."""
        monitor, known = self._stopping.monitor, {**run.metrics, **metrics}
        if not self._stopping.known:
            _refuse_unlogged(monitor, known)
        return (metrics if monitor.startswith("val/") else known).get(monitor)

    def state_dict(self) -> StoppingState:
        """Every counter."""
        return self._stopping.state_dict()

    def load_state_dict(self, state: StoppingState) -> None:
        """Go on from `state_dict()`."""
        self._stopping.load_state_dict(state)


def _refuse_unlogged(monitor: str, known: Mapping[str, float]) -> None:
    if monitor not in known:
        there = ", ".join(sorted(name for name in known if "/" in name))
        raise ConfigError(f"EarlyStopping.monitor is {monitor!r}, which this run does not log; it logs {there}.")


def _check(monitor: object, min_delta: object, mode: object) -> None:
    """Raise ConfigError for what `[train]` would not take either."""
    if not isinstance(monitor, str):
        raise ConfigError(f"EarlyStopping.monitor must be the name of a metric, but is {monitor!r}.")
    if not is_number(min_delta) or not 0 <= min_delta < math.inf:
        raise ConfigError(f"EarlyStopping.min_delta must be a number of at least 0, but is {min_delta!r}.")
    if mode not in {None, "min", "max"}:
        raise ConfigError(f'EarlyStopping.mode must be "min" or "max", but is {mode!r}.')


def _read_patience(patience: int | str | Duration) -> int | Duration:
    """A number of validations, or a Duration. Raises ConfigError for anything else."""
    match patience:
        case int() if patience is not True and patience > 0:
            return patience
        case _:
            return _read_length(patience)


def _read_length(patience: int | str | Duration) -> Duration:
    try:
        length = Duration.parse(patience)
    except ValueError as error:
        raise ConfigError(f"patience must be a number of validations or a Duration, but is {patience!r}.") from error
    if length.unit == "percent":
        raise ConfigError(f"patience must not be a share of the run here, but is {length}; train.patience may be one.")
    return length
