"""The command line of a sweep: flags that give several values are its keys, the others change every run."""

from collections.abc import Iterator, Sequence
from typing import Any

from etude.app.sweep.ranges import is_range
from etude.base.config.command import Override, flags_of, parse
from etude.base.config.composing import dotted
from etude.base.errors import ConfigError

_OPENING, _CLOSING = "[{(", "]})"
_QUOTES = "\"'"


def read_flags(words: Sequence[str]) -> tuple[list[Override], dict[str, Any]]:
    """Part flags into those of every run and those that are swept: dotted keys with candidates or a range.

    A comma outside of brackets and quotes parts two candidates. Raises ConfigError with every problem at once.
    """
    same: list[Override] = []
    swept: dict[str, Any] = {}
    problems: list[str] = []
    for flag, text in flags_of(words):
        try:
            found = list(_candidates(flag, text))
        except ConfigError as error:
            problems += error.problems
            continue
        key = dotted(found[0].key)
        if len(found) > 1:
            swept[key] = [one.value for one in found]
        elif is_range(found[0].value):
            swept[key] = found[0].value
        else:
            same.append(found[0])
            swept.pop(key, None)  # of a repeated flag the last counts
    if problems:
        raise ConfigError(problems)
    return same, swept


def _candidates(flag: str, text: str | None) -> Iterator[Override]:
    """The values that a flag gives, each as an override. Raises ConfigError."""
    if text is None or flag.startswith("--sweep."):
        yield from parse([flag] if text is None else [f"{flag}={text}"])
        return
    pieces = commas(text)
    if len(pieces) > 1 and not all(pieces):
        raise ConfigError(f"{flag} must have a value before and after each comma, but is {text} (on the command line).")
    for piece in pieces:
        yield from parse([f"{flag}={piece}"])


def commas(text: str) -> list[str]:
    """Part text at commas that stand in no brackets and no quotes.

    >>> commas("1e-3,3e-4"), commas("[1, 2]"), commas("[1, 2], 'a,b'"), commas("")
    (['1e-3', '3e-4'], ['[1, 2]'], ['[1, 2]', "'a,b'"], [''])
    """
    pieces, depth, quote = [""], 0, ""
    for sign in text:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in _QUOTES:
            quote = sign
        elif sign == "," and depth == 0:
            pieces.append("")
            continue
        depth += (not quote) * ((sign in _OPENING) - (sign in _CLOSING))
        pieces[-1] += sign
    return [piece.strip() for piece in pieces]
