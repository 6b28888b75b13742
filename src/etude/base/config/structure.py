"""Finds the type that stands at a place of a config: through tables, lists, unions and components."""

import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from etude.base.config.components import Component
from etude.base.config.lines import Key


def fields_of(section: type[BaseModel]) -> dict[str, FieldInfo]:
    """Give the fields of a section by the names that a config uses for them."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def section_for(annotation: Any, value: Any) -> type[BaseModel] | None:
    """Choose the section that a table at a place of this type is read as; None where it is none or not known."""
    candidates: list[type[BaseModel]] = []
    for part in alternatives(annotation):
        if isinstance(part, Component):
            chosen = part.section(value)
            candidates += [chosen] if chosen else []
        elif isinstance(part, type) and issubclass(part, BaseModel):
            candidates.append(part)
    fitting = [section for section in candidates if _could_be(section, value)]
    if not fitting[1:]:
        return next(iter(fitting), None)
    keys = set(value) if isinstance(value, Mapping) else set()
    return max(fitting, key=lambda section: len(keys & set(fields_of(section))))


def type_below(annotation: Any, element: str | int, value: Any) -> Any:
    """Give the type of what lies under `element` of a table or list of this type; None where it is not known."""
    if isinstance(element, int):
        found = (get_args(part) for part in alternatives(annotation) if get_origin(part) in {list, tuple, set})
        return next((arguments[0] for arguments in found if arguments), None)
    section = section_for(annotation, value)
    if section is not None and element in fields_of(section):
        return annotated(fields_of(section)[element])
    found = (get_args(part) for part in alternatives(annotation) if _is_mapping(get_origin(part)))
    return next((arguments[1] for arguments in found if len(arguments) > 1), None)


def type_at(root: type[BaseModel], key: Key, data: Any) -> Any:
    """Give the type at a place of a whole config; None where it is not known."""
    annotation: Any = root
    for element in key:
        annotation = type_below(annotation, element, data)
        data = element_of(data, element)
    return annotation


def element_of(value: Any, element: str | int) -> Any:
    """Look one level down into a nest; None where nothing is there."""
    if isinstance(value, Mapping):
        return value.get(element)
    if isinstance(value, list | tuple) and isinstance(element, int) and element < len(value):
        return value[element]
    return None


def annotated(field: FieldInfo) -> Any:
    """Put a field's annotation and its marks together again."""
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def bounds_of(annotation: Any) -> dict[str, Any]:
    """Collect the limits of the numbers that a type allows: `gt`, `ge`, `lt`, `le`, as far as it has any."""
    annotation = getattr(annotation, "__value__", annotation)
    found: dict[str, Any] = {}
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        marks += [part for mark in marks for part in getattr(mark, "metadata", ())]
        found = {name: getattr(m, name) for m in marks for name in ("gt", "ge", "lt", "le") if hasattr(m, name)}
        return bounds_of(inner) | found
    if get_origin(annotation) in {Union, types.UnionType}:
        for part in get_args(annotation):
            found |= bounds_of(part)
    return found


def component_of(annotation: Any) -> Component | None:
    """Give the component that a type stands for, if any."""
    return next((part for part in alternatives(annotation) if isinstance(part, Component)), None)


def alternatives(annotation: Any) -> Iterator[Any]:
    """Unfold unions and marks into the plain types, generic aliases and components that they offer."""
    annotation = getattr(annotation, "__value__", annotation)  # a `type X = ...` alias
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *marks = get_args(annotation)
        component = next((mark for mark in marks if isinstance(mark, Component)), None)
        yield from [component] if component else alternatives(inner)
    elif origin in {Union, types.UnionType}:
        for part in get_args(annotation):
            yield from alternatives(part)
    elif annotation is not None:
        yield annotation


def _is_mapping(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _could_be(section: type[BaseModel], value: Any) -> bool:
    """Whether no tag of the table (a field of one fixed word) speaks against this section."""
    if not isinstance(value, Mapping):
        return True
    for name, field in fields_of(section).items():
        words = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        if len(words) == 1 and value.get(name, field.get_default()) not in words:
            return False
    return True
