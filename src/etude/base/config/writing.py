"""Writes TOML: the composed config of a run, readable and exact."""

import datetime as dt
import json
import re
from collections.abc import Iterable, Mapping
from functools import singledispatch

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
WIDTH = 100
"""Characters up to which a table inside a section stays on one line."""


def toml(data: Mapping[str, object]) -> str:
    """Write a nest of tables as TOML that reads back as the same values; None becomes `false`.

    >>> print(toml({"train": {"clip_grad": 1e-05, "ema_decay": None}}), end="")
    [train]
    clip_grad = 1e-05
    ema_decay = false
    """
    lines: list[str] = []
    _table(lines, (), data)
    return "\n".join(lines).lstrip("\n") + "\n"


@singledispatch
def inline(value: object) -> str:
    """Write one value as it stands behind `=`; what TOML has no kind for, as its text."""
    return _string(str(value))


@inline.register
def _(_off: None) -> str:
    return "false"


@inline.register
def _(value: bool) -> str:  # noqa: FBT001 - chosen by its type
    return "true" if value else "false"


@inline.register
def _(value: int) -> str:
    return str(int(value))


@inline.register
def _(value: float) -> str:
    return repr(float(value))


@inline.register
def _(value: Mapping) -> str:  # type: ignore[type-arg]  # chosen by its type, which holds no arguments
    pairs = ", ".join(f"{_key(key)} = {inline(part)}" for key, part in value.items())
    return f"{{ {pairs} }}" if pairs else "{}"


@inline.register(list)
@inline.register(tuple)
@inline.register(set)
@inline.register(frozenset)
def _(value: Iterable[object]) -> str:
    return f"[{', '.join(map(inline, value))}]"


@inline.register
def _(value: dt.date | dt.time) -> str:
    return value.isoformat()


def _string(text: str) -> str:
    """Quote text; every control character is written as an escape that TOML knows."""
    escaped = json.dumps(text, ensure_ascii=False)
    return _CONTROL.sub(lambda match: f"\\u{ord(match.group()):04x}", escaped)


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _string(name)


def _table(lines: list[str], place: tuple[str, ...], table: Mapping[str, object]) -> None:
    """Write the plain values of a table, then the tables below it."""
    below = {key: value for key, value in table.items() if _has_header(place, value)}
    lines += [f"{_key(key)} = {inline(table[key])}" for key in table if key not in below]
    for key, value in below.items():
        _under_header(lines, (*place, key), value)


def _under_header(lines: list[str], place: tuple[str, ...], value: object) -> None:
    """Write a table under its header, or each table of a list under one."""
    name = ".".join(map(_key, place))
    header = f"[{name}]" if isinstance(value, Mapping) else f"[[{name}]]"
    for table in _tables(value):
        lines += ["", header]
        _table(lines, place, table)


def _has_header(place: tuple[str, ...], value: object) -> bool:
    """Whether a value gets lines of its own rather than standing behind `=`."""
    if isinstance(value, Mapping):
        return not place or bool(_tables(list(value.values()))) or len(inline(value)) > WIDTH
    return isinstance(value, list | tuple) and 0 < len(value) == len(_tables(value))


def _tables(value: object) -> list[Mapping[str, object]]:
    """The table that a value is, or those in a list."""
    parts = value if isinstance(value, list | tuple) else [value]
    return [part for part in parts if isinstance(part, Mapping)]
