"""Scheduled values outside the optimizers: dropout, label smoothing, loss weights; set before every step."""

from collections.abc import Callable

from etude.base.progress import Progress

Schedule = Callable[[Progress], float]


class Live:
    """A value that follows a schedule; it is logged under its name."""

    def __init__(self, name: str, schedule: Schedule, apply: Callable[[float], object]) -> None:
        self.name = name
        self.schedule = schedule
        self._apply = apply
        self.now = float("nan")
        """The value in force."""

    def set(self, progress: Progress) -> None:
        """Bring the value to where it belongs at `progress`."""
        value = self.schedule(progress)
        if value != self.now:
            self.now = value
            self._apply(value)
