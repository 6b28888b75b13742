"""Structural schedules in the JSON Schema of a config: accepted at every key that shapes a run and takes no number
that follows a schedule of its own.
"""

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, TypeAlias

from etude.base.config.json_schema import described
from etude.base.config.section import Section
from etude.base.schedules.structural import KINDS, NAME, SHAPING, StructuralFunction

Schema: TypeAlias = dict[str, Any]

DEFINITION = "StructuralSchedule"
REFERENCE: Schema = {"$ref": f"#/$defs/{DEFINITION}"}
ABOUT = ("title", "description", "default", "identity")
"""What is said of a key, whatever may stand there."""
EITHER = ("oneOf", "anyOf", "allOf")


def with_structural(schema: Schema) -> Schema:
    """The schema of a config, changed in place, with `StructuralSchedule` wherever one may stand.

    Such a key has `"structural": true`. Of a table that is one of several types the type may follow a schedule too;
    then its other keys, which may be of any of them, are not told.
    """
    definitions, sections = schema["$defs"], schema["properties"]
    walk = _Walk(definitions)
    for name in SHAPING:
        walk.below(sections[name])
        told = {"type": "object", "properties": {"type": REFERENCE}, "required": ["type"]}
        sections[name] = _either(sections[name], told)
    definitions[DEFINITION] = _definition()
    return schema


def _definition() -> Schema:
    kinds: list[type[Section]] = [*KINDS.values(), StructuralFunction]
    return {
        "title": DEFINITION,
        "description": "A value of any kind that changes with the epochs; the network grows with it.",
        "oneOf": list(map(described, kinds)),
    }


def _either(schema: Schema, *others: Schema) -> Schema:
    """The schema of a key that may be a structural schedule instead."""
    said = {key: schema[key] for key in ABOUT if key in schema}
    plain = {key: value for key, value in schema.items() if key not in said}
    return {**said, "structural": True, "anyOf": [plain, REFERENCE, *others]}


class _Walk:
    """A walk through what may stand in a section, each definition once."""

    def __init__(self, definitions: MutableMapping[str, Schema]) -> None:
        self._definitions = definitions
        self._seen: set[str] = set()

    def below(self, schema: Schema) -> None:
        """Let the keys of a table, of whatever type, be structural schedules."""
        for part in self._tables(schema):
            properties = part.get("properties", {})
            if NAME in properties:
                continue
            for key, inner in properties.items():
                properties[key] = self._key(inner)
            others = part.get("additionalProperties")
            if isinstance(others, Mapping):
                part["additionalProperties"] = self._key(dict(others))

    def _key(self, schema: Schema) -> Schema:
        if schema.get("schedulable") or "const" in schema or schema.get("structural"):
            return schema
        self.below(schema)
        return _either(schema)

    def _tables(self, schema: Schema) -> Iterator[Schema]:
        """The schemas of tables that a schema stands for, in all its branches; of a definition once."""
        name = schema.get("$ref", "").rpartition("/")[2]
        if name and name not in self._seen:
            self._seen.add(name)
            yield from self._tables(self._definitions[name])
        if "properties" in schema or "additionalProperties" in schema:
            yield schema
        for kind in EITHER:
            for branch in schema.get(kind, ()):
                yield from self._tables(branch)
