"""Overrides of single keys: `--section.key VALUE` from the shell, or a mapping from Python."""

import datetime as dt
import tomllib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from etude.base.config.lines import split_key
from etude.base.config.numbers import is_spelled, toml_spelling
from etude.base.errors import ConfigError

Name = TypeVar("Name")
Value = TypeVar("Value")


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
        return _all_read(_of_python, given.items())
    arguments = _of_kind(str, given)
    if len(arguments) == len(given):
        return _all_read(_of_shell, flags_of(arguments))
    pairs = [item for item in given if not isinstance(item, str | Override)]
    return _of_kind(Override, given) or _all_read(_of_python, pairs)


def value_of(text: str) -> Any:
    """Read a value as TOML, or as a bare word where it is none; ValueError for a broken list, table or string.

    A number may be written as people do, such as `.001`.

    >>> value_of("1e-3"), value_of(".001"), value_of("16 epochs"), value_of("[1, .5]"), value_of("none")
    (0.001, 0.001, '16 epochs', [1, 0.5], 'none')
    """
    if _is_structured(text):
        return _structured(text)
    return text if "#" in text else _number_or_word(text)


def _is_structured(text: str) -> bool:
    """Whether text begins as a list, a table or a string of TOML does."""
    return text.lstrip().startswith(("[", "{", '"', "'"))


def _structured(text: str) -> Any:
    try:
        return _toml_value(toml_spelling(text))
    except (ValueError, RecursionError):
        raise ValueError(text) from None


def _number_or_word(text: str) -> Any:
    try:
        value = _toml_value(toml_spelling(text) if is_spelled(text.strip()) else text)
    except (ValueError, RecursionError):
        return text
    return text if isinstance(value, dt.date | dt.time) else value


def _of_kind(kind: type[Value], items: Iterable[object]) -> list[Value]:
    return [item for item in items if isinstance(item, kind)]


def _toml_value(text: str) -> Any:
    """Read a value; what holds more than one is its text."""
    read = tomllib.loads(f"value = {text}")
    return read["value"] if set(read) == {"value"} else text


def _all_read(read: Callable[[Name, Value], Override], given: Iterable[tuple[Name, Value]]) -> list[Override]:
    """Read every override; ConfigError with the problems of all."""
    found: list[Override] = []
    problems: list[str] = []
    for name, value in given:
        try:
            found.append(read(name, value))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return found


def _of_python(key: str, value: object) -> Override:
    try:
        return Override(split_key(key), False if value is None else value, f'overrides["{key}"]')
    except (ValueError, TypeError):
        raise ConfigError(f'overrides must name keys as in "train.clip_grad", but one is {key!r}.') from None


def flags_of(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Pair flags with their values; a value that is missing is None."""
    left = deque(arguments)
    while left:
        argument = left.popleft()
        flag, equals, text = argument.partition("=")
        if not flag.startswith("--"):
            yield argument, None
        else:
            yield flag, text if equals else _value_next(left)


def _value_next(left: deque[str]) -> str | None:
    """Take the value that stands behind a flag, if one does."""
    return left.popleft() if left and not left[0].startswith("--") else None


def _of_shell(flag: str, text: str | None) -> Override:
    if not flag.startswith("--"):
        raise ConfigError(f'"{flag}" is not expected here: an override is written --section.key VALUE.')
    where = f"{flag} on the command line"
    try:
        key = split_key(flag[2:])
    except ValueError:
        raise ConfigError(f"{flag} must name a key, as in --train.clip_grad 1.0 (on the command line).") from None
    if text is None:
        raise ConfigError(f"{flag} needs a value after it, as in {flag} VALUE (on the command line).")
    return Override(key, _of_text(flag, text, where), where, text)


def _of_text(flag: str, text: str, where: str) -> Any:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{flag} must be valid UTF-8 ({where}).") from None
    try:
        return value_of(text)
    except ValueError:
        raise ConfigError(f"{flag} must be valid TOML or a bare word, but is {text} ({where}).") from None
