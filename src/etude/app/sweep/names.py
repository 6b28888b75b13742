"""Names of a sweep's runs: readable, unique, and good for folders; a run keeps its name when the space grows."""

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from etude.app.sweep.space import Point
from etude.base.config.writing import inline

_UNSAFE = re.compile(r"[^\w.+\-]+", re.ASCII)
LONGEST_VALUE, LONGEST = 32, 160
"""Characters of a value and of a name above which they are cut, and end in a hash."""


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """The end of each key that tells it from the others.

    >>> short_keys(["optimizer.learning_rate", "model.dropout", "data.dropout"])
    {'optimizer.learning_rate': 'learning_rate', 'model.dropout': 'model.dropout', 'data.dropout': 'data.dropout'}
    """
    return {key: _end(key, [other for other in keys if other != key]) for key in keys}


def _end(key: str, others: Sequence[str]) -> str:
    parts = key.split(".")
    for count in range(1, len(parts)):
        end = ".".join(parts[-count:])
        if not any(f".{other}".endswith(f".{end}") for other in others):
            return end
    return key


def name_of(point: Point, keys: Sequence[str], number: int | None = None) -> str:
    """The name of the run of a point; `keys` are all that the sweep changes, `number` that of a draw."""
    short = short_keys(keys)
    parts = [] if number is None else [f"{number:04d}"]
    hidden: set[str] = set()
    if point.table is not None and point.table.name:
        parts.append(_safe(point.table.name))
        hidden = set(point.table.values)
    parts += [f"{_safe(short[key])}={shown(value)}" for key, value in point.values.items() if key not in hidden]
    return _cut(",".join(parts), LONGEST, point.values)


def shown(value: object) -> str:
    """A value in a name.

    >>> shown(0.001), shown("adamw"), shown(True), shown(0.00034718273)
    ('0.001', 'adamw', 'true', '0.00034718273')
    """
    text = value if isinstance(value, str) else inline(value)
    return _cut(_safe(text), LONGEST_VALUE, value)


def _safe(text: str) -> str:
    """Text with nothing in it that a folder's name had better not hold; what was changed shows by a hash."""
    safe = _UNSAFE.sub("_", text).strip("_.") or "_"
    return safe if safe == text else f"{safe}~{_digest(text)}"


def _cut(text: str, longest: int, value: object) -> str:
    return text if len(text) <= longest else f"{text[: longest - 7]}~{_digest(_plain(value))}"


def _plain(value: object) -> str:
    return inline(value)


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:6]


def identity(values: Mapping[str, Any]) -> str:
    """What tells a combination from every other, whatever the order of its keys."""
    return inline(dict(sorted(values.items())))
