"""Types of config fields that several sections share."""

import os
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BeforeValidator, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, PydanticSerializationUnexpectedValue, core_schema

from etude.base.config.nest import rebuilt
from etude.base.config.section import SWITCHED_OFF, is_off
from etude.base.durations import Duration
from etude.base.paths import user_path
from etude.base.signals import Notice

T = TypeVar("T")

FILE_MARK = ".py:"
FILE_AND_NAME = re.compile(r"[^:\0\n]+\.py:[^\W\d][\w.]*")
"""An import path into a file, such as `net.py:build`."""


class Located(str):
    """Text of a config that remembers the folder to which a path in it would be relative."""

    __slots__ = ("folder",)
    folder: Path

    def __new__(cls, text: str, folder: Path) -> Self:
        """Mark `text` as standing in a file of `folder`."""
        located = super().__new__(cls, text)
        located.folder = folder
        return located


def located(value: object, folder: Path) -> Any:
    """Give every string inside a nest of tables and lists its folder; make the file of `net.py:build` absolute.

    Text that has one already keeps it: what a sweep of a file gives stands in that file.
    """

    def locate(part: object) -> object:
        if not isinstance(part, str) or isinstance(part, Located):
            return part
        text = Located(part, folder)
        return Located(anchored(text), folder) if FILE_AND_NAME.fullmatch(text) else text

    return rebuilt(value, locate)


def plain(value: object) -> Any:
    """Take the folders off again: the same nest with ordinary strings."""
    return rebuilt(value, lambda part: str(part) if isinstance(part, Located) else part, str)


def absolute(text: str) -> Path:
    """Resolve a path against the folder it was written in, or against the current one.

    The result is absolute and free of `..`; links are left as they are, and `~` is the home folder.
    """
    folder = text.folder if isinstance(text, Located) else Path.cwd()
    return Path(os.path.abspath(folder / user_path(str(text))))  # noqa: PTH100 - resolve() follows links


def _text_of(*kinds: type) -> Callable[[object], str]:
    """Write values of these kinds as text; any other is for another branch of a union to write."""

    def write(value: object) -> str:
        if not isinstance(value, kinds):
            raise PydanticSerializationUnexpectedValue("another branch writes it")
        return str(value)

    return write


def anchored(spec: str) -> str:
    """Make the file of `net.py:build` absolute, against where it was written; leave `package.module:Class` alone."""
    if FILE_MARK not in spec:
        return str(spec)
    file, _, name = spec.rpartition(":")
    return f"{absolute(Located(file, spec.folder) if isinstance(spec, Located) else file)}:{name}"


@dataclass(frozen=True, eq=False)
class PathOr:
    """Marks a field as a path, or one of `names` (a collection, or a function that gives one), which are left alone.

    Use it as `Annotated[Path | str, PathOr(names)]`; a name stays a `str`, everything else becomes an absolute `Path`.
    """

    names: Collection[str] | Callable[[], Collection[str]] = ()

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate text or a `Path`; dump as text."""
        return core_schema.no_info_plain_validator_function(
            self._read,
            serialization=core_schema.plain_serializer_function_ser_schema(_text_of(str, Path)),
            metadata={"pydantic_js_functions": [self._describe]},
        )

    def known(self) -> list[str]:
        """Name what is left alone."""
        return sorted(self.names() if callable(self.names) else self.names)

    def _read(self, value: object) -> Path | str:
        if isinstance(value, Path):
            return absolute(str(value))
        if not isinstance(value, str) or not value or "\0" in value:
            raise PydanticCustomError("path", "must be a path")
        return str(value) if value in self.known() else absolute(value)

    def _describe(self, _schema: CoreSchema, _handler: object) -> dict[str, Any]:
        names = self.known()
        described: dict[str, Any] = {"type": "string", "minLength": 1, "format": "path"}
        return described | ({"examples": names} if names else {})


PathField = Annotated[Path, PathOr()]
"""A path: relative to the file it stands in, or on the command line to the current folder; absolute once composed."""


class _Switch:
    """Reads `false`, `"none"` and `"off"` as None and writes None as `false`."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        inner = handler(source)
        return core_schema.no_info_before_validator_function(
            lambda value: None if is_off(value) else value,
            inner,
            serialization=core_schema.wrap_serializer_function_ser_schema(
                lambda value, write: False if value is None else write(value), schema=inner
            ),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        described = handler(schema)
        branches = [b for b in described.pop("anyOf", [described.copy()]) if b.get("type") != "null"]
        return {"anyOf": [*branches, {"enum": [*SWITCHED_OFF]}]}


Switch = Annotated[T | None, _Switch()]
"""An optional setting: None, `false`, `"none"` and `"off"` all mean that it is off."""


DURATION_PATTERN = r"^\s*[+-]?(\d[\d_]*\.?\d*|\.\d+)([eE][+-]?\d+)?\s*([A-Za-z]+|%)\s*$"


@dataclass(frozen=True)
class _DurationField:
    """Reads a Duration from its text and writes it as text."""

    zero: bool = False

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._read,
            serialization=core_schema.plain_serializer_function_ser_schema(_text_of(Duration)),
            metadata={"pydantic_js_functions": [self._describe]},
        )

    def _read(self, value: object) -> Duration:
        try:
            return Duration.parse(value, zero=self.zero)
        except ValueError as error:
            raise PydanticCustomError("duration", "{message}", {"message": str(error)}) from None

    def _describe(self, _schema: CoreSchema, _handler: object) -> dict[str, Any]:
        examples = ["16 epochs", "8000 steps", "500 batches", "2e9 tokens", "1e6 samples", "90 minutes", "5 %"]
        return {"type": "string", "pattern": DURATION_PATTERN, "examples": examples}


DurationField = Annotated[Duration, _DurationField()]
"""A moment or a length with its unit: `"16 epochs"`, `"2e9 tokens"`, `"90 minutes"`, `"5 %"`."""


MomentField = Annotated[Duration, _DurationField(zero=True)]
"""A moment of a run, or a length that may be nothing: a Duration of which 0 is one."""


def _signals(given: object) -> Any:
    """Read one signal as a list, none as an empty one, and `usr1` as `SIGUSR1`."""
    if is_off(given):
        return []
    return [_signal(name) for name in given] if isinstance(given, list | tuple) else [_signal(given)]


def _signal(name: object) -> object:
    return "SIG" + name.upper().removeprefix("SIG") if isinstance(name, str) else name


RequeueSignals = Annotated[tuple[Notice, ...], BeforeValidator(_signals, list[Notice] | Literal[False])]
"""Signals that ask a run to save and to be queued again, by name: `["SIGUSR1"]`, `"usr1"`, `false`."""
