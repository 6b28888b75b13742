"""What changed between two starts of one run: what is only noted, and what makes it another run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from etude.base.config.loading import difference
from etude.base.config.meaning import Meaning, Part, meaning_of
from etude.base.config.nest import element_of
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
    whole: tuple[str, object, object] | None = None
    """The key that was replaced as a whole, with both values, where this is a part of one: a schedule by a number."""

    def __str__(self) -> str:
        key, old, new = self.whole or (self.key, self.old, self.new)
        return f"{key} was {shown(old)} and is {shown(new)}"


def changes_between(
    before: Mapping[str, object], after: Mapping[str, object], root: type[BaseModel]
) -> Sequence[Change]:
    """The keys at which two composed configs of this root differ."""
    return [
        Change(key, old, new, meaning_of(root, key), _replaced(before, after, key))
        for key, old, new in difference(before, after)
    ]


def _replaced(before: object, after: object, key: str) -> tuple[str, object, object] | None:
    """The table that holds a key, where one is another schedule than the other, or no table; None elsewhere."""
    place = ""
    for name in _names(key):
        before, after, place = element_of(before, name), element_of(after, name), f"{place}.{name}".lstrip(".")
        if _is_another_schedule(before, after):
            return place, before, after
    return None


def _names(key: str) -> Sequence[str]:
    """The parts of a dotted key; none of one in whose names there are quotes, which is no schedule's."""
    return () if '"' in key else key.split(".")


def _is_another_schedule(before: object, after: object) -> bool:
    return bool(element_of(before, "schedule") != element_of(after, "schedule"))


def governing(part: Part, changes: Iterable[Change]) -> list[Change]:
    """The changes of what a part of a run's state is made from."""
    return [change for change in changes if part in change.meaning.governs]


def judged(changes: Sequence[Change], begun: str, instead: str) -> list[str]:
    """A note for each change.

    Raises RefusedError where one of them makes it another run; `begun` says what was begun with what, `instead` what
    to do.
    """
    refused = list(dict.fromkeys(str(change) for change in changes if not change.meaning.resumable))
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
