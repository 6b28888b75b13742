"""What another tool's config may say: its words, each with its kind, its range and its own default."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etude.base.config.command import Override
from etude.base.config.components import quoted
from etude.base.config.section import is_off
from etude.base.config.writing import inline
from etude.base.near import nearest
from etude.base.numbers import is_number

Check = Callable[[object], object]
"""Gives a value as the tool reads it. Raises ValueError, with what it must be, for one that the tool refuses."""


@dataclass(frozen=True)
class Word:
    """One key of another tool's section."""

    name: str
    default: Any
    """The tool's own, as its guide gives it; None where the setting is off."""
    check: Check


@dataclass(frozen=True)
class Given:
    """The value of a word, and where it stands."""

    value: Any
    where: str
    """`slang.toml, line 4`, a flag of the command line, or the tool's default."""
    is_default: bool = False

    @property
    def is_flag(self) -> bool:
        """Whether it was given on the command line."""
        return self.where.startswith("--")


@dataclass(frozen=True)
class Translation:
    """What a section of another tool says in Etude's words."""

    settings: Sequence[Override]
    """Etude's keys; the flag of each names where its value came from."""
    notes: Sequence[str] = ()
    """What has no counterpart, or not quite the same, each in a sentence."""


@dataclass(frozen=True)
class Tool:
    """A tool whose files Etude reads."""

    name: str
    section: str
    """The section that is translated."""
    words: Sequence[Word]
    """All keys of that section."""
    left_out: Mapping[str, str]
    """Its other sections, and the keys above all sections: for each, where Etude has it instead."""
    translate: Callable[[Mapping[str, Given]], Translation]
    """From a value for every word to Etude's settings."""

    def word(self, name: str) -> Word | None:
        """The word of that name; a dash on the command line is an underscore."""
        asked = name.replace("-", "_")
        return next((word for word in self.words if word.name == asked), None)


def setting(key: str, value: object, given: Given) -> Override:
    """An Etude setting that came from a word."""
    return Override(tuple(key.split(".")), value, given.where)


def whole(least: int) -> Check:
    """Read a whole number from `least` up; one written as 8e3 is one too."""

    def check(value: object) -> int:
        if not is_number(value) or value != value // 1:
            raise ValueError("a whole number")
        if value < least:
            raise ValueError(f"at least {least}")
        return int(value)

    return check


def number(text: str, allows: Callable[[float], bool]) -> Check:
    """Read a number for which `allows` holds; `text` says what that is, as in "more than 0"."""

    def check(value: object) -> float:
        if not is_number(value):
            raise ValueError("a number")
        read = _as_float(value)
        if not allows(read):  # false for NaN too, which compares with nothing
            raise ValueError(text)
        return read

    return check


def _as_float(value: float) -> float:
    """A number as a float; a whole number beyond the largest is infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def one_of(*names: str) -> Check:
    """Read one of some names, in whatever case."""

    def check(value: object) -> str:
        word = value.strip().lower() if isinstance(value, str) else ""
        if word not in names:
            near = nearest(str(value), names) if word else ""
            raise ValueError(f"one of {quoted(names)}{_meant(value, near)}")
        return word

    return check


def _meant(value: object, near: str) -> str:
    return f', but is {inline(value)}; did you mean "{near}"?' if near else ""


def or_off(check: Check) -> Check:
    """Let a setting be off: `false`, or in the shell `none`."""

    def optional(value: object) -> object:
        try:
            return None if _is_off(value) else check(value)
        except ValueError as error:
            raise ValueError(f"{error} or none") from None

    return optional


def _is_off(value: object) -> bool:
    """Whether a setting is switched off, in whatever case."""
    return is_off(value.lower() if isinstance(value, str) else value)
