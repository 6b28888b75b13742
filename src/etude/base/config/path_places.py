"""Finds the paths in a config that is composed, but not validated yet."""

from collections.abc import Iterator

from pydantic import BaseModel

from etude.base.config.fields import PathOr
from etude.base.config.lines import Key
from etude.base.config.nest import parts_of
from etude.base.config.structure import marks_of, type_at


def paths_of(root: type[BaseModel], data: object) -> Iterator[tuple[Key, str]]:
    """List every text of a config that is read as a path, with its place; names that a field knows are none."""
    for place, text in _texts(data, ()):
        if any(isinstance(mark, PathOr) and text not in mark.known() for mark in marks_of(type_at(root, place, data))):
            yield place, text


def _texts(value: object, place: Key) -> Iterator[tuple[Key, str]]:
    """List every text inside a nest."""
    if isinstance(value, str):
        yield place, value
    for element, part in parts_of(value):
        yield from _texts(part, (*place, element))


def with_values(nest: object, values: dict[Key, object], place: Key = ()) -> object:
    """Build a nest anew in which these values stand at these places."""
    if place in values:
        return values[place]
    if isinstance(nest, dict):
        return {key: with_values(part, values, (*place, key)) for key, part in nest.items()}
    if isinstance(nest, list | tuple):
        return [with_values(part, values, (*place, index)) for index, part in enumerate(nest)]
    return nest
