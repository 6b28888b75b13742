"""Parts of a run chosen by `type = "..."`: Etude's own by name, the user's by import path."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from pydantic import ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, SerializationInfo
from pydantic_core import CoreSchema, PydanticCustomError, PydanticSerializationUnexpectedValue, core_schema

from etude.base.config.fields import anchored, plain
from etude.base.config.section import Section
from etude.base.near import nearest


class Imported(Section):
    """A custom component: its import path, and its own arguments (checked against its signature)."""

    model_config = ConfigDict(extra="allow")

    type: str
    """`package.module:Class`, or `/path/net.py:Class`."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The keys beside `type` that the config gives, by name."""
        return dict(self.model_extra or {})


def is_import_path(name: object) -> bool:
    """Whether a `type` names something to import (`package.module:Class`, `net.py:build`) rather than a known name."""
    return isinstance(name, str) and ":" in name


@dataclass(frozen=True, eq=False)
class Component:
    """The type of a field that holds a component; made by `component`."""

    table: Mapping[str, type[Section]]
    default: str | None = None
    imported: type[Imported] = Imported

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate a table by its `type`; dump with its `type` in front."""
        return core_schema.no_info_plain_validator_function(
            self._read,
            serialization=core_schema.plain_serializer_function_ser_schema(self._write, info_arg=True),
            metadata={"pydantic_js_functions": [self._describe]},
        )

    def section(self, value: object) -> type[Section] | None:
        """The section that a table would be validated as; None if its `type` is missing or unknown."""
        name = value.get("type", self.default) if isinstance(value, Mapping) else value
        if is_import_path(name):
            return self.imported
        return self.table.get(self._spelled(name)) if isinstance(name, str) else None

    def _spelled(self, name: str) -> str:
        """A name as the table has it, in whatever case it was written."""
        return name if name in self.table else name.lower()

    def _read(self, value: object) -> Section:
        if self._is_read(value):
            return value
        table = {"type": value} if isinstance(value, str) else value
        if not isinstance(table, Mapping):
            raise PydanticCustomError("component", "must be a table with a type")
        name, section = table.get("type", self.default), self.section(table)
        if section is None:
            raise self._unknown(name)
        of_user = section is self.imported
        return section.model_validate(
            _imported_table(section, table, name) if of_user else _table(section, table, self._spelled(name))
        )

    def _is_read(self, value: object) -> TypeGuard[Section]:
        """Whether a value is one of the components, made already."""
        return isinstance(value, (*self.table.values(), self.imported))

    def _unknown(self, name: object) -> PydanticCustomError:
        """Say that a table names no component, or one that is not known."""
        if name is None:
            return PydanticCustomError("component_untyped", "{names}", {"names": quoted(self.table)})
        hint = nearest(str(name), self.table)
        return PydanticCustomError("component_type", "{hint}", {"names": list(self.table), "hint": hint})

    def _write(self, value: Section, info: SerializationInfo) -> dict[str, Any]:
        if not self._is_read(value):
            raise PydanticSerializationUnexpectedValue("another branch writes it")
        dumped = value.model_dump(mode=info.mode, by_alias=info.by_alias, exclude_unset=info.exclude_unset)
        if isinstance(value, self.imported):
            return {"type": value.type} | dumped
        names = {section: name for name, section in reversed(list(self.table.items()))}
        return {"type": dumped.get("type", names.get(type(value), self.default))} | dumped

    def _describe(self, _schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        branches = [_branch(name, section, handler) for name, section in self.table.items()]
        path = {"type": "string", "pattern": ":", "examples": ["package.module:Class", "net.py:build"]}
        own = _branch("imported", self.imported, handler)
        own["properties"] |= {"type": path}
        names = {"title": "type alone", "anyOf": [{"enum": list(self.table)}, path]}
        described: dict[str, Any] = {"oneOf": [*branches, own, names, *self._inherited(handler)]}
        return described | ({"default": {"type": self.default}} if self.default else {})

    def _inherited(self, handler: GetJsonSchemaHandler) -> list[dict[str, Any]]:
        """A table that leaves its type to the file that it changes, where there are types to leave."""
        untyped = [dict(handler(section.__pydantic_core_schema__)) for section in self.table.values()]
        title = "type left to the file that this one changes"
        left = {"type": "object", "title": title, "not": {"required": ["type"]}, "anyOf": untyped}
        return [left] if untyped else []


def _table(section: type[Section], table: Mapping[str, object], name: str) -> dict[str, object]:
    """What a section of Etude's is read from: the keys beside `type`, and that too where the section keeps it."""
    arguments = {key: part for key, part in table.items() if key != "type"}
    return arguments | {"type": name} if "type" in section.model_fields else arguments


def _imported_table(section: type[Section], table: Mapping[str, object], name: str) -> dict[str, object]:
    """What a part of the user's is read from: of the arguments that Etude does not know, plain values."""
    known = section.model_fields
    return {key: part if key in known else plain(part) for key, part in table.items()} | {"type": anchored(name)}


def _branch(name: str, section: type[Section], handler: GetJsonSchemaHandler) -> dict[str, Any]:
    """One known type in JSON Schema: its section, with `type` fixed."""
    branch = dict(handler.resolve_ref_schema(handler(section.__pydantic_core_schema__)))
    properties = dict(branch.get("properties", {}))
    properties.pop("type", None)
    required = [key for key in branch.get("required", []) if key != "type"]
    tagged = {"type": {"const": name}} | properties
    return branch | {"title": name, "properties": tagged, "required": [*required, "type"]}


def component(
    table: Mapping[str, type[Section]], default: str | None = None, imported: type[Imported] = Imported
) -> Any:
    """Declare a field that holds one of the components of `table`, or the user's own by import path.

    Use it as `Annotated[AdamW | Sgd | Imported, component({"adamw": AdamW, "sgd": Sgd}, "adamw")]`, or as the type
    itself. `default` is the type of a table that names none. `imported` may be a subclass of `Imported` whose fields
    are keys that Etude itself understands beside the user's own arguments.
    """
    return Component(table, default, imported)


def quoted(names: Iterable[object]) -> str:
    """List names as they are written in a config: `"a", "b"`."""
    return ", ".join(f'"{name}"' for name in names)
