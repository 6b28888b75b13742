"""Lays the parts of a config over one another: files that extend files, then the command line."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from pydantic import BaseModel

from etude.base.config.command import Override
from etude.base.config.fields import located
from etude.base.config.lines import Key
from etude.base.config.nest import is_deeper, places
from etude.base.config.reading import Source, read, shown
from etude.base.config.section import Section, switched_on
from etude.base.config.structure import fields_of, section_for, type_below
from etude.base.errors import ConfigError
from etude.base.paths import user_path

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

    def origin_of(self, key: Key) -> Origin | None:
        """Find where a key, or else what holds it, stands."""
        while key and key not in self.origins:
            key = key[:-1]
        return self.origins.get(key)


def compose(root: type[BaseModel], path: Path | None, overrides: Sequence[Override]) -> Layer:
    """Compose a file, what it extends, and the overrides; `problems` of the result are mistakes found on the way."""
    files = [] if path is None else file_layers(path)
    return merged(root, [*files, command_layer(overrides)])


def file_layers(path: Path) -> list[Layer]:
    """The layers of a file: those that it extends in order, then itself."""
    return list(_files(path, ()))


def merged(root: type[BaseModel], layers: Sequence[Layer]) -> Layer:
    """Lay layers over one another, the last on top; `problems` of the result are mistakes found on the way."""
    whole = Layer()
    for layer in layers:
        _Merge(whole, layer).table(whole.data, layer.data, (), root)
    return whole


def dotted(key: Key) -> str:
    """Write a place as a dotted key, quoting what is no bare key.

    >>> dotted(("init", "weights", "encoder.*")), dotted(("optimizer", "groups", 0, "match"))
    ('init.weights."encoder.*"', 'optimizer.groups[0].match')
    """
    return "".join(map(_written, key)).removeprefix(".")


def _written(part: str | int) -> str:
    """Write one part of a dotted key, with what parts it from those before."""
    if isinstance(part, int):
        return f"[{part}]"
    bare = part.isascii() and part.replace("_", "").replace("-", "").isalnum()
    return f".{part}" if bare else f'."{part}"'


def subject(sentence: str) -> tuple[Key, str]:
    """Read the dotted key that a sentence begins with, and the rest of the sentence.

    >>> subject("optimizer.groups[0].match is missing.")
    (('optimizer', 'groups', 0, 'match'), 'is missing.')
    """
    found = _SUBJECT.match(sentence)
    if found is None:
        return (), sentence
    return tuple(map(_element, _PART.finditer(found[1]))), found[2]


def _element(part: re.Match[str]) -> str | int:
    return int(part["index"]) if part["index"] else part["quoted"] or part["bare"]


def _files(path: Path, above: tuple[Path, ...]) -> Iterator[Layer]:
    """Give the layers of a file: those it extends in order, then itself."""
    path = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links away from what was asked for
    real = _real(path, above)
    source = read(path)
    data = dict(source.data)
    for base in _bases(source, data.pop("extends", [])):
        yield from _files(base, (*above, real))
    if is_deeper(data, DEEPEST):
        raise ConfigError(f"{shown(path)} nests its values more than {DEEPEST} levels deep.")
    origins = {key: Origin(path, line) for key, line in source.lines.items()}
    yield Layer(located(data, path.parent), origins)


def _real(path: Path, above: tuple[Path, ...]) -> Path:
    """Follow the links of a file that is none of those that extend it."""
    if "\0" in str(path):
        raise ConfigError(f"{str(path)!r} cannot be read: a path holds no NUL character.")
    real = Path(os.path.realpath(path))  # resolve() raises for links in a circle; reading says so in a sentence
    if real in above:
        circle = " -> ".join(map(shown, (*above[above.index(real) :], real)))
        raise ConfigError(f"{shown(path)} extends itself: {circle}.")
    return real


def _bases(source: Source, names: object) -> list[Path]:
    names = [names] if isinstance(names, str) else names
    where = Origin(source.path, source.lines.get(("extends",)))
    if not _are_paths(names):
        raise ConfigError(f"extends must be the path of a config file or a list of them ({where}).")
    return [_base(source.path.parent / user_path(name), name, where) for name in names]


def _base(path: Path, name: str, where: Origin) -> Path:
    if not path.is_file():
        raise ConfigError(f'extends names "{name}", but {shown(path)} is not a file ({where}).')
    return path


def _are_paths(names: object) -> TypeGuard[list[str]]:
    return isinstance(names, list) and all(isinstance(name, str) and name and "\0" not in name for name in names)


def command_layer(overrides: Sequence[Override]) -> Layer:
    """Gather the overrides in one layer; of a repeated key the last wins."""
    layer = Layer(command=True)
    folder = Path.cwd()
    for override in overrides:
        if is_deeper(override.value, DEEPEST - len(override.key)):
            raise ConfigError(f"A key nests its values more than {DEEPEST} levels deep ({override.flag}).")
        _put(layer, override.key, located(override.value, folder), Origin(flag=override.flag, written=override.written))
    return layer


def _put(layer: Layer, key: tuple[str, ...], value: object, origin: Origin) -> None:
    """Give a layer a value, and the tables that lead to it."""
    table = layer.data
    for depth, name in enumerate(key[:-1], start=1):
        if not isinstance(table.get(name), dict):
            table[name] = {}
        table = table[name]
        layer.origins.setdefault(key[:depth], origin)
    table[key[-1]] = value
    layer.origins |= {(*key, *place): origin for place in places(value)}


class _Merge:
    """Lays one layer over another, key by key."""

    def __init__(self, low: Layer, high: Layer) -> None:
        self.low = low
        self.high = high

    def table(self, low: dict[str, Any], high: Mapping[str, object], place: Key, annotation: object) -> None:
        """Merge a table into the one below it."""
        both = low | dict(high)
        section = _section(annotation, both)
        for key, value in high.items():
            here = (*place, key)
            if not isinstance(value, dict):
                self.replace(low, key, here, value)
                continue
            below = type_below(annotation, key, both)
            if key not in low:
                low |= _default_schedule(section, key)
            if self._is_whole(section, key) or _names_another(low.get(key), value, below):
                self.replace(low, key, here, {})
            self.take_origin(here)
            self.table(low[key], value, here, below)
        for group in section.exclusive:
            self.exclude(low, high, place, group)

    def _is_whole(self, section: type[Section], key: str) -> bool:
        """Whether a table replaces the one below it, rather than changing keys of it."""
        return self.high.command and key in section.replaced_whole

    def replace(self, low: dict[str, Any], key: str, here: Key, value: object) -> None:
        """Put a value in the place of what was there, with its origins."""
        for place in places(low.get(key)):
            self.low.origins.pop((*here, *place), None)
        low[key] = value
        for place in places(value):
            self.take_origin((*here, *place))

    def take_origin(self, place: Key) -> None:
        """Let a value come from where the higher layer has it from, if that is known."""
        if place in self.high.origins:
            self.low.origins[place] = self.high.origins[place]

    def exclude(self, low: dict[str, Any], high: Mapping[str, object], place: Key, group: Sequence[str]) -> None:
        """Let the key of an exclusive group that this layer sets take the place of the others."""
        given = switched_on(group, high)
        for key in _outdone(group, given, high):
            low.pop(key, None)
        if len(given) > 1:
            self.low.problems.append(self._too_many([(*place, key) for key in given]))

    def _too_many(self, keys: Sequence[Key]) -> str:
        """Refuse several keys of an exclusive group in one layer."""
        wheres = dict.fromkeys(str(self.high.origins.get(key, "")) for key in keys)
        names = " and ".join(map(dotted, keys))
        return f"{names} exclude each other: keep one of them ({' and '.join(wheres)})."


def _section(annotation: object, value: object) -> type[Section]:
    """The section that a table is read as; one without rules of its own where none is known."""
    found = section_for(annotation, value)
    return found if found is not None and issubclass(found, Section) else Section


def _default_schedule(section: type[Section], key: str) -> dict[str, Any]:
    """The default schedule of a key, by the key: what a table that names none changes."""
    field = fields_of(section).get(key)
    match None if field is None else field.get_default():
        case Section() as default if "schedule" in fields_of(type(default)):
            return {key: default.model_dump(by_alias=True)}
    return {}


def _outdone(group: Sequence[str], given: Sequence[str], high: Mapping[str, object]) -> list[str]:
    """The keys of a group that make room for the first that a layer gives: those that it does not set itself."""
    left_out = [key for key in group if key not in high]
    return [*given[1:], *left_out] if given else []


def _names_another(low: object, high: Mapping[str, object], annotation: object) -> bool:
    """Whether a table is another one than what is below it: that is no table, or this names a schedule or a type."""
    if not isinstance(low, dict) or "schedule" in high:
        return True
    return "type" in high and _is_another_type(low, high["type"], annotation)


def _is_another_type(low: Mapping[str, object], name: object, annotation: object) -> bool:
    """Whether a `type` is another than that of a table, which may name none."""
    if "type" in low:
        return bool(name != low["type"])
    unnamed = section_for(annotation, low)
    return unnamed is None or unnamed is not section_for(annotation, {"type": name})
