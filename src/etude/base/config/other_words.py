"""What other training tools call things, and what Etude calls them."""

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import chain


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


def lookup(word: str) -> tuple[Word, ...]:
    """Find a word in every tool's vocabulary, in the table's order; empty where nobody uses it."""
    return _table().get(word.lstrip("-").replace("-", "_").lower(), ())


def words(tool: str | None = None) -> tuple[Word, ...]:
    """List the whole table, or one tool's part of it."""
    every = chain.from_iterable(_table().values())
    return tuple(word for word in every if tool in {None, word.tool})


def hint(word: str) -> str:
    """Say what Etude calls another tool's word; empty where nobody uses it."""
    found = lookup(word)
    meanings: dict[str, list[Word]] = {}
    for one in found:
        meanings.setdefault(_meaning(one), []).append(one)
    if len(meanings) > 1:
        return "Etude calls this " + ", ".join(f"{meaning} ({_tools(some)})" for meaning, some in meanings.items())
    named = "Etude calls this " if any(one.etude for one in found) else ""
    return named + "".join(meanings)


def _meaning(word: Word) -> str:
    keys = " and ".join(word.etude)
    return f"{keys}, {word.note}" if keys and word.note else keys or word.note


def _tools(some: list[Word]) -> str:
    return ", ".join(dict.fromkeys(word.tool for word in some))


@cache
def _table() -> dict[str, tuple[Word, ...]]:
    text = resources.files("etude.base.config").joinpath("other_words.json").read_text(encoding="utf-8")
    table: dict[str, tuple[Word, ...]] = {}
    for tool, entries in json.loads(text)["tools"].items():
        for entry in entries:
            word = Word(tool, entry["word"], tuple(entry["etude"]), entry.get("rule", "same"), entry.get("note", ""))
            table[word.word.lower()] = (*table.get(word.word.lower(), ()), word)
    return table
