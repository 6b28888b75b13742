"""Loads a config: composes its layers, validates them, and knows where every value came from."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from functools import singledispatch
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from etude.base.config.command import Override, Overrides, parse
from etude.base.config.composing import Layer, Origin, compose, dotted, subject
from etude.base.config.fields import Located
from etude.base.config.lines import Key, split_key
from etude.base.config.mistakes import real_key
from etude.base.config.nest import leaves, value_at
from etude.base.config.problems import sentences
from etude.base.config.section import Section
from etude.base.config.writing import toml
from etude.base.errors import ConfigError, EtudeError
from etude.base.paths import user_path

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
            if self._is_default(place):
                return Origin()
            place = place[:-1]
        return self.origins.get(place, Origin())

    def _is_default(self, place: Key) -> bool:
        """Whether a key that nobody gave stands in the composed config: it is no part of a value that somebody gave."""
        return isinstance(place[-1], str) and value_at(self.data, place) is not None

    def _place(self, key: str) -> Key:
        """Read a dotted key as messages write it, positions in lists included."""
        parts = split_key(re.sub(r"\[(\d+)\]", r".\1", key))
        place: Key = ()
        for part in parts:
            position: Key = (*place, int(part)) if part.isdigit() else ()
            place = position if position in self.origins else (*place, part)
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
        origin = self._given_at(key)
        if origin == Origin() or str(origin) in sentence:
            return sentence
        return f"{sentence.removesuffix('.')} ({origin})."

    def _given_at(self, key: Key) -> Origin:
        """Tell where a key was given, or the table that it was left out of."""
        origin = self.origin(key)
        # A type alone is written as the component itself, and what a table leaves out is missing in the table.
        if origin == Origin() and (key[-1] == "type" or len(key) > 2):  # noqa: PLR2004 - below a section's keys
            return self.origin(key[:-1])
        return origin

    def values(self) -> Iterator[tuple[str, Any, Origin]]:
        """List every value of the composed config, with its dotted key and where it came from."""
        for place, value in leaves(self.data):
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
    file = None if path is None else user_path(path)
    return validated(root, compose(root, file, parse(overrides)), file)


def validated(root: type[Root], layer: Layer, file: Path | None) -> Loaded[Root]:
    """Validate what was composed of a file. Raises ConfigError with every problem at once, those of composing too."""
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


def difference(before: Mapping[str, object], after: Mapping[str, object]) -> list[tuple[str, Any, Any]]:
    """List the keys at which two configs differ, as (dotted key, before, after); None stands for a missing one."""
    old, new = dict(leaves(before)), dict(leaves(after))
    pairs = ((key, old.get(key), new.get(key)) for key in dict.fromkeys([*old, *new]))
    return [(dotted(key), was, now) for key, was, now in pairs if not _same(was, now)]


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
    restored = [_is_restored(layer, problem) for problem in error.errors(include_url=False)]
    return any(restored)


def _is_restored(layer: Layer, problem: ErrorDetails) -> bool:
    """Restore what one problem is about, if it is a number of the command line."""
    key = real_key(problem, layer.data)
    written = layer.origins.get(key, Origin()).written
    is_number = isinstance(value_at(layer.data, key), int | float)
    if problem["type"] not in {"string_type", "path"} or written is None or not is_number:
        return False
    value_at(layer.data, key[:-1])[key[-1]] = Located(written, Path.cwd())
    return True


def _refuse(root: type[Section], layer: Layer, path: Path | None) -> None:
    """Raise what composing found together with what validation finds."""
    found: list[str] = []
    try:
        _validated(root, layer)
    except ValidationError as error:
        found = sentences(root, layer, error, path)
    raise ConfigError([*layer.problems, *found])


def _same(old: object, new: object) -> bool:
    exact = isinstance(old, float | bool) or isinstance(new, float | bool)
    return repr(old) == repr(new) if exact else bool(old == new)


@singledispatch
def _as_written(value: object) -> Any:
    """Turn a dump into what TOML holds: lists for tuples, text for paths, nothing for None."""
    return str(value)


@_as_written.register(Mapping)
def _(value: Mapping[object, object]) -> dict[str, Any]:
    return {str(key): _as_written(part) for key, part in value.items() if part is not None}


@_as_written.register(list)
@_as_written.register(tuple)
@_as_written.register(set)
@_as_written.register(frozenset)
def _(value: Iterable[object]) -> list[Any]:
    return list(map(_as_written, value))


@_as_written.register
def _(value: Enum) -> Any:
    return value.value


@_as_written.register(int)
@_as_written.register(float)
def _(value: float) -> float:
    return value


__all__ = ["Loaded", "Origin", "Override", "difference", "load", "plain_data", "validated"]
