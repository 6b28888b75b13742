"""Says what is wrong with a config: a sentence for each mistake, with the key, what is allowed, and where."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from etude.base.config.components import nearest, quoted
from etude.base.config.composing import Layer, Origin, dotted, subject
from etude.base.config.lines import Key
from etude.base.config.other_words import hint
from etude.base.config.reading import shown
from etude.base.config.section import Section
from etude.base.config.structure import bounds_of, component_of, element_of, fields_of, section_for, type_at
from etude.base.config.writing import inline

LONGEST = 60
"""Characters of a value that a sentence shows."""

MOST = 100
"""Mistakes that are told one by one: beyond this a file is not a config with mistakes, but something else."""

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

BOUNDS = {"greater_than": "gt", "greater_than_equal": "ge", "less_than": "lt", "less_than_equal": "le"}
"""The limit that each of pydantic's errors is about."""

BOUNDS_WORDS = {"gt": "more than {}", "ge": "at least {}", "lt": "less than {}", "le": "at most {}"}

MUSTS = {
    "too_short": "must hold at least {min_length} value(s)",
    "too_long": "must hold at most {max_length} value(s)",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "finite_number": "must be a finite number",
    "multiple_of": "must be a multiple of {multiple_of}",
    "is_instance_of": "must be a {class}",
}
"""What must stand there, by the kind of pydantic's error, with what its context tells."""


@dataclass(frozen=True)
class _Problem:
    """One error of pydantic's, its place taken apart into real keys and the names of union branches."""

    kind: str
    steps: tuple[tuple[str, str | int], ...]
    message: str
    context: Mapping[str, Any]
    value: Any

    @property
    def key(self) -> Key:
        return tuple(part for what, part in self.steps if what == "key")


def sentences(root: type[BaseModel], layer: Layer, error: ValidationError, path: Path | None) -> list[str]:
    """Turn all that a validation found into sentences, in the order of the keys' lines."""
    found = [_taken_apart(problem, layer.data) for problem in error.errors(include_url=False)]
    found = [problem for problem in found if not _only_follows(problem)]
    speaker = _Speaker(root, layer, path)
    ordered = sorted(_relevant(found, 0, layer.data), key=lambda problem: speaker.line(problem.key))
    said = list(dict.fromkeys(speaker.sentence(problem) for problem in ordered[:MOST]))
    more = len(ordered) - MOST
    return [*said, f"There are {more} more mistakes like these."] if more > 0 else said


def real_key(error: Any, data: Any) -> Key:
    """Give the place in the config that an error of pydantic's is about."""
    return _taken_apart(error, data).key


def _taken_apart(error: Any, data: Any) -> _Problem:
    steps: list[tuple[str, str | int]] = []
    location = error["loc"]
    for index, part in enumerate(location):
        there = isinstance(data, Mapping) and part in data
        there = there or (isinstance(data, list | tuple) and isinstance(part, int) and part < len(data))
        missing = error["type"] == "missing" and index == len(location) - 1
        steps.append(("key" if there or missing else "branch", part))
        data = element_of(data, part) if there else data
    return _Problem(error["type"], tuple(steps), error["msg"], error.get("ctx", {}), error["input"])


def _relevant(problems: Sequence[_Problem], start: int, data: Any) -> list[_Problem]:
    """Keep, of every union, only what the branch says that the value was meant for."""
    kept: list[_Problem] = []
    unions: dict[tuple[Any, ...], dict[Any, list[_Problem]]] = {}
    for problem in problems:
        at = next((i for i in range(start, len(problem.steps)) if problem.steps[i][0] == "branch"), None)
        if at is None:
            kept.append(problem)
        else:
            unions.setdefault(problem.steps[:at], {}).setdefault(problem.steps[at][1], []).append(problem)
    for place, branches in unions.items():
        depth = len(tuple(step for step in place if step[0] == "key"))
        meant = [some for some in branches.values() if not any(_other_kind(one, depth) for one in some)]
        if meant:
            kept += _relevant(min(meant, key=len), len(place) + 1, data)
        else:
            kept.append(_either([one for some in branches.values() for one in some if _other_kind(one, depth)]))
    return kept


def _only_follows(problem: _Problem) -> bool:
    """Whether a list is called too short only because elements with problems of their own were not counted."""
    counted = isinstance(problem.value, list | tuple) and problem.kind == "too_short"
    return counted and len(problem.value) >= problem.context["min_length"]


def _other_kind(problem: _Problem, depth: int) -> str:
    """Say what must stand there instead, where a value at this depth is not even of the right kind; else nothing."""
    if len(problem.key) != depth:
        return ""
    if problem.kind == "duration" and not isinstance(problem.value, str):
        return problem.message.removeprefix("must be ")
    if problem.kind == "union_tag_not_found" and not isinstance(problem.value, Mapping):
        return f"a table with {_tag(problem)} = ..."
    return KINDS.get(problem.kind, "")


