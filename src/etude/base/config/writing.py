"""Writes TOML: the composed config of a run, readable and exact."""

import datetime as dt
import json
import re
from collections.abc import Mapping
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
WIDTH = 100
"""Characters up to which a table inside a section stays on one line."""


def toml(data: Mapping[str, Any]) -> str:
    """Write a nest of tables as TOML that reads back as the same values; None becomes `false`.

    >>> print(toml({"train": {"clip_grad": 1e-05, "ema_decay": None}}), end="")
    [train]
    clip_grad = 1e-05
    ema_decay = false
    """
    lines: list[str] = []
    _table(lines, (), data)
    return "\n".join(lines).lstrip("\n") + "\n"


def inline(value: Any) -> str:
    """Write one value as it stands behind `=`."""
    if value is None:
        return "false"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{_key(key)} = {inline(part)}" for key, part in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list | tuple | set | frozenset):
        return f"[{', '.join(inline(part) for part in value)}]"
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    return _string(str(value))


def _string(text: str) -> str:
    """Quote text; every control character is written as an escape that TOML knows."""
    escaped = json.dumps(text, ensure_ascii=False)
    return _CONTROL.sub(lambda match: f"\\u{ord(match.group()):04x}", escaped)


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _string(name)


def _table(lines: list[str], place: tuple[str, ...], table: Mapping[str, Any]) -> None:
    """Write the plain values of a table, then the tables below it."""
    below = {key: value for key, value in table.items() if _has_header(place, value)}
    lines += [f"{_key(key)} = {inline(value)}" for key, value in table.items() if key not in below]
    for key, value in below.items():
        name = ".".join(_key(part) for part in (*place, key))
        for part in [value] if isinstance(value, Mapping) else value:
            lines += ["", f"[{name}]" if isinstance(value, Mapping) else f"[[{name}]]"]
            _table(lines, (*place, key), part)


def _has_header(place: tuple[str, ...], value: Any) -> bool:
    """Whether a value gets lines of its own rather than standing behind `=`."""
    if isinstance(value, Mapping):
        return not place or _nests(value) or len(inline(value)) > WIDTH
    return bool(value) and isinstance(value, list | tuple) and all(isinstance(part, Mapping) for part in value)


def _nests(table: Mapping[str, Any]) -> bool:
    return any(isinstance(value, Mapping) for value in table.values())
