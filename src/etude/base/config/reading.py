"""Reads a TOML file: its values, and the line of every key."""

import datetime as dt
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.base.config.lines import Key, key_lines
from etude.base.config.nest import rebuilt
from etude.base.config.numbers import misspelled
from etude.base.errors import ConfigError
from etude.base.regular import NotRegular, reading

LARGEST = 2**20
"""Bytes above which a file is taken for something else than a config."""

LONGEST_KEY = 64
"""Parts of a dotted key; Python's reader of TOML takes memory by the square of them."""

_NAME = r"""(?:[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(rf"(?:^|[\[{{,])[ \t]*{_NAME}(?:[ \t]*\.[ \t]*{_NAME}){{{LONGEST_KEY},}}", re.MULTILINE)
_BARE_WORD = re.compile(rf"\s*{_NAME}(?:[ \t]*\.[ \t]*{_NAME})*\s*=\s*([A-Za-z_][\w/.-]*)\s*(?:#.*)?")
_WORDS = {"true": "true", "yes": "true", "on": "true"} | dict.fromkeys(("false", "no", "off", "none", "null"), "false")
_PLACE = re.compile(r"\s*\(at (?:line (\d+), column \d+|end of document)\)$")


@dataclass(frozen=True)
class Source:
    """One TOML file as it was read."""

    path: Path
    data: dict[str, Any]
    lines: dict[Key, int]


def read(path: Path) -> Source:
    """Read a TOML file; ConfigError, one sentence with file and line, for everything that can be wrong with it."""
    text = _text(path)
    name = shown(path)
    _refuse_long_keys(name, text)
    try:
        data = tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{name} nests its values too deeply to be read.") from None
    except ValueError as error:
        raise ConfigError(_syntax(name, text, error)) from None
    if not data:
        raise ConfigError(f"{name} is empty: a config needs at least one section, such as [train].")
    try:
        return Source(path, rebuilt(data, _without_time), key_lines(text.replace("\r\n", "\n")))
    except RecursionError:
        raise ConfigError(f"{name} nests its values too deeply to be read.") from None


def shown(path: Path) -> str:
    """Name a file briefly: relative to the current folder where it lies inside it."""
    try:
        return str(Path(path).absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _text(path: Path) -> str:
    name = shown(path)
    try:
        with reading(path) as file:
            content = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise ConfigError(f"{name} does not exist; give the path of a config file (TOML).") from None
    except NotRegular as error:
        if path.is_dir():
            raise ConfigError(f"{name} is a folder; give the path of a config file (TOML) in it.") from None
        raise ConfigError(f"{name} cannot be read: {error}, since it is read more than once.") from None
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise ConfigError(f"{name} cannot be read: {reason}.") from None
    if len(content) > LARGEST:
        raise ConfigError(f"{name} is larger than {LARGEST // 2**20} MiB: too large for a config file.")
    return _decoded(name, content)


def _refuse_long_keys(name: str, text: str) -> None:
    if _LONG_KEY.search(text):
        raise ConfigError(f"{name} nests its values more than {LONGEST_KEY} levels deep.")


def _decoded(name: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise ConfigError(
            f"{name} must be UTF-8 text, but holds the byte 0x{byte:02x} ({name}, line {line})."
        ) from None


def _syntax(name: str, text: str, error: ValueError) -> str:
    """Turn what tomllib says into a sentence that ends with the place."""
    said = str(error)
    place = _PLACE.search(said)
    what = (said[: place.start()] if place else said).rstrip(".")
    what = what[:1].lower() + what[1:]
    line = int(place.group(1)) if place and place.group(1) else max(1, len(text.splitlines()))
    there = "".join(text.split("\n")[line - 1 : line])
    written = misspelled(there) or _bare_word(there)
    if written is not None:
        what = f"{written[0]} is written {written[1]} there"
    return f"{name} is not valid TOML: {what} ({name}, line {line})."


def _bare_word(line: str) -> tuple[str, str] | None:
    """A word without quotes that is a value, and how TOML has it; None where there is none."""
    found = _BARE_WORD.fullmatch(line)
    if found is None:
        return None
    word = found.group(1)
    return word, _WORDS.get(word.lower(), f'"{word}"')


def _without_time(value: object) -> object:
    """Turn a date or a time, which no setting is, into its text."""
    return value.isoformat() if isinstance(value, dt.date | dt.time) else value
