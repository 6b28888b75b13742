"""Loads a config: composes its layers, validates them, and knows where every value came from."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from etude.base.config.command import Override, Overrides, parse
from etude.base.config.composing import Layer, Origin, compose, dotted, subject
from etude.base.config.fields import Located
from etude.base.config.lines import Key, split_key
from etude.base.config.problems import real_key, sentences
from etude.base.config.section import Section
from etude.base.config.structure import element_of
from etude.base.config.writing import toml
from etude.base.errors import ConfigError, EtudeError

Root = TypeVar("Root", bound=Section)


@dataclass(frozen=True)
class Loaded(Generic[Root]):
    """A composed, valid config."""

    config: Root
    data: dict[str, Any]
    """The whole composed config as plain values, defaults included; what is off is `false`, paths are absolute."""
    path: Path | None = None
    origins: Mapping[Key, Origin] = field(default_factory=dict)

    def origin(self, key: str | Key) -> Origin:
        """Tell where the value of a key came from; as text `translate.toml, line 14`, or `default`."""
        place = self._place(key) if isinstance(key, str) else key
        while place and place not in self.origins:
            inside = isinstance(place[-1], int) or element_of(_at(self.data, place[:-1]), place[-1]) is None
            if not inside:
                return Origin()
            place = place[:-1]
        return self.origins.get(place, Origin())

    def _place(self, key: str) -> Key:
        """Read a dotted key as messages write it, positions in lists included."""
        parts = split_key(re.sub(r"\[(\d+)\]", r".\1", key))
        place: Key = ()
        for part in parts:
            place = (*place, int(part) if part.isdigit() and (*place, int(part)) in self.origins else part)
        return place

    @contextmanager
    def naming_places(self) -> Iterator[None]:
        """Let an error raised in the block, whose sentences begin with a key, say where its value came from.

        For what only shows once data or model are there: `model.heads must ...` ends in `(translate.toml, line 14).`
        """
        try:
            yield
        except EtudeError as error:
            if isinstance(error, ConfigError):
                error.problems = tuple(self._placed(problem) for problem in error.problems)
                error.args = ("\n".join(error.problems),)
            else:
                error.args = (self._placed(str(error)),)
            raise

    def _placed(self, sentence: str) -> str:
        """End a sentence that begins with a key that somebody gave by where it stands."""
        key, _ = subject(sentence)
        if not key or key[0] not in self.data:
            return sentence
        origin = self.origin(key)
        if origin == Origin() and (key[-1] == "type" or len(key) > 2):  # noqa: PLR2004 - below a section's keys
            # A type alone is written as the component itself, and what a table leaves out is missing in the table.
            origin = self.origin(key[:-1])
        if origin == Origin() or str(origin) in sentence:
            return sentence
        return f"{sentence.removesuffix('.')} ({origin})."

    def values(self) -> Iterator[tuple[str, Any, Origin]]:
        """List every value of the composed config, with its dotted key and where it came from."""
        for place, value in _flat(self.data, ()):
            yield dotted(place), value, self.origin(place)

    def toml(self) -> str:
        """Write the composed config; loading it gives an equal config."""
        return toml(self.data)


def load(root: type[Root], path: Path | str | None, overrides: Overrides = ()) -> Loaded[Root]:
    """Compose and validate a config.

    `path` is a TOML file (with what it `extends`), or None for defaults and overrides alone. `overrides` is what is
    left of a command line (`["--train.clip_grad", "1.0"]`), or a mapping or pairs of dotted keys and values.
    Raises ConfigError with every problem at once, each one sentence that names file and line.
    """
    file = None if path is None else Path(path)
    layer = compose(root, file, parse(overrides))
    if layer.problems:
        _refuse(root, layer, file)
    try:
        config = _validated(root, layer)
    except ValidationError as error:
        raise ConfigError(sentences(root, layer, error, file)) from None
    return Loaded(config, plain_data(config), file, layer.origins)


def plain_data(config: Section) -> dict[str, Any]:
    """Give a config as plain values, as it is written: None of a `Switch` is `false`, other None are left out."""
    data: dict[str, Any] = _as_written(config.model_dump(by_alias=True))
    return data


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """List the keys at which two configs differ, as (dotted key, before, after); None stands for a missing one."""
    old, new = dict(_flat(before, ())), dict(_flat(after, ()))
    keys = dict.fromkeys([*old, *new])
    return [(dotted(key), old.get(key), new.get(key)) for key in keys if not _same(old.get(key), new.get(key))]


def _validated(root: type[Root], layer: Layer) -> Root:
    """Validate; a number of the command line that stands where text belongs is taken as the text it was."""
    try:
        return root.model_validate(layer.data)
    except ValidationError as error:
        if not _restore_words(layer, error):
            raise
    return root.model_validate(layer.data)


def _restore_words(layer: Layer, error: ValidationError) -> bool:
    """Put the written text in the place of command-line values that should be text; tell whether there were any."""
    restored = False
    for problem in error.errors(include_url=False):
        key = real_key(problem, layer.data)
        origin = layer.origins.get(key)
        value = _at(layer.data, key)
        if problem["type"] not in {"string_type", "path"} or not origin or origin.written is None:
            continue
        if isinstance(value, int | float):
            _at(layer.data, key[:-1])[key[-1]] = Located(origin.written, Path.cwd())
            restored = True
    return restored


def _refuse(root: type[Section], layer: Layer, path: Path | None) -> None:
    """Raise what composing found together with what validation finds."""
    found: list[str] = []
    try:
        _validated(root, layer)
    except ValidationError as error:
        found = sentences(root, layer, error, path)
    raise ConfigError([*layer.problems, *found])


def _at(data: Any, key: Key) -> Any:
    for element in key:
        data = element_of(data, element)
    return data


def _flat(value: Any, place: Key) -> Iterable[tuple[Key, Any]]:
    if isinstance(value, Mapping) and (value or not place):
        for key, part in value.items():
            yield from _flat(part, (*place, key))
    else:
        yield place, value


def _same(old: Any, new: Any) -> bool:
    return (
        repr(old) == repr(new) if isinstance(old, float | bool) or isinstance(new, float | bool) else bool(old == new)
    )


def _as_written(value: Any) -> Any:
    """Turn a dump into what TOML holds: lists for tuples, text for paths, nothing for None."""
    if isinstance(value, Mapping):
        return {str(key): _as_written(part) for key, part in value.items() if part is not None}
    if isinstance(value, list | tuple | set | frozenset):
        return [_as_written(part) for part in value]
    if isinstance(value, Enum):
        return value.value
    return value if isinstance(value, bool | int | float) else str(value)


__all__ = ["Loaded", "Origin", "Override", "difference", "load", "plain_data"]
