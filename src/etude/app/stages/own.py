"""A stage of the user's own: a function of what earlier stages have left, or an object with a stage's methods."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TypeGuard

from etude.app.stages.names import Reference
from etude.app.stages.node import Made
from etude.app.stages.stage import Artifact, Artifacts, Stage, hashed
from etude.app.stages.told import Told
from etude.base.config.fields import plain
from etude.base.config.imports import resolve_import
from etude.base.errors import ConfigError
from etude.base.files import read_json, write_json
from etude.base.says import Say

INPUTS = "inputs"
VALUE = "artifact.json"
"""Where that is written which a function gives as a table."""
OFFERED = ("artifacts", "folder", "say")


@dataclass(frozen=True)
class Own:
    """Calls a function with the artifacts of the stages that it names, and what it asks for by name."""

    name: str
    function: Callable[..., object]
    takes: Sequence[str]
    keys: Mapping[str, object] = field(default_factory=dict)
    """The other keys of the stage, which are its arguments."""
    given: Mapping[str, object] = field(default_factory=dict)
    """The same with paths in the place of the names of stages."""

    def inputs(self) -> Sequence[str]:
        """The stages that it names."""
        return self.takes

    def identity(self, inputs: Artifacts) -> str:
        """A hash of its arguments, and of what it takes."""
        return hashed("own", {**self.keys, "source": source_of(self.function)}, inputs)

    def run(self, folder: Path, inputs: Artifacts, say: Say) -> Artifact:
        """Call it. Raises ConfigError where it gives what can be no artifact."""
        offered = {"folder": folder, "say": say}
        wanted = {name: value for name, value in offered.items() if takes(self.function, name)}
        left = self.function(inputs, **wanted, **self.given)
        match left:
            case None:
                return Artifact(self.name, folder, self.identity(inputs))
            case str() | Path():
                return Artifact(self.name, Path(left), self.identity(inputs))
            case Mapping():
                return self._table(folder, left, inputs)
            case Artifact():
                return left
        raise ConfigError(
            f'stage "{self.name}": its function must give a path, a table or nothing, but gave a {type(left).__name__}.'
        )

    def _table(self, folder: Path, table: Mapping[str, Any], inputs: Artifacts) -> Artifact:
        """A table as an artifact: a file, whose numbers are what the stage has measured."""
        write_json(folder / VALUE, dict(table))
        return Artifact(self.name, folder / VALUE, self.identity(inputs), metrics=_numbers(table))


def source_of(function: Callable[..., object]) -> str:
    """The source of a function, by which a change of it is noticed; its name where that is not known."""
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return str(getattr(function, "__qualname__", type(function).__qualname__))


def takes(function: Callable[..., object], name: str) -> bool:
    """Whether a function has a parameter of this name."""
    return name in inspect.signature(function).parameters


def _numbers(table: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in table.items() if isinstance(value, int | float)}


def value_of(path: Path) -> object:
    """What a function gave as a table; None of any other artifact."""
    return read_json(path) if path.name == VALUE and path.is_file() else None


def own(told: Told) -> Made:
    """A stage by import path or, from Python, of a function."""
    keys, named = _keys(told)
    inputs = {f"{INPUTS}[{place}]": _input(told, str(name)) for place, name in enumerate(named)}
    meant = _meant(told, keys)
    told_keys = keys | {key: str(one) for key, one in meant.items()}
    function, code = _function(told)
    references = inputs | meant
    written = {"do": told.entry.do, **told_keys, **_written_inputs(named, inputs)}
    if _is_stage(function):
        return Made(function, references, written=written, code=code)
    given = keys | {key: told.names.path(one) for key, one in meant.items()}
    takes = tuple(dict.fromkeys(one.stage for one in references.values()))
    return Made(Own(told.name, function, takes, told_keys, given), references, written=written, code=code)


def _keys(told: Told) -> tuple[dict[str, Any], Sequence[object]]:
    """All keys of the stage but its inputs, and these."""
    layer = told.own(list(chain.from_iterable(one.data for one in told.entry.layers)))
    keys: dict[str, Any] = plain(layer.data)
    named = keys.pop(INPUTS, [])
    return keys, named


def _meant(told: Told, keys: Mapping[str, object]) -> dict[str, Reference]:
    """The stages that keys name, by the key."""
    meant = {}
    for key, value in keys.items():
        match value:
            case str() if found := told.names.find(told.entry, value):
                told.names.refuse_itself(told.entry, key, found, told.where(key))
                meant[key] = found
    return meant


def _written_inputs(named: Sequence[object], inputs: Mapping[str, Reference]) -> dict[str, list[str]]:
    """The inputs as a composed config holds them, where there are any."""
    return {INPUTS: list(map(str, inputs.values()))} if named else {}


def _is_stage(function: object) -> TypeGuard[Stage[Artifact]]:
    """Whether it is an object with a stage's methods, rather than a function."""
    return not inspect.isclass(function) and callable(getattr(function, "run", None))


def _input(told: Told, name: str) -> Reference:
    found = told.names.find(told.entry, name)
    if found is None:
        raise ConfigError(told.names.unknown(told.entry, INPUTS, name, "the name of one", told.where(INPUTS)))
    told.names.refuse_itself(told.entry, INPUTS, found, told.where(INPUTS))
    return found


def _function(told: Told) -> tuple[Any, Sequence[Path]]:
    """What the stage does, and the files of its code."""
    if told.entry.made is not None:
        return told.entry.made, ()
    with told.saying():
        found = resolve_import(told.entry.do, "do")
    if not callable(found) and not callable(getattr(found, "run", None)):
        raise ConfigError(told.entry.said(f"do must be a function, but {told.entry.do} is a {type(found).__name__}."))
    file = told.entry.do.rpartition(":")[0]
    return found, [Path(file)] if file.endswith(".py") else []