def _tag(problem: _Problem) -> str:
    """Name the key by which a union tells its branches apart."""
    tag = str(problem.context["discriminator"]).strip("'")
    return tag if tag.isidentifier() else "schedule"


def _either(problems: Sequence[_Problem]) -> _Problem:
    """Make one problem of several branches, none of which the value is of the kind for."""
    kinds = dict.fromkeys(_other_kind(problem, len(problem.key)) for problem in problems)
    if "a number" in kinds:
        kinds.pop("a whole number", None)
    first = problems[0]
    joint = ", or " if any("," in kind for kind in kinds) else " or "
    return _Problem("either", first.steps, f"must be {joint.join(kinds)}", {}, first.value)


class _Speaker:
    """Puts problems into words."""

    def __init__(self, root: type[BaseModel], layer: Layer, path: Path | None) -> None:
        self.root = root
        self.layer = layer
        self.path = path

    def sentence(self, problem: _Problem) -> str:
        """Say one problem."""
        special = {
            "missing": self.missing,
            "extra_forbidden": self.unknown,
            "literal_error": self.word,
            "enum": self.word,
            "union_tag_invalid": self.tag,
            "union_tag_not_found": self.untagged,
            "component_type": self.component,
            "component_untyped": self.untyped,
        }
        if problem.kind in special:
            return special[problem.kind](problem)
        must = self.must(problem)
        told, rest = subject(must)
        for key in ((*problem.key, *told), told) if told else ():  # a check of a whole section, about one of its keys
            if key in self.layer.origins or key[-1] in self.known(key[:-1]):
                problem = replace(problem, steps=tuple(("key", part) for part in key))
                must = rest if rest.startswith("must") else f"{dotted(key)} {rest}"
                break
        name = dotted(problem.key) or "the config"
        if not must.startswith("must"):
            return f"{_named(name, must)} ({self.where(problem.key)})."
        value = "" if "but is" in must else f", but is {brief(problem.value)}"
        return f"{name} {must}{value} ({self.where(problem.key)})."

    def must(self, problem: _Problem) -> str:
        """Say what must stand there; of a number with two limits, both."""
        if problem.kind in BOUNDS:
            bounds = bounds_of(type_at(self.root, problem.key, self.layer.data))
            limit = BOUNDS[problem.kind]
            bounds = bounds if bounds.get(limit) == problem.context[limit] else {}
            low = next(
                (BOUNDS_WORDS[name].format(_figure(bounds[name])) for name in ("gt", "ge") if name in bounds), ""
            )
            high = next(
                (BOUNDS_WORDS[name].format(_figure(bounds[name])) for name in ("lt", "le") if name in bounds), ""
            )
            if low and high:
                return f"must be {low} and {high}"
        return _must(problem)

    def missing(self, problem: _Problem) -> str:
        """A key that must be given, or an element of a list of fixed length."""
        if isinstance(problem.key[-1], int):
            list_of, value = dotted(problem.key[:-1]), brief(_at(self.layer.data, problem.key[:-1]))
            return f"{list_of} must hold more values, but is {value} ({self.where(problem.key)})."
        table = dotted(problem.key[:-1])
        kind = component_of(type_at(self.root, problem.key, self.layer.data))
        if kind is not None and kind.default is None:
            return self.untyped(replace(problem, context={"names": quoted(kind.table)}))
        section = f" in [{table}]" if table else ""
        return f"{dotted(problem.key)} is missing: give it{section} ({self.where(problem.key[:-1])})."

    def unknown(self, problem: _Problem) -> str:
        """A key that nobody reads."""
        *above, key = problem.key
        place = tuple(above)
        known = self.known(place)
        table = f"a key of [{dotted(place)}]" if place else "a section of the config"
        section = self.section(place)
        advice = section.foreign.get(str(key), "") if section is not None and issubclass(section, Section) else ""
        advice = advice or hint(str(key)) or self.elsewhere(str(key), place, known) or f"it knows {', '.join(known)}"
        end = "?" if advice.startswith("did you") else ""
        return f"{dotted(problem.key)} is not {table}; {advice}{end} ({self.where(problem.key)})."

    def known(self, place: Key) -> list[str]:
        """List the keys of the section at a place."""
        section = self.section(place)
        return list(fields_of(section)) if section else []

    def section(self, place: Key) -> type[BaseModel] | None:
        """The section at a place, if there is one."""
        return section_for(type_at(self.root, place, self.layer.data), _at(self.layer.data, place))

    def elsewhere(self, key: str, place: Key, known: Iterable[str]) -> str:
        """Guess what a misspelt or misplaced key was meant to be."""
        near = nearest(key, known)
        if near:
            return f"did you mean {dotted((*place, near))}"
        found = {name: nearest(key, self.known((name,))) for name in fields_of(self.root)}
        right = next((name for name, match in found.items() if match == key), "")
        if place or right:
            return f"did you mean {dotted((right, key))}" if right else ""
        closest = nearest(key, found.values())
        name = next((name for name, match in found.items() if match and match == closest), "")
        return f"did you mean {dotted((name, closest))}" if name else ""

    def word(self, problem: _Problem) -> str:
        """A word that is not one of those allowed."""
        expected = str(problem.context.get("expected", ""))
        words = [a or b for a, b in re.findall(r"'((?:[^'\\]|\\.)*)'|([^\s',]+)", expected) if (a or b) != "or"]
        allowed = ", ".join(f'"{word}"' if f"'{word}'" in expected else word.lower() for word in words)
        must = f"must be one of {allowed}" if len(words) > 1 else f"must be {allowed}"
        return self.choice(problem.key, must, problem.value, words)

    def tag(self, problem: _Problem) -> str:
        """A table whose kind nobody knows."""
        words = re.findall(r"'([^']*)'", str(problem.context["expected_tags"]))
        return self.choice(
            (*problem.key, _tag(problem)), f"must be one of {quoted(words)}", problem.context["tag"], words
        )

    def untagged(self, problem: _Problem) -> str:
        """A table that does not say its kind."""
        tag = _tag(problem)
        name, where = dotted(problem.key), self.where(problem.key)
        if isinstance(problem.value, Mapping):
            return f"{name} must name its {tag}, as in {tag} = ... ({where})."
        return f"{name} must be a table with {tag} = ..., but is {brief(problem.value)} ({where})."

    def component(self, problem: _Problem) -> str:
        """A component that is not in the table of names."""
        value = problem.value
        name = value.get("type") if isinstance(value, Mapping) else value
        names = problem.context["names"]
        kind = component_of(type_at(self.root, problem.key, self.layer.data))
        own = kind is None or kind.section({"type": "package.module:Class"}) is not None
        must = f"must be one of {quoted(names)}" + (', or "package.module:Class"' if own else "")
        return self.choice((*problem.key, "type"), must, name, names)

    def untyped(self, problem: _Problem) -> str:
        """A component that does not say which."""
        names = problem.context["names"]
        name, where = dotted(problem.key), self.where(problem.key)
        return f'{name}.type is missing: give one of {names}, or "package.module:Class" ({where}).'

    def choice(self, key: Key, must: str, value: Any, words: Iterable[str]) -> str:
        """Refuse a word, with the nearest that is allowed."""
        near = nearest(str(value), words)
        advice = f'; did you mean "{near}"?' if near else ""
        return f"{dotted(key)} {must}, but is {brief(value)}{advice} ({self.where(key)})."

    def where(self, key: Key) -> str:
        """Name the file and line, or the flag, of a key or of the table it belongs in."""
        origin = self.origin(key)
        if origin is not None:
            return str(origin)
        return shown(self.path) if self.path else "no file or flag gives it"

    def origin(self, key: Key) -> Origin | None:
        """Find where the key, or else what holds it, stands."""
        while key and key not in self.layer.origins:
            key = key[:-1]
        return self.layer.origins.get(key)

    def line(self, key: Key) -> tuple[bool, str, int]:
        """Order problems as a reader meets them."""
        origin = self.origin(key) or Origin()
        return (origin.flag is not None, str(origin.file or ""), origin.line or 0)


