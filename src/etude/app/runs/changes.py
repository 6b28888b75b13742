"""What changed between two starts of one run: what is only noted, and what makes it another run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from etude.base.config.loading import difference
from etude.base.config.meaning import Meaning, Part, meaning_of
from etude.base.config.writing import inline
from etude.base.errors import RefusedError
from etude.base.files import json_or_empty

_LISTED = 4


@dataclass(frozen=True)
class Change:
    """A key whose value is another than it was; None is the value of a key that is not set."""

    key: str
    old: object
    new: object
    meaning: Meaning

    def __str__(self) -> str:
        return f"{self.key} was {shown(self.old)} and is {shown(self.new)}"


def changes_between(
    before: Mapping[str, object], after: Mapping[str, object], root: type[BaseModel]
) -> Sequence[Change]:
    """The keys at which two composed configs of this root differ."""
    return [Change(key, old, new, meaning_of(root, key)) for key, old, new in difference(before, after)]


def governing(part: Part, changes: Iterable[Change]) -> list[Change]:
    """The changes of what a part of a run's state is made from."""
    return [change for change in changes if part in change.meaning.governs]


def judged(changes: Sequence[Change], begun: str, instead: str) -> list[str]:
    """A note for each change.

    Raises RefusedError where one of them makes it another run; `begun` says what was begun with what, `instead` what
    to do.
    """
    refused = [str(change) for change in changes if not change.meaning.resumable]
    if refused:
        more = [f"and {len(refused) - _LISTED} more"] if len(refused) > _LISTED else []
        raise RefusedError(f"{begun}: {'; '.join([*refused[:_LISTED], *more])}. {instead}")
    return [f"{change.key} is now {shown(change.new)} (it was {shown(change.old)})." for change in changes]


def shown(value: object) -> str:
    """A value as a config writes it; a key that is not there is not set."""
    return "not set" if value is None else inline(value)


def machine_notes(path: Path, now: Mapping[str, Mapping[str, object]]) -> list[str]:
    """A sentence for each thing, of those in `environment.json` at `path`, without which bits may differ."""
    try:
        before = json_or_empty(path)
        old = {**before["hardware"], **before["versions"]}
    except (KeyError, TypeError):
        return []
    new = {**now["hardware"], **now["versions"]}
    told = {"threads": "threads", "processor": "processor", "torch": "torch"}
    return [
        f"The run began with another {name} ({old[key]}, now {new[key]}): last bits may differ from an unbroken run's."
        for key, name in told.items()
        if key in old and old[key] != new.get(key)
    ]
