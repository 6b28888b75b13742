"""Patterns of parameters' names: which names they mean, and what names become by a table of them."""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase

TASKS_MODEL = "model."
"""What the names of a task's model begin with, which may be left out."""


def matches(name: str, pattern: str) -> bool:
    """Whether `pattern` means the parameter `name`; a task's leading `model.` may be left out.

    >>> matches("model.encoder.layers.0.weight", "encoder.*"), matches("decoder.bias", "encoder.*")
    (True, False)
    """
    return fnmatchcase(name, pattern) or fnmatchcase(name.removeprefix(TASKS_MODEL), pattern)


def renamed(name: str, table: Mapping[str, str]) -> str:
    """What `name` becomes: the last pattern that means it decides; what its `*` stand for is kept, in their order.

    Each `*` stands for as little as it can. A task's leading `model.` may be left out, and stays.

    >>> renamed("layers.0.fc.weight", {"layers.*.fc.*": "encoder.*.inner.*"})
    'encoder.0.inner.weight'
    >>> renamed("model.old.bias", {"old.*": "new.*"}), renamed("other", {"old.*": "new.*"})
    ('model.new.bias', 'other')
    """
    for old, new in reversed(list(table.items())):
        for prefix in ("", TASKS_MODEL):
            found = _parts(name, prefix + old)
            if found is not None:
                return prefix + _filled(new, found)
    return name


def renames(name: str, pattern: str) -> bool:
    """Whether a pattern of `renamed` means a name."""
    return any(_parts(name, prefix + pattern) is not None for prefix in ("", TASKS_MODEL))


def _parts(name: str, pattern: str) -> tuple[str, ...] | None:
    """What each `*` of a pattern stands for in a name; None where the pattern does not mean it."""
    found = re.fullmatch("(.*?)".join(map(re.escape, pattern.split("*"))), name)
    return None if found is None else found.groups()


def _filled(pattern: str, parts: tuple[str, ...]) -> str:
    """A pattern with something in the place of each `*`."""
    first, *rest = pattern.split("*")
    return first + "".join(part + after for part, after in zip(parts, rest, strict=True))
