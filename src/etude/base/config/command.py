"""Overrides of single keys: `--section.key VALUE` from the shell, or a mapping from Python."""

import datetime as dt
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etude.base.config.lines import split_key
from etude.base.errors import ConfigError


@dataclass(frozen=True)
class Override:
    """One key given beside the config file."""

    key: tuple[str, ...]
    value: Any
    flag: str
    """How it was given, for messages: `--train.clip_grad on the command line`."""
    written: str | None = None
    """The text of the value as the shell gave it."""


Overrides = Sequence[str] | Sequence[tuple[str, object]] | Mapping[str, object] | Sequence[Override]


def parse(given: Overrides) -> list[Override]:
    """Read overrides in any of their forms, in order; ConfigError with every problem at once.

    A list of strings is what is left of the command line; a mapping or pairs hold dotted keys and Python values;
    overrides that are read already are given back.
    """
    if isinstance(given, Mapping):
        return _from_pairs(list(given.items()))
    if all(isinstance(item, str) for item in given):
        return _from_arguments([str(item) for item in given])
    ready = [item for item in given if isinstance(item, Override)]
    return ready or _from_pairs([item for item in given if not isinstance(item, str | Override)])


def value_of(text: str) -> Any:
    """Read a value as TOML, or as a bare word where it is none; ValueError for a broken list, table or string.

    >>> value_of("1e-3"), value_of("16 epochs"), value_of("[1, 2]"), value_of("none")
    (0.001, '16 epochs', [1, 2], 'none')
    """
    structured = text.lstrip()[:1] in {"[", "{", '"', "'"} and text.strip()
    if "#" in text and not structured:
        return text
    try:
        read = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        if structured:
            raise ValueError(text) from None
        return text
    if set(read) != {"value"} or isinstance(read["value"], dt.date | dt.time):
        return text
    return read["value"]


def _from_pairs(pairs: Sequence[tuple[str, object]]) -> list[Override]:
    found: list[Override] = []
    problems: list[str] = []
    for key, value in pairs:
        try:
            found.append(Override(split_key(key), False if value is None else value, f'overrides["{key}"]'))
        except (ValueError, TypeError):
            problems.append(f'overrides must name keys as in "train.clip_grad", but one is {key!r}.')
    if problems:
        raise ConfigError(problems)
    return found


def _from_arguments(arguments: Sequence[str]) -> list[Override]:
    found: list[Override] = []
    problems: list[str] = []
    for flag, text in _flags(arguments):
        try:
            found.append(_override(flag, text))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return found


def _flags(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Pair flags with their values; a value that is missing is None."""
    rest = iter(range(len(arguments)))
    for index in rest:
        flag, equals, text = arguments[index].partition("=")
        if equals or not flag.startswith("--"):
            yield (flag, text) if flag.startswith("--") else (arguments[index], None)
        elif index + 1 < len(arguments) and not arguments[index + 1].startswith("--"):
            yield flag, arguments[next(rest)]
        else:
            yield flag, None


def _override(flag: str, text: str | None) -> Override:
    if not flag.startswith("--"):
        raise ConfigError(f'"{flag}" is not expected here: an override is written --section.key VALUE.')
    where = f"{flag} on the command line"
    try:
        key = split_key(flag[2:])
    except ValueError:
        raise ConfigError(f"{flag} must name a key, as in --train.clip_grad 1.0 (on the command line).") from None
    if text is None:
        raise ConfigError(f"{flag} needs a value after it, as in {flag} VALUE (on the command line).")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{flag} must be valid UTF-8 ({where}).") from None
    try:
        return Override(key, value_of(text), where, text)
    except ValueError:
        raise ConfigError(f"{flag} must be valid TOML or a bare word, but is {text} ({where}).") from None