def brief(value: Any) -> str:
    """Show a value as the config writes it, cut short where it is long."""
    text = inline(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _must(problem: _Problem) -> str:
    """Say what must stand there, as far as the kind of error tells; else what the check itself said."""
    kind, context = problem.kind, problem.context
    if kind in KINDS:
        return f"must be {KINDS[kind]}"
    if kind in BOUNDS:
        return f"must be {_bound(kind, context)}"
    if kind == "string_too_short" and context["min_length"] == 1:
        return "must not be empty"
    if kind in MUSTS:
        return MUSTS[kind].format(**context)
    said = re.sub(r"^(Value error|Assertion failed), ", "", problem.message)
    return re.sub(r"(?<!\.)\.$", "", said.replace("Input should be", "must be"))


def _bound(kind: str, context: Mapping[str, Any]) -> str:
    name = BOUNDS[kind]
    bound = context[name]
    return "positive" if name == "gt" and bound == 0 else BOUNDS_WORDS[name].format(_figure(bound))


def _figure(number: Any) -> str:
    return f"{number:.15g}" if isinstance(number, float) else str(number)


def _named(name: str, said: str) -> str:
    """Put the key in front of what a check of the section's own said, unless it is there already."""
    return said if said.startswith(name) else f"{name}: {said}"


def _at(data: Any, key: Key) -> Any:
    for element in key:
        data = element_of(data, element)
    return data
