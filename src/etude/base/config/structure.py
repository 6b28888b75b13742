"""Finds the type that stands at a place of a config: through tables, lists, unions and components."""

import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, product
from typing import Annotated, Any, Literal, TypeGuard, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from etude.base.config.components import Component
from etude.base.config.lines import Key
from etude.base.config.nest import element_of

LIMITS = ("gt", "ge", "lt", "le")
"""The limits of a number, as pydantic names them."""


def fields_of(section: type[BaseModel]) -> dict[str, FieldInfo]:
    """Give the fields of a section by the names that a config uses for them."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def section_for(annotation: object, value: object) -> type[BaseModel] | None:
    """Choose the section that a table at a place of this type is read as; None where it is none or not known."""
    fitting = [section for section in _sections(annotation, value) if _could_be(section, value)]
    keys = set(value) if isinstance(value, Mapping) else set[str]()
    return max(fitting, key=lambda section: len(keys & fields_of(section).keys()), default=None)


def type_below(annotation: object, element: str | int, value: object) -> Any:
    """Give the type of what lies under `element` of a table or list of this type; None where it is not known."""
    if isinstance(element, int):
        return _argument(annotation, _is_list, 0)
    section = section_for(annotation, value)
    fields = fields_of(section) if section else {}
    return annotated(fields[element]) if element in fields else _argument(annotation, _is_mapping, 1)


def type_at(root: type[BaseModel], key: Key, data: object) -> Any:
    """Give the type at a place of a whole config; None where it is not known."""
    annotation: Any = root
    for element in key:
        annotation = type_below(annotation, element, data)
        data = element_of(data, element)
    return annotation


def annotated(field: FieldInfo) -> Any:
    """Put a field's annotation and its marks together again."""
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def bounds_of(annotation: object) -> dict[str, float]:
    """Collect the limits of the numbers that a type allows: `gt`, `ge`, `lt`, `le`, as far as it has any."""
    annotation = _unaliased(annotation)
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        return bounds_of(inner) | _limits(marks)
    found: dict[str, float] = {}
    for part in _branches(annotation):
        found |= bounds_of(part)
    return found


def component_of(annotation: object) -> Component | None:
    """Give the component that a type stands for, if any."""
    return _first_component(alternatives(annotation))


def marks_of(annotation: object) -> Iterator[object]:
    """List the marks of a type, those of the branches of a union included."""
    annotation = _unaliased(annotation)
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        yield from marks
        yield from marks_of(inner)
    for branch in _branches(annotation):
        yield from marks_of(branch)


def _limits(marks: Iterable[object]) -> dict[str, float]:
    """The limits that the marks of a type set, those inside of pydantic's own marks included."""
    every = [*marks]
    every += chain.from_iterable(getattr(mark, "metadata", ()) for mark in every.copy())
    return {name: getattr(mark, name) for mark, name in product(every, LIMITS) if hasattr(mark, name)}


def _sections(annotation: object, value: object) -> Iterator[type[BaseModel]]:
    """The sections among the alternatives of a type."""
    for part in alternatives(annotation):
        chosen = part.section(value) if isinstance(part, Component) else part
        if _is_section(chosen):
            yield chosen


def _argument(annotation: object, fits: Callable[[object], bool], position: int) -> Any:
    """The type argument at a position of the first list or mapping type that has one there."""
    found = (get_args(part) for part in alternatives(annotation) if fits(get_origin(part)))
    return next((arguments[position] for arguments in found if len(arguments) > position), None)


def alternatives(annotation: object) -> Iterator[object]:
    """Unfold unions and marks into the plain types, generic aliases and components that they offer."""
    annotation = _unaliased(annotation)
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        component = _first_component(marks)
        yield from [component] if component else alternatives(inner)
    elif branches := _branches(annotation):
        yield from chain.from_iterable(map(alternatives, branches))
    elif annotation is not None:
        yield annotation


def _unaliased(annotation: object) -> object:
    """What a `type X = ...` alias stands for; any other type itself."""
    return getattr(annotation, "__value__", annotation)


def _branches(annotation: object) -> tuple[object, ...]:
    """The branches of a union; none of any other type."""
    return get_args(annotation) if get_origin(annotation) in {Union, types.UnionType} else ()


def _first_component(parts: Iterable[object]) -> Component | None:
    return next((part for part in parts if isinstance(part, Component)), None)


def _is_section(part: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(part, type) and issubclass(part, BaseModel)


def _is_list(origin: object) -> bool:
    return origin in {list, tuple, set}


def _is_mapping(origin: object) -> bool:
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _could_be(section: type[BaseModel], value: object) -> bool:
    """Whether no tag of the table speaks against this section."""
    return not isinstance(value, Mapping) or all(
        _agrees(value, name, field) for name, field in fields_of(section).items()
    )


def _agrees(table: Mapping[str, object], name: str, field: FieldInfo) -> bool:
    """Whether a field is no tag (a field of one fixed word), or a table has its word."""
    words = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    return len(words) != 1 or table.get(name, field.get_default()) in words
