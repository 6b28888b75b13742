"""The JSON Schema of a whole config, so that editors complete and check it."""

from pathlib import Path
from typing import Any

from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from etude.base.config.described import strings_under_fields
from etude.base.config.loading import plain_data
from etude.base.config.section import SWITCHED_OFF, Section
from etude.base.durations import Duration

DIALECT = "https://json-schema.org/draft/2020-12/schema"

SECTIONS = "x-sections"
"""What a table of a schema says whose keys are, beside its own, the sections of the config."""
EXTENDS: dict[str, Any] = {
    "description": "The config file, or list of files, that this one extends; later wins.",
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
}


def schema(root: type[Section], title: str = "Etude config") -> dict[str, Any]:
    """Describe every valid config of this root (JSON Schema, draft 2020-12); each accepted config is valid by it."""
    whole = described(root)
    # A file may leave to what it extends, or to the command line, what the composed config must have.
    whole.pop("required", None)
    properties = {"extends": EXTENDS} | whole.pop("properties", {})
    for part in whole.get("$defs", {}).values():
        if part.pop(SECTIONS, False):
            known = part["properties"]
            part["properties"] = known | {name: _any(one) for name, one in properties.items() if name not in known}
    body = {"$schema": DIALECT, "title": title, **{k: v for k, v in whole.items() if k != "title"}}
    return body | {"properties": properties}


def _any(part: dict[str, Any]) -> dict[str, Any]:
    """What describes a section where a part of it may stand, or a value of another kind."""
    return {"anyOf": [part, {"title": "a part of it"}]}


def described(section: type[BaseModel]) -> dict[str, Any]:
    """Describe a section by itself."""
    return section.model_json_schema(by_alias=True, mode="validation", schema_generator=_Generator)


class _Generator(GenerateJsonSchema):
    """Writes defaults as a config file would: what is off is `false`.

    Each key is described by the string under its field. Strings are read here, not where classes are made (pydantic's
    `use_attribute_docstrings`), since that costs every start a tenth of a second.
    """

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """Describe the keys of a section."""
        described = super().model_schema(schema)
        section: type[BaseModel] = schema["cls"]
        told = strings_under_fields(section)
        for name, field in section.model_fields.items():
            for key in _spellings(name, field):
                if name in told:
                    described["properties"][key].setdefault("description", told[name])
        return described

    def encode_default(self, dft: object) -> Any:
        """Write a default as its field would."""
        if isinstance(dft, Section):
            return plain_data(dft)
        if isinstance(dft, Duration | Path):
            return str(dft)
        if isinstance(dft, list | tuple):
            return [self.encode_default(part) for part in dft]
        return super().encode_default(dft)

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Leave out a default that no file can hold."""
        described = super().default_schema(schema)
        if described.get("default", False) is None:
            switch = any(branch.get("enum") == SWITCHED_OFF for branch in described.get("anyOf", []))
            described.pop("default")
            return described | ({"default": False} if switch else {})
        return described


def _spellings(name: str, field: FieldInfo) -> list[str]:
    """The keys that a field is read from."""
    match field.validation_alias:
        case AliasChoices(choices=choices):
            return [str(key) for key in choices]
        case str() as alias:
            return [alias]
    return [name]
