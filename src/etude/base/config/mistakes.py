"""Mistakes in a config: pydantic's errors taken apart, and of every union only what the branch says that was meant."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from etude.base.config.lines import Key
from etude.base.config.nest import element_of, holds

KINDS = {
    "float_type": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "iterable_type": "a list",
    "dict_type": "a table",
    "mapping_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "dataclass_type": "a table",
    "path_type": "a path",
    "path": "a path",
    "none_required": "false",
    "component": 'a table with a type, as in { type = "name" }',
}
"""What must stand there, by the kind of pydantic's error: the value is of another kind altogether."""

Item = TypeVar("Item")
Group = TypeVar("Group", bound=Hashable)


class Step(NamedTuple):
    """One step of the way to a value."""

    is_key: bool
    """Whether it is a key or a position of the config; else it is the name of a union's branch."""
    name: str | int


Steps = tuple[Step, ...]


@dataclass(frozen=True)
class Mistake:
    """One error of pydantic's."""

    kind: str
    steps: Steps
    message: str
    context: Mapping[str, Any]
    value: Any

    @property
    def key(self) -> Key:
        """The place in the config."""
        return tuple(step.name for step in self.steps if step.is_key)

    @property
    def tag(self) -> str:
        """The key by which a union tells its branches apart."""
        tag = str(self.context["discriminator"]).strip("'")
        return tag if tag.isidentifier() else "schedule"

    def union_after(self, start: int) -> Steps | None:
        """The steps to the first union behind the first `start` steps; None where there is none."""
        branches = (place for place in range(start, len(self.steps)) if not self.steps[place].is_key)
        return next((self.steps[:place] for place in branches), None)


def mistakes_of(error: ValidationError, data: object) -> list[Mistake]:
    """Give the mistakes that a validation of `data` found and that are worth telling."""
    found = [_taken_apart(one, data) for one in error.errors(include_url=False)]
    return _relevant([one for one in found if not _only_follows(one)], 0)


def real_key(error: ErrorDetails, data: object) -> Key:
    """Give the place in the config that an error of pydantic's is about."""
    return _taken_apart(error, data).key


def _taken_apart(error: ErrorDetails, data: object) -> Mistake:
    steps: list[Step] = []
    for number, part in enumerate(error["loc"], start=1):
        there = holds(data, part)
        missing = error["type"] == "missing" and number == len(error["loc"])
        steps.append(Step(there or missing, part))
        data = element_of(data, part) if there else data
    return Mistake(error["type"], tuple(steps), error["msg"], error.get("ctx", {}), error["input"])


def _relevant(mistakes: Iterable[Mistake], start: int) -> list[Mistake]:
    """Keep, of every union, only what the branch says that the value was meant for."""
    unions = _grouped(mistakes, lambda one: one.union_after(start))
    kept = unions.pop(None, [])
    for place, some in unions.items():
        kept += _of_union(place or (), some)
    return kept


def _of_union(place: Steps, mistakes: Iterable[Mistake]) -> list[Mistake]:
    """Keep the branch with the fewest mistakes of those whose kind the value is; else say what kinds there are."""
    depth = sum(step.is_key for step in place)
    branches = _grouped(mistakes, lambda one: one.steps[len(place)].name).values()
    meant = [some for some in branches if not _of_other_kind(some, depth)]
    if meant:
        fewest: list[Mistake] = min(meant, key=len)
        return _relevant(fewest, len(place) + 1)
    return [_either(_of_other_kind(chain(*branches), depth))]


def _of_other_kind(mistakes: Iterable[Mistake], depth: int) -> list[Mistake]:
    return [one for one in mistakes if other_kind(one, depth)]


def _grouped(items: Iterable[Item], group_of: Callable[[Item], Group]) -> dict[Group, list[Item]]:
    """Put together what is of one group, in the order of first appearance."""
    groups: dict[Group, list[Item]] = {}
    for item in items:
        groups.setdefault(group_of(item), []).append(item)
    return groups


def _only_follows(mistake: Mistake) -> bool:
    """Whether a list is called too short only because elements with mistakes of their own were not counted."""
    counted = isinstance(mistake.value, list | tuple) and mistake.kind == "too_short"
    return counted and len(mistake.value) >= mistake.context["min_length"]


def other_kind(mistake: Mistake, depth: int) -> str:
    """Say what must stand there instead, where a value at this depth is not even of the right kind; else nothing."""
    if len(mistake.key) != depth:
        return ""
    if mistake.kind == "duration" and not isinstance(mistake.value, str):
        return mistake.message.removeprefix("must be ")
    if mistake.kind == "union_tag_not_found" and not isinstance(mistake.value, Mapping):
        return f"a table with {mistake.tag} = ..."
    return KINDS.get(mistake.kind, "")


def _either(mistakes: Sequence[Mistake]) -> Mistake:
    """Make one mistake of several branches, none of which the value is of the kind for."""
    kinds = dict.fromkeys(other_kind(one, len(one.key)) for one in mistakes)
    if "a number" in kinds:
        kinds.pop("a whole number", None)
    first = mistakes[0]
    joint = ", or " if any("," in kind for kind in kinds) else " or "
    return Mistake("either", first.steps, f"must be {joint.join(kinds)}", {}, first.value)
