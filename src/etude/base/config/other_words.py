"""What other training tools call things, and what Etude calls them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import chain
from typing import Any


@dataclass(frozen=True)
class Word:
    """One word of another tool."""

    tool: str
    word: str
    etude: tuple[str, ...]
    """Etude's keys for it; empty where it needs none."""
    rule: str
    """How a value is translated: `same`, `N epochs`, ... (the names stand in the package's `other_words.json`)."""
    note: str
    later: bool = False
    """Whether Etude's keys belong to a part that this version does not have."""


_UNITS = {"epochs": "epochs", "steps": "steps", "batches": "batches"}
"""The rules by which a number gets a unit."""
_NOT_VALUES = {"none", "section", "method", "early_stopping"}
"""The rules of words that are no single setting."""


def lookup(word: str) -> tuple[Word, ...]:
    """Find a word in every tool's vocabulary, in the table's order; empty where nobody uses it."""
    return _table().get(word.lstrip("-").replace("-", "_").lower(), ())


def words(tool: str | None = None) -> tuple[Word, ...]:
    """List the whole table, or one tool's part of it."""
    every = chain.from_iterable(_table().values())
    return tuple(word for word in every if tool in {None, word.tool})


def hint(word: str, value: object = None, named: Callable[[str], str] = str) -> str:
    """Say what Etude calls another tool's word; empty where nobody uses it.

    A `value` that Etude writes in another way is said too. `named` tells what one of Etude's keys is called where the
    word was used.

    >>> hint("grad_clip"), hint("max_iters", 300)
    ('Etude calls this train.clip_grad', 'Etude calls this train.max_duration = "300 steps"')
    """
    found = lookup(word)
    meanings: dict[str, list[Word]] = {}
    for one in found:
        meanings.setdefault(_meaning(one, value, named), []).append(one)
    if len(meanings) > 1:
        return "Etude calls this " + ", ".join(f"{meaning} ({_tools(some)})" for meaning, some in meanings.items())
    calls = "Etude calls this " if any(one.etude for one in found) else ""
    return calls + "".join(meanings)


def flag(word: str, value: object = None, text: str = "VALUE") -> str:
    """Say a word with its value, written as `text`, as a flag of Etude's; empty where that is not one.

    >>> flag("epochs", 3), flag("lr", 3e-4, "3e-4"), flag("verbatim")
    ('--train.max_duration "3 epochs"', '--optimizer.learning_rate 3e-4', '')
    """
    settings = filter(_is_setting, lookup(word))
    keys = list(dict.fromkeys(chain.from_iterable(one.etude for one in settings)))
    alike = [key for key in keys if key.endswith(f".{word.replace('-', '_')}")] or keys
    told = _translated(lookup(word)[0], value) if alike else ""
    return f"--{alike[0]} {told or text}" if len(alike) == 1 else ""


def _is_setting(word: Word) -> bool:
    """Whether it stands for a single setting, which this version has."""
    return not word.later and word.rule not in _NOT_VALUES


def _meaning(word: Word, value: object, named: Callable[[str], str]) -> str:
    told = _translated(word, value)
    keys = " and ".join(map(named, word.etude)) + (f" = {told}" if told else "")
    later = "later: this version does not have it" if word.later else ""
    return ", ".join(part for part in (keys, word.note, later) if part)


def _translated(word: Word, value: object) -> str:
    """A value with the unit that Etude writes; nothing where a value is no number, or stays as it is."""
    unit = _UNITS.get(word.rule)
    is_count = isinstance(value, int | float) and not isinstance(value, bool)
    return f'"{value} {unit}"' if unit and is_count else ""


def _tools(some: list[Word]) -> str:
    return ", ".join(dict.fromkeys(word.tool for word in some))


@cache
def _table() -> dict[str, tuple[Word, ...]]:
    text = resources.files("etude.base.config").joinpath("other_words.json").read_text(encoding="utf-8")
    table: dict[str, tuple[Word, ...]] = {}
    for tool, entries in json.loads(text)["tools"].items():
        for entry in entries:
            word = _word(tool, entry)
            table[word.word.lower()] = (*table.get(word.word.lower(), ()), word)
    return table


def _word(tool: str, entry: Mapping[str, Any]) -> Word:
    rule, note, later = entry.get("rule", "same"), entry.get("note", ""), entry.get("later", False)
    return Word(tool, entry["word"], tuple(entry["etude"]), rule, note, later)
