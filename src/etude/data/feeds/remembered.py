"""What a user's data remembers in its attributes: noticed where it has changed, and told where it is plain.

A dataset may be another one in every epoch: a level of difficulty that a callback raises, the epoch that `set_epoch`
tells. Loader workers hold copies of it, which must be made anew then. Numbers, text and small lists and mappings of
them are compared by their values; anything else by whether it is the same object, a tensor also by its version.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, TypeAlias

from torch import Tensor

from etude.base.says import Say, unheard

State: TypeAlias = dict[str, object]
SMALL = 64
"""Entries of a list or mapping that is compared by its values."""
DEPTH = 4
"""How deep objects inside of objects are looked at."""
MOST = 500
"""Attributes that are looked at."""


def remembered(*parts: object) -> State:
    """The attributes of data by their paths: values of plain ones, tokens of others that change when they do."""
    found: State = {}
    seen: set[int] = set()
    for number, part in enumerate(parts):
        for path, value in _attributes(part, f"{number}", DEPTH, seen):
            found[path] = value
            if len(found) == MOST:
                return found
    return found


def tell_epoch(part: Any, epoch: int) -> None:
    """Tell data, or a sampler, which epoch begins, where it wants to know."""
    if hasattr(part, "set_epoch"):
        part.set_epoch(epoch)


def changed(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """The names of the attributes that differ."""
    return [path.partition(".")[2] for path in dict.fromkeys([*before, *now]) if before.get(path) != now.get(path)]


def plain(value: object) -> bool:
    """Whether a value is a number, text, nothing, or a small list or mapping of them."""
    match value:
        case None | bool() | int() | float() | str():
            return True
        case list() | tuple():
            return len(value) <= SMALL and all(map(plain, value))
        case dict():
            return len(value) <= SMALL and all(map(plain, value)) and all(map(plain, value.values()))
    return False


def _attributes(part: object, path: str, depth: int, seen: set[int]) -> Iterator[tuple[str, object]]:
    if id(part) in seen or not depth:
        return
    seen.add(id(part))
    for name, value in _held(part):
        yield f"{path}.{name}", _token(value)
        if not plain(value):
            yield from _attributes(value, f"{path}.{name}", depth - 1, seen)


def _held(part: object) -> list[tuple[str, Any]]:
    """What an object holds: its attributes, or the few entries of a list, such as the parts of a chain of datasets."""
    match part:
        case Tensor() | str() | bytes() | type() | ModuleType():
            return []
        case list() | tuple():
            return [(str(place), value) for place, value in enumerate(part[:SMALL])]
    return list(getattr(part, "__dict__", {}).items())


def _token(value: object) -> object:
    """A plain value copied; of another what changes when it does."""
    match value:
        case Tensor():
            return "tensor", id(value), value._version  # noqa: SLF001 - torch counts changes in place there
        case list() | tuple() | dict() if plain(value):
            return repr(value)
        case Sequence() | Mapping() if not isinstance(value, str):
            return "several", id(value), len(value)
    return value if plain(value) else ("object", id(value))


class Memory:
    """What data has come to remember in the course of a run: a part of its state.

    The plain attributes that have changed are kept, and set again where a run goes on. Of another object that has
    taken an attribute's place it is said once that it cannot be.
    """

    def __init__(self, *parts: object, notice: Say = unheard) -> None:
        self._parts, self._notice = parts, notice
        self._first = remembered(*parts)
        self._told = False

    def state_dict(self) -> dict[str, Any]:
        """The attributes that have changed since the run began, by their paths."""
        now = remembered(*self._parts)
        differing = [path for path in self._first if now.get(path, self._first[path]) != self._first[path]]
        self._tell([path for path in differing if _is_replaced(self._first[path], now[path])])
        values = [(path, _value(self._parts, path)) for path in differing]
        return dict(filter(_is_plain, values))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set what `state_dict()` gave; what is there no more is passed over."""
        for path, value in state.items():
            if path in self._first:
                _set(self._parts, path, value)

    def _tell(self, replaced: list[str]) -> None:
        if replaced and not self._told:
            self._told = True
            names = ", ".join(path.partition(".")[2] for path in replaced[:5])
            self._notice(
                f"The data has changed in a way that a checkpoint cannot hold ({names}): a run that is resumed begins "
                "with the data as it is given. Numbers, text and short lists of them are kept."
            )


def _is_plain(item: tuple[str, object]) -> bool:
    return plain(item[1])


def _is_replaced(before: object, now: object) -> bool:
    """Whether another object, tensor or long list has taken the place of one."""
    match before, now:
        case (str() as kind, int() as one, *_), (str() as other, int() as two, *_):
            return kind == other and one != two
    return False


def _value(parts: Sequence[object], path: str) -> object:
    """What stands at a path."""
    found: Any = parts
    for name in path.split("."):
        found = _inside(found, name)
    return found


def _inside(part: Any, name: str) -> object:
    match part:
        case list() | tuple():
            return part[int(name)]
    return vars(part).get(name)


def _set(parts: Sequence[object], path: str, value: object) -> None:
    owner, _, name = path.rpartition(".")
    part, before = _value(parts, owner), _value(parts, path)
    vars(part)[name] = tuple(value) if isinstance(before, tuple) and isinstance(value, list) else value
