"""What a run's checkpoint says of where the run stood."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etude.base.durations import Duration
from etude.base.errors import StorageError
from etude.base.files import read_json
from etude.base.progress import Progress
from etude.train.end import End
from etude.train.memory.checkpoint.content import STATE_JSON


@dataclass(frozen=True)
class Kept:
    """The state that a checkpoint keeps, by name; an empty one is that of a run that has none."""

    state: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def at(cls, checkpoint: Path) -> "Kept":
        """What is kept in plain numbers. Raises StorageError where it cannot be read."""
        path = checkpoint / STATE_JSON
        try:
            kept = cls(read_json(path))
            _ = kept.progress
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise StorageError(f"{path} is damaged ({type(error).__name__}: {error}).") from error
        return kept

    @property
    def progress(self) -> Progress:
        """How far the run had come."""
        return Progress(**self.state["progress"]) if self.state else Progress()

    @property
    def is_between_epochs(self) -> bool:
        """Whether no epoch had been begun that was not ended."""
        return bool(self.state) and self.state.get("position") is None

    @property
    def horizon(self) -> float | None:
        """How many steps the run was to have, where that was known."""
        return self.state.get("horizon")

    @property
    def end(self) -> End | None:
        """How the run ended there; None where it was on its way."""
        return End.read(self.state)

    @property
    def rows(self) -> int:
        """How many bytes of `metrics.jsonl` belong to it."""
        return int(self.state["record"]["bytes"])

    @property
    def best_step(self) -> int | None:
        """The step of the best validation so far."""
        stopping: Mapping[str, int | None] = self.state.get("part stopping") or {}
        return stopping.get("best_step")

    @property
    def merits(self) -> dict[int, float]:
        """By step: the monitored metric of its validation where that was finite, the smaller the better."""
        stopping: Mapping[str, list[tuple[int, Any]]] = self.state.get("part stopping") or {}
        return {step: merit for step, merit in stopping.get("ranking", []) if isinstance(merit, int | float)}

    def has_come_to(self, until: Duration) -> bool:
        """Whether it is the moment `until` or later."""
        return until.reached(self.progress)

    def is_exactly(self, until: Duration) -> bool:
        """Whether it is the first moment that has come to `until`, as far as it tells by itself."""
        progress = self.progress
        if self.end == End.at(until):
            return True
        if until.unit == "steps":
            return progress.step == until.amount
        return is_whole_epochs(until) and progress.epoch == until.amount and progress.epoch_done == 0


def is_whole_epochs(until: Duration) -> bool:
    """Whether a moment is the end of an epoch by its unit alone."""
    return until.unit == "epochs" and until.amount.denominator == 1
