"""What a key of a config means for a run's numbers, said once, at its field, and found again by the dotted key."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from etude.base.config.components import Component
from etude.base.config.lines import split_key
from etude.base.config.structure import alternatives, annotated, fields_of

Identity = Literal["result", "validation", "none"]
"""`result`: the key changes numbers of training. `validation`: it changes only how training is judged, and what follows
from that. `none`: it changes no number of either."""
Shared = Literal["always", "epoch", "never"]
"""Whether a run can change the key on its way: at any step, where an epoch ends, or not at all."""
Part = Literal["weights", "optimizer", "average", "stopping"]
"""A part of a run's state: names and shapes of the weights, the optimizer's options, the average of the weights, and
the best validation so far."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What a field says of itself and of all keys below it; None leaves it to the section that the field is in."""

    identity: Identity | None = None
    shared: Shared | None = None
    why: str = ""
    resumable: bool | None = None
    place: bool = False
    governs: tuple[Part, ...] = ()
    of_type: "Mark | None" = None

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Show what the mark says beside the field's type."""
        said = {"identity": self.identity, "shared": self.shared}
        return {**handler(schema), **{name: word for name, word in said.items() if word is not None}}


def means(
    identity: Identity | None = None,
    *,
    shared: Shared | None = None,
    why: str = "",
    resumable: bool | None = None,
    place: bool = False,
    governs: tuple[Part, ...] = (),
    of_type: Mark | None = None,
) -> Mark:
    """Give the mark of a field, which holds for all keys below it unless they have their own.

    It is the field's annotation: `keep_last: Annotated[int, ...] = 2`, with this call in the place of the dots.

    `why` completes "a run cannot change it, because ..." where `shared` is never. `resumable` keys may change between
    two starts of one run, which a note then says; keys that change no number are. `place` marks where a run lies and
    what it is called. `governs` names the parts of a run's state that are made from the key, in addition to those of
    the section. `of_type` marks the `type` of a component alone.
    """
    if resumable is None and identity is not None:
        resumable = identity == "none"
    return Mark(
        identity=identity,
        shared=shared,
        why=why,
        resumable=resumable,
        place=place,
        governs=governs,
        of_type=of_type,
    )


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What a key means; one that nothing is said of is of the result, and makes another run."""

    identity: Identity = "result"
    shared: Shared = "always"
    why: str = ""
    """Why no run can change it on its way, as a clause."""
    resumable: bool = False
    """Whether it may change between two starts of one run."""
    place: bool = False
    """Whether it says where the run lies, or what it is called."""
    governs: frozenset[Part] = frozenset()
    """The parts of a run's state that are made from it."""

    def marked(self, mark: Mark) -> "Meaning":
        """The meaning of what a mark stands at, inside of what means this."""
        said = {
            "identity": mark.identity,
            "shared": mark.shared,
            "why": mark.why or None,
            "resumable": mark.resumable,
            "place": mark.place or None,
        }
        given: dict[str, Any] = {name: word for name, word in said.items() if word is not None}
        return replace(self, **given, governs=self.governs | set(mark.governs))


@lru_cache(maxsize=10_000)  # every start of a run asks of each of its keys
def meaning_of(root: type[BaseModel], key: str) -> Meaning:
    """What a dotted key of a config of this root means.

    A place that may hold one of several sections has the keys of all of them. What no field is known for, as an
    argument of an imported component, means what the nearest known place above it does.
    """
    meaning, places = Meaning(), [_Place(root)]
    of_type: tuple[Mark, ...] = ()
    for part in _parts(key):
        if part == "type":
            meaning = _with(meaning, of_type)
        places = [below for place in places for below in place.under(part)]
        marks = tuple(mark for place in places for mark in place.marks)
        meaning, of_type = _with(meaning, marks), _of_types(marks)
    return meaning


def _of_types(marks: tuple[Mark, ...]) -> tuple[Mark, ...]:
    """What marks say of the `type` of a component, where they say something."""
    return tuple(mark.of_type for mark in marks if mark.of_type is not None)


def _parts(key: str) -> tuple[str, ...]:
    """The names of a dotted key; positions in lists are left out."""
    try:
        return split_key(_without_positions(key))
    except ValueError:  # a name with a quote in it
        return tuple(key.split("."))


def _without_positions(key: str) -> str:
    return "".join(part.partition("]")[2] if index else part for index, part in enumerate(key.split("[")))


def _with(meaning: Meaning, marks: tuple[Mark, ...]) -> Meaning:
    """The first mark counts: sections that a place may hold say the same of a key that they share."""
    return meaning.marked(marks[0]) if marks else meaning


@dataclass(frozen=True)
class _Place:
    """A place of a config, by the type of what it holds."""

    annotation: object

    @property
    def marks(self) -> Iterator[Mark]:
        """What its field says of itself."""
        if get_origin(self.annotation) is Annotated:
            yield from (mark for mark in get_args(self.annotation)[1:] if isinstance(mark, Mark))

    def under(self, name: str) -> Iterator["_Place"]:
        """The places that a name may lead to from here."""
        for part in alternatives(self.annotation):
            yield from _under(part, name)


def _under(part: object, name: str) -> Iterator[_Place]:
    match part:
        case Component():
            for section in (*part.table.values(), part.imported):
                yield from _under(section, name)
        case type() if issubclass(part, BaseModel):
            fields = fields_of(part)
            yield from [_Place(annotated(fields[name]))] if name in fields else []
        case _:
            yield from _inside(part, name)


def _inside(part: object, name: str) -> Iterator[_Place]:
    """What a name leads to in a table of names, and in the elements of a list."""
    origin, arguments = get_origin(part), get_args(part)
    if not isinstance(origin, type) or not arguments:
        return
    if issubclass(origin, Mapping):
        yield _Place(arguments[-1])
    elif issubclass(origin, list | tuple):
        yield from _Place(arguments[0]).under(name)
