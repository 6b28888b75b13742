"""Parts of a run chosen by `type = "..."`: Etude's own by name, the user's by import path."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, PydanticSerializationUnexpectedValue, core_schema

from etude.base.config.fields import anchored, plain
from etude.base.config.section import Section


class Imported(Section):
    """A component of the user's: where it is imported from, and its own arguments (checked against its signature)."""

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

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate a table by its `type`; dump with its `type` in front."""
        return core_schema.no_info_plain_validator_function(
            self._read,
            serialization=core_schema.plain_serializer_function_ser_schema(self._write, info_arg=True),
            metadata={"pydantic_js_functions": [self._describe]},
        )

    def section(self, value: Any) -> type[Section] | None:
        """The section that a table would be validated as; None if its `type` is missing or unknown."""
        name = value.get("type", self.default) if isinstance(value, Mapping) else value
        if is_import_path(name):
            return self.imported
        return self.table.get(name) if isinstance(name, str) else None

    def _read(self, value: Any) -> Section:
        if isinstance(value, Section) and isinstance(value, (*self.table.values(), self.imported)):
            return value
        if isinstance(value, str):
            value = {"type": value}
        if not isinstance(value, Mapping):
            raise PydanticCustomError("component", "must be a table with a type")
        name = value.get("type", self.default)
        section = self.section(value)
        if name is None:
            raise PydanticCustomError("component_untyped", "{names}", {"names": quoted(self.table)})
        if section is None:
            raise PydanticCustomError(
                "component_type", "{hint}", {"names": list(self.table), "hint": nearest(str(name), self.table)}
            )
        if section is self.imported:
            arguments = {key: plain(part) for key, part in value.items() if key not in section.model_fields}
            known = {key: part for key, part in value.items() if key in section.model_fields}
            return section.model_validate(known | arguments | {"type": anchored(name)})
        arguments = {key: part for key, part in value.items() if key != "type"}
        return section.model_validate(arguments | ({"type": name} if "type" in section.model_fields else {}))

    def _write(self, value: Section, info: Any) -> dict[str, Any]:
        if not isinstance(value, (*self.table.values(), self.imported)):
            raise PydanticSerializationUnexpectedValue("another branch writes it")
        options = {"mode": info.mode, "by_alias": info.by_alias, "exclude_unset": info.exclude_unset}
        dumped = value.model_dump(**options)
        if isinstance(value, self.imported):
            return {"type": value.type} | dumped
        name = next((name for name, section in self.table.items() if type(value) is section), self.default)
        return {"type": dumped.get("type", name)} | dumped

    def _describe(self, _schema: CoreSchema, handler: Callable[[CoreSchema], dict[str, Any]]) -> dict[str, Any]:
        branches = [self._branch(name, section, handler) for name, section in self.table.items()]
        path = {"type": "string", "pattern": ":", "examples": ["package.module:Class", "net.py:build"]}
        own = self._branch("imported", self.imported, handler)
        own = own | {"properties": own["properties"] | {"type": path}, "required": [*own["required"], "type"]}
        names = {"anyOf": [{"enum": list(self.table)}, path]}
        untyped = [dict(handler(section.__pydantic_core_schema__)) for section in self.table.values()]
        left = {"title": "type left to the file that this one changes", "not": {"required": ["type"]}, "anyOf": untyped}
        inherited = [{"type": "object"} | left] if untyped else []
        described: dict[str, Any] = {"oneOf": [*branches, own, {"title": "type alone"} | names, *inherited]}
        return described | ({"default": {"type": self.default}} if self.default else {})

    def _branch(
        self, name: str, section: type[Section], handler: Callable[[CoreSchema], dict[str, Any]]
    ) -> dict[str, Any]:
        """One known type: its section with `type` fixed."""
        branch = dict(handler(section.__pydantic_core_schema__))
        resolve = getattr(handler, "resolve_ref_schema", None)
        if resolve is not None:
            branch = dict(resolve(branch))
        properties = {"type": {"const": name}} | {k: v for k, v in branch.get("properties", {}).items() if k != "type"}
        required = [key for key in branch.get("required", []) if key != "type"]
        required += [] if section is self.imported else ["type"]
        return branch | {"title": name, "properties": properties, "required": required}


def component(
    table: Mapping[str, type[Section]], default: str | None = None, imported: type[Imported] = Imported
) -> Any:
    """Declare a field that holds one of the components of `table`, or the user's own by import path.

    Use it as `Annotated[AdamW | Sgd | Imported, component({"adamw": AdamW, "sgd": Sgd}, "adamw")]`, or as the type
    itself. `default` is the type of a table that names none. `imported` may be a subclass of `Imported` whose fields
    are keys that Etude itself understands beside the user's own arguments.
    """
    return Component(table, default, imported)


def nearest(name: str, names: Any) -> str:
    """Find the name closest to a misspelt one; empty if none is close."""
    return next(iter(difflib.get_close_matches(str(name), [str(n) for n in names], n=1, cutoff=0.6)), "")


def quoted(names: Any) -> str:
    """List names as they are written in a config: `"a", "b"`."""
    return ", ".join(f'"{name}"' for name in names)
