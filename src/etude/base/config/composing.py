"""Lays the parts of a config over one another: files that extend files, then the command line."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from etude.base.config.command import Override
from etude.base.config.fields import located
from etude.base.config.lines import Key
from etude.base.config.reading import Source, read, shown
from etude.base.config.section import Section, is_off
from etude.base.config.structure import section_for, type_below
from etude.base.errors import ConfigError

_PART = re.compile(r'\[(?P<index>\d+)\]|\.?(?:"(?P<quoted>[^"\\]+)"|(?P<bare>[a-z_]+))')
_SUBJECT = re.compile(rf"((?:{re.sub('[?]P<[a-z]+>', '?:', _PART.pattern)})+):? (.+)", re.DOTALL)

DEEPEST = 64
"""Levels of tables and lists above which a config is refused."""


@dataclass(frozen=True)
class Origin:
    """Where a value came from; as text `translate.toml, line 14`, a flag of the command line, or `default`."""

    file: Path | None = None
    line: int | None = None
    flag: str | None = None
    written: str | None = None
    """The text of a value of the command line."""

    def __str__(self) -> str:
        """Say it as the end of a sentence does."""
        if self.flag:
            return self.flag
        if self.file is None:
            return "default"
        return f"{shown(self.file)}, line {self.line}" if self.line else shown(self.file)


@dataclass
class Layer:
    """What one file or the command line gives, and where each of its keys stands."""

    data: dict[str, Any] = field(default_factory=dict)
    origins: dict[Key, Origin] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    command: bool = False


def compose(root: type[BaseModel], path: Path | None, overrides: Sequence[Override]) -> Layer:
    """Compose a file, what it extends, and the overrides; `problems` of the result are mistakes found on the way."""
    whole = Layer()
    layers = [] if path is None else list(_files(path, ()))
    for layer in (*layers, _command(overrides)):
        _Merge(whole, layer).table(whole.data, layer.data, (), root)
    return whole


def dotted(key: Key) -> str:
    """Write a place as a dotted key, quoting what is no bare key.

    >>> dotted(("init", "weights", "encoder.*")), dotted(("optimizer", "groups", 0, "match"))
    ('init.weights."encoder.*"', 'optimizer.groups[0].match')
    """
    text = ""
    for part in key:
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        bare = part.isascii() and part.replace("_", "").replace("-", "").isalnum()
        text += ("." if text else "") + (part if bare else f'"{part}"')
    return text


def subject(sentence: str) -> tuple[Key, str]:
    """Read the dotted key that a sentence begins with, and the rest of the sentence.

    >>> subject("optimizer.groups[0].match is missing.")
    (('optimizer', 'groups', 0, 'match'), 'is missing.')
    """
    found = _SUBJECT.match(sentence)
    if found is None:
        return (), sentence
    parts = _PART.finditer(found[1])
    return tuple(int(part["index"]) if part["index"] else part["quoted"] or part["bare"] for part in parts), found[2]


def _files(path: Path, above: tuple[Path, ...]) -> Iterator[Layer]:
    """Give the layers of a file: those it extends in order, then itself."""
    path = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links away from what was asked for
    if "\0" in str(path):
        raise ConfigError(f"{str(path)!r} cannot be read: a path holds no NUL character.")
    real = Path(os.path.realpath(path))  # resolve() raises for links in a circle; reading says so in a sentence
    if real in above:
        circle = " -> ".join(shown(file) for file in (*above[above.index(real) :], real))
        raise ConfigError(f"{shown(path)} extends itself: {circle}.")
    source = read(path)
    data = dict(source.data)
    for base in _bases(source, data.pop("extends", [])):
        yield from _files(base, (*above, real))
    if _depth(data) > DEEPEST:
        raise ConfigError(f"{shown(path)} nests its values more than {DEEPEST} levels deep.")
    origins = {key: Origin(path, line) for key, line in source.lines.items()}
    yield Layer(located(data, path.parent), origins)


def _bases(source: Source, names: object) -> list[Path]:
    names = [names] if isinstance(names, str) else names
    where = Origin(source.path, source.lines.get(("extends",)))
    if not isinstance(names, list) or not all(isinstance(name, str) and name and "\0" not in name for name in names):
        raise ConfigError(f"extends must be the path of a config file or a list of them ({where}).")
    bases = [source.path.parent / name for name in names]
    for name, base in zip(names, bases, strict=True):
        if not base.is_file():
            raise ConfigError(f'extends names "{name}", but {shown(base)} is not a file ({where}).')
    return bases


def _command(overrides: Sequence[Override]) -> Layer:
    """Gather the overrides in one layer; of a repeated key the last wins."""
    layer = Layer(command=True)
    folder = Path.cwd()
    for override in overrides:
        if len(override.key) + _depth(override.value) > DEEPEST:
            raise ConfigError(f"A key nests its values more than {DEEPEST} levels deep ({override.flag}).")
        table = layer.data
        origin = Origin(flag=override.flag, written=override.written)
        for depth, name in enumerate(override.key[:-1], start=1):
            if not isinstance(table.get(name), dict):
                table[name] = {}
            table = table[name]
            layer.origins.setdefault(override.key[:depth], origin)
        table[override.key[-1]] = value = located(override.value, folder)
        layer.origins |= {(*override.key, *place): origin for place in _places(value)}
    return layer


class _Merge:
    """Lays one layer over another, key by key."""

    def __init__(self, low: Layer, high: Layer) -> None:
        self.low = low
        self.high = high

    def table(self, low: dict[str, Any], high: dict[str, Any], place: Key, annotation: Any) -> None:
        """Merge a table into the one below it."""
        both = low | high
        section = section_for(annotation, both)
        whole = section.replaced_whole if section and issubclass(section, Section) and self.high.command else ()
        for key, value in high.items():
            here = (*place, key)
            if not isinstance(value, dict):
                self.replace(low, key, here, value)
                continue
            below = type_below(annotation, key, both)
            if not isinstance(low.get(key), dict) or key in whole or _names_another(low[key], value, below):
                self.replace(low, key, here, {})
            if here in self.high.origins:
                self.low.origins[here] = self.high.origins[here]
            self.table(low[key], value, here, below)
        if section is not None and issubclass(section, Section):
            self.exclude(low, high, place, section.exclusive)

    def replace(self, low: dict[str, Any], key: str, here: Key, value: Any) -> None:
        """Put a value in the place of what was there, with its origins."""
        for place in _places(low.get(key)):
            self.low.origins.pop((*here, *place), None)
        low[key] = value
        for place in _places(value):
            if (*here, *place) in self.high.origins:
                self.low.origins[*here, *place] = self.high.origins[*here, *place]

    def exclude(
        self, low: dict[str, Any], high: dict[str, Any], place: Key, groups: tuple[tuple[str, ...], ...]
    ) -> None:
        """Let the key of an exclusive group that this layer sets take the place of the others."""
        for group in groups:
            given = [key for key in group if not is_off(high.get(key))]
            for key in group:
                if given and key != given[0] and key in low and (key in given or key not in high):
                    del low[key]
            if len(given) > 1:
                names = " and ".join(dotted((*place, key)) for key in given)
                wheres = dict.fromkeys(str(self.high.origins.get((*place, key), "")) for key in given)
                self.low.problems.append(f"{names} exclude each other: keep one of them ({' and '.join(wheres)}).")


def _names_another(low: dict[str, Any], high: dict[str, Any], annotation: Any) -> bool:
    """Whether a table is another one than that below it: it names a schedule, or another type."""
    if "schedule" in high:
        return True
    if "type" not in high:
        return False
    if "type" in low:
        return bool(high["type"] != low["type"])
    unnamed = section_for(annotation, low)
    return unnamed is None or unnamed is not section_for(annotation, {"type": high["type"]})


def _places(value: Any) -> Iterator[Key]:
    """List every place inside a nest, itself first."""
    yield ()
    if isinstance(value, dict | list):
        for element, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from ((element, *place) for place in _places(part))


def _depth(value: Any) -> int:
    """Count the levels of a nest, without recursion."""
    depth, level = 0, [value]
    while level:
        parts = [list(v.values()) if isinstance(v, dict) else v for v in level if isinstance(v, dict | list | tuple)]
        level = [part for some in parts for part in some]
        depth += bool(parts)
        if depth > DEEPEST:
            break
    return depth
