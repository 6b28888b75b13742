"""How a run ended: a kind to be matched, and the sentence that tells of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from etude.base.durations import Duration

REACHED = "max_duration reached"


class Kind(StrEnum):
    """What ended a run."""

    LENGTH = "length"
    """It came to its `max_duration`."""
    PATIENCE = "patience"
    """`train.patience` saw too many validations without improvement."""
    ASKED = "asked"
    """A callback returned `Stop`."""
    INTERRUPTED = "interrupted"
    """A signal came; the same command resumes the run."""
    PAUSED = "paused"
    """It came to where a fork leaves its parent."""


@dataclass(frozen=True, slots=True)
class End:
    """The end of a run.

    >>> End(Kind.ASKED, "paused: look at it").goes_on
    False
    """

    kind: Kind
    says: str
    """Why, as it is shown."""

    @classmethod
    def at(cls, length: Duration) -> "End":
        """The end of a run that has come to its length."""
        return cls(Kind.LENGTH, f"{REACHED}: {length}")

    @property
    def goes_on(self) -> bool:
        """Whether this is no end but a break, after which the run has more to do."""
        return self.kind in {Kind.INTERRUPTED, Kind.PAUSED}

    def state_dict(self) -> dict[str, str]:
        """Both fields, as text."""
        return {"kind": self.kind.value, "says": self.says}

    @classmethod
    def read(cls, state: Mapping[str, Any]) -> "End | None":
        """The end that a checkpoint's state tells of; None where it was saved on the way, or is damaged."""
        match state.get("ended"):
            case {"kind": str(kind), "says": str(says)} if kind in set(Kind):
                return cls(Kind(kind), says)
            case {"reason": str(reason)}:
                return cls(_kind_of(reason, state.get("part stop")), reason)
        return None


_SENTENCES = {
    REACHED: Kind.LENGTH,
    "early stopping": Kind.PATIENCE,
    "interrupted by": Kind.INTERRUPTED,
    "paused at": Kind.PAUSED,
}


def _kind_of(reason: str, stop: object) -> Kind:
    """The kind of an end that is told by its sentence alone, as checkpoints once did."""
    match stop:
        case {"stop": str(asked)} if asked == reason:
            return Kind.ASKED
    return next((kind for begin, kind in _SENTENCES.items() if reason.startswith(begin)), Kind.ASKED)
