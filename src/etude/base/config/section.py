"""The base of every typed part of a config."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, model_validator
from pydantic_core import CoreSchema

from etude.base.config.nest import parts_of

_NO_SCHEMAS = {"default", "metadata", "serialization", "expected"}
"""Keys of a core schema under which no schema of a value lies."""


OFF_WORDS = ("none", "off")
"""Words that stand for `false` where a setting is optional."""
SWITCHED_OFF = [False, *OFF_WORDS]


def is_off(value: object) -> bool:
    """Whether a value switches an optional setting off."""
    return value is None or value is False or (isinstance(value, str) and value.lower() in OFF_WORDS)


def _be_exact(schema: object, owner: type) -> None:
    """Mark the numbers inside the core schema of `owner` strict: pydantic would fill them from strings and each other.

    A field that has said what it wants keeps it, and a section inside has marked its own.
    """
    for key, part in parts_of(schema):
        if key in _NO_SCHEMAS:
            continue
        match part:
            case {"type": "int" | "float" | "bool"}:
                part.setdefault("strict", True)
            case {"type": "model", "cls": section} if section is not owner:
                pass
            case _:
                _be_exact(part, owner)


def _others_off(group: Sequence[str], data: Mapping[str, object]) -> dict[str, None]:
    """Switch off what a table leaves out of an exclusive group of which it gives one."""
    given = switched_on(group, data)
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} exclude each other: keep one")
    left_out = [key for key in group if key not in data]
    return dict.fromkeys(left_out) if given else {}


def switched_on(group: Sequence[str], data: Mapping[str, object]) -> list[str]:
    """The keys of a group that a table gives and does not switch off."""
    return [key for key in group if not is_off(data.get(key))]


class Section(BaseModel):
    """A frozen, typed part of a config, standing beside what it builds; its fields are documented where they stand.

    Keys it does not know are errors. The string under a field becomes its description in `etude schema`. A number is
    never read from a string nor from a bool (an integer is a float, though), and a string never from a number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, validate_default=True)

    exclusive: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Groups of optional keys (`Switch`) of which the one set in the later layer counts; the others become None."""

    replaced_whole: ClassVar[tuple[str, ...]] = ()
    """Keys whose value on the command line replaces the recipe's whole, tables included."""

    foreign: ClassVar[Mapping[str, str]] = {}
    """Keys that another kind of this section has, and what they are for there, as a clause: `it is for ...`."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Make every number of the section exact about its kind."""
        schema = handler(source)
        _be_exact(schema, cls)
        return schema

    @model_validator(mode="before")
    @classmethod
    def _switch_the_excluded_off(cls, data: object) -> object:
        """Let the one key that is given of an exclusive group switch the defaults of the others off."""
        if not cls.exclusive or not isinstance(data, Mapping):
            return data
        filled = dict(data)
        for group in cls.exclusive:
            filled |= _others_off(group, data)
        return filled
