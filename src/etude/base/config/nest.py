"""Nests of tables, lists and plain values, as a TOML file holds them: looked into, listed, rebuilt and measured."""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

from etude.base.config.lines import Key


def element_of(value: object, element: str | int) -> Any:
    """Look one level down into a nest; None where nothing is there."""
    nest: Any = value
    return nest[element] if holds(nest, element) else None


def holds(value: object, element: object) -> bool:
    """Whether a table has this key, or a list this position."""
    if isinstance(value, Mapping):
        return element in value
    return isinstance(value, list | tuple) and isinstance(element, int) and element < len(value)


def value_at(nest: object, key: Key) -> Any:
    """Look down a whole place; None where nothing is there."""
    for element in key:
        nest = element_of(nest, element)
    return nest


def parts_of(value: object) -> list[tuple[str | int, Any]]:
    """List the elements of a table or a list by key or position; none of a plain value."""
    if isinstance(value, Mapping):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list | tuple) else []


def places(value: object) -> Iterator[Key]:
    """List every place inside a nest, itself first."""
    yield ()
    for element, part in parts_of(value):
        yield from ((element, *place) for place in places(part))


def leaves(value: object, place: Key = ()) -> Iterator[tuple[Key, Any]]:
    """List what stands at the ends of all tables, with its place: lists are values, and so is an empty table below."""
    if not isinstance(value, Mapping) or (place and not value):
        yield place, value
        return
    for key, part in value.items():
        yield from leaves(part, (*place, key))


def rebuilt(value: object, leaf: Callable[[object], object], name: Callable[[object], object] = lambda key: key) -> Any:
    """Build a nest anew from the values at its ends, and its keys, by functions of them; tuples become lists."""
    if isinstance(value, Mapping):
        return {name(key): rebuilt(part, leaf, name) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [rebuilt(part, leaf, name) for part in value]
    return leaf(value)


def is_deeper(value: object, levels: int) -> bool:
    """Whether a nest has more than so many levels of tables and lists; asked without recursion, so of any depth."""
    level = [value]
    for _ in range(levels + 1):
        nests = [part for part in level if isinstance(part, Mapping | list | tuple)]
        if not nests:
            return False
        level = [part for _, part in chain(*map(parts_of, nests))]
    return True
