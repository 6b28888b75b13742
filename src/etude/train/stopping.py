"""Which validation was the best, and when a run has waited long enough for a better one."""

import math
from typing import NotRequired, TypedDict

from etude.base.durations import Duration
from etude.base.errors import ConfigError
from etude.base.modes import mode_of
from etude.base.progress import Progress


def known_mode(monitor: str) -> str:
    """`min` or `max` for a metric whose name tells; raises ConfigError for one whose name does not."""
    mode = mode_of(monitor)
    if mode is None:
        raise ConfigError(
            f"train.monitor is {monitor!r}, which Etude does not know: give train.mode if it is a metric."
        )
    return mode


class StoppingState(TypedDict):
    """What a checkpoint keeps of it."""

    best: float | None
    best_step: int | None
    reference: float | None
    bad: int
    since: list[float]
    judged: list[float]
    ranking: list[list[float]]
    known: NotRequired[bool]


class Stopping:
    """The best validation so far, and the patience of early stopping.

    `best` is any strict improvement; the reference of patience moves only by more than `min_delta`. NaN is a bad
    validation; one that did not give the metric is none. All of it is part of State.
    """

    def __init__(
        self,
        monitor: str = "val/loss",
        *,
        patience: int | Duration | None = None,
        min_delta: float = 0.0,
        mode: str | None = None,
    ) -> None:
        self.monitor = monitor
        self.unknown: ConfigError | None = None
        """What is wrong with a metric whose name does not tell whether less of it is better, if it exists at all."""
        try:
            self.mode = mode or known_mode(monitor)
        except ConfigError as error:
            self.mode, self.unknown = "min", error
        self._sign = 1.0 if self.mode == "min" else -1.0
        self._patience = patience
        self._min_delta = min_delta
        self.known = False
        """Whether the metric has been there: from then on it may be missing."""
        self.best: float | None = None
        self.best_step: int | None = None
        self.ranking: dict[int, float] = {}
        self._reference: float | None = None
        self._bad = 0
        self._since = Progress()
        self._judged = Progress()

    def check_mode(self) -> None:
        """Raise ConfigError where it is not known whether less of the metric, which there is, is better."""
        if self.unknown is not None:
            raise self.unknown

    def record(self, value: float | None, progress: Progress, *, due: bool = True) -> bool:
        """Take in a validation; whether it is the best so far.

        One that was not `due` (the end of a run off the beat) may be the best, but moves no patience; one without the
        metric (None) moves nothing.
        """
        if value is None:
            return False
        self.known = True
        merit = self._sign * value
        improved = not math.isnan(merit) and self._rank(value, merit, progress.step)
        if due:
            self._wait(merit, progress)
        return improved

    def _rank(self, value: float, merit: float, step: int) -> bool:
        """Take a step among those that are ranked; whether it is the best."""
        improved = self._is_best(merit)
        if improved:
            self.best, self.best_step = value, step
        self.ranking[step] = merit
        return improved

    def _is_best(self, merit: float) -> bool:
        return self.best is None or merit < self._sign * self.best

    def _wait(self, merit: float, progress: Progress) -> None:
        self._judged = progress
        if self._is_progress(merit):
            self._reference, self._bad, self._since = merit, 0, progress
        else:
            self._bad += 1

    def _is_progress(self, merit: float) -> bool:
        """Whether patience begins anew."""
        if self._reference is None:
            return math.isfinite(merit)
        return merit < self._reference - self._min_delta

    def reason(self) -> str | None:
        """Why the run should end, as the last validation that counted had it, or None."""
        match self._patience:
            case Duration() if self._has_waited(self._patience):
                return f"{self.monitor} has not improved for {self._patience}"
            case int() if self._bad >= self._patience:
                return f"{self.monitor} has not improved for {self._bad} validations"
        return None

    def _has_waited(self, patience: Duration) -> bool:
        """Whether so much has passed between the last improvement and the last validation that was judged."""
        pairs = zip(self._since, self._judged, strict=True)
        passed = Progress(*[after - before for before, after in pairs])  # type: ignore[arg-type]  # whole numbers stay whole
        return self._bad > 0 and patience.reached(passed._replace(epoch_total=self._judged.epoch_total))

    def begin_anew(self, progress: Progress) -> None:
        """Compare with no validation before: what is measured from now on is something else."""
        self.best, self.best_step, self.ranking = None, None, {}
        self._reference, self._bad, self._since = None, 0, progress

    def forget(self, kept: set[int]) -> None:
        """Rank only steps whose checkpoints are kept."""
        self.ranking = {step: merit for step, merit in self.ranking.items() if step in kept}

    def state_dict(self) -> StoppingState:
        """Every counter."""
        return {
            "best": self.best,
            "best_step": self.best_step,
            "reference": self._reference,
            "bad": self._bad,
            "since": list(self._since),
            "judged": list(self._judged),
            "ranking": [[step, merit] for step, merit in self.ranking.items()],
            "known": self.known,
        }

    def load_state_dict(self, state: StoppingState) -> None:
        """Go on from `state_dict()`."""
        self.best, self.best_step = state["best"], state["best_step"]
        self._reference, self._bad = state["reference"], state["bad"]
        self._since = Progress(*state["since"])  # type: ignore[arg-type]  # whole numbers stay whole
        self._judged = Progress(*state["judged"])  # type: ignore[arg-type]
        self.ranking = {int(step): merit for step, merit in state["ranking"]}
        self.known = state.get("known", True)
