"""Scheduled values outside the optimizers: dropout, label smoothing, loss weights, what the data are limited to."""

import math
from collections.abc import Callable, Mapping
from typing import Any

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

    def begin_epoch(self, progress: Progress) -> None:
        """Do nothing: the value is set before every step."""


class DataValue(Live):
    """A value that the batches of an epoch are planned by: taken up where an epoch begins, and held to its end.

    An epoch that is continued goes on with the value it began with, so the value is part of State.
    """

    def set(self, progress: Progress) -> None:
        """Do nothing: the epoch's batches are planned."""

    def begin_epoch(self, progress: Progress) -> None:
        """Bring the value to where it belongs in an epoch that begins at `progress`."""
        super().set(progress)

    def state_dict(self) -> dict[str, Any]:
        """The value in force."""
        return {"now": None if math.isnan(self.now) else self.now}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`."""
        if state["now"] is not None:
            self.now = state["now"]
            self._apply(self.now)
