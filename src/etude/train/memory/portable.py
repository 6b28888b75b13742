"""A task's arguments written beside its weights, so that it can be made again in another process."""

import copy
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from etude.base.errors import ConfigError, StorageError
from etude.base.files import write_json

TASK_FILE = "task.json"
_PLAIN = {str, int, float, bool, type(None)}
_TUPLE = "a tuple of"


class Arguments(dict[str, Any]):
    """Arguments by name, also as attributes: `hparams["width"]` is `hparams.width`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"There is no argument {name!r}; there are {', '.join(self) or 'none'}.") from None


def record_arguments(cls: type[object], args: tuple[object, ...], kwargs: Mapping[str, object]) -> Arguments:
    """The arguments of `cls(*args, **kwargs)` by name, defaults included; those of a `**rest` stand beside them.

    Plain data is copied, so that a constructor that changes what it was given does not change the record.
    """
    signature = inspect.signature(cls.__init__)
    try:
        bound = signature.bind(None, *args, **kwargs)
    except TypeError:
        return Arguments()  # the constructor itself will say what is wrong
    bound.apply_defaults()
    arguments = Arguments(list(bound.arguments.items())[1:])
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            arguments.update(arguments.pop(name))
    for name, value in arguments.items():
        arguments[name] = copy.deepcopy(value) if is_plain(value) else value
    return arguments


def is_plain(value: object) -> bool:
    """Whether `value` is numbers, text, None, and lists, tuples and mappings of them: what JSON can be made to keep."""
    match value:  # of the very class: what a user derives from one of these is not plain
        case list() | tuple() if type(value) in {list, tuple}:
            return all(map(is_plain, value))
        case dict() if type(value) is dict:
            return _TUPLE not in value and all(type(key) is str and is_plain(part) for key, part in value.items())
    return type(value) in _PLAIN


def _packed(value: object) -> object:
    """Plain data as JSON, which has no tuples."""
    match value:
        case tuple():
            return {_TUPLE: [_packed(part) for part in value]}
        case list():
            return [_packed(part) for part in value]
        case dict():
            return {key: _packed(part) for key, part in value.items()}
    return value


def _unpacked(value: object) -> object:
    match value:
        case list():
            return [_unpacked(part) for part in value]
        case dict() if list(value) == [_TUPLE]:
            return tuple(map(_unpacked, value[_TUPLE]))
        case dict():
            return {key: _unpacked(part) for key, part in value.items()}
    return value


class Recorded(Protocol):
    """What keeps the arguments it was made with."""

    hparams: dict[str, Any]


def describe_task(task: Recorded) -> dict[str, Any]:
    """What `task.json` holds: the class (as information only) and its arguments that are plain data."""
    arguments = task.hparams
    parameters = inspect.signature(type(task).__init__).parameters
    defaults = {name: one.default for name, one in parameters.items()}
    return {
        "class": f"{type(task).__module__}:{type(task).__qualname__}",
        "arguments": {name: _packed(value) for name, value in arguments.items() if is_plain(value)},
        "passed_again": sorted(
            name for name, value in arguments.items() if not is_plain(value) and value is not defaults.get(name)
        ),
    }


def save_task(task: Recorded, folder: Path) -> None:
    """Write `task.json`."""
    write_json(folder / TASK_FILE, describe_task(task))


def load_task(cls: type, folder: Path, arguments: Mapping[str, object]) -> Any:
    """The task of class `cls` in `folder`, with its weights; `arguments` win over the recorded ones."""
    from etude.train.memory.checkpoint import read_weights

    folder = _best_of(folder)
    path = folder / TASK_FILE
    record = _record(path)
    missing = [name for name in record["passed_again"] if name not in arguments]
    if missing:
        raise ConfigError(
            f"{cls.__name__}.load needs {', '.join(missing)} passed again: "
            f"what was given before is not plain data and was not stored."
        )
    if not hasattr(cls, "training_step"):
        raise ConfigError(
            f"{cls.__name__}.load cannot know how to make the task in {folder}: call load of its own class, which was "
            f"{record['class']}."
        )
    known = {name: _unpacked(value) for name, value in record["arguments"].items()}
    positional, named = _split(cls, {**known, **arguments})
    if misfit := _misfit(cls, positional, named):
        raise ConfigError(
            f"{cls.__name__} cannot be made from the arguments in {path} and those given ({misfit}): call load of its "
            f"own class, which was {record['class']}, with the arguments that it takes."
        )
    task = cls(*positional, **named)
    task.load_state_dict(read_weights(folder, averaged=True))
    return task


def _record(path: Path) -> dict[str, Any]:
    """What `save_task` wrote."""
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StorageError(f"{path.parent} holds no task: it has no {TASK_FILE}.") from None
    except ValueError as error:
        raise StorageError(f"{path} is damaged: {error}.") from error
    return record


def _best_of(folder: Path) -> Path:
    """The best checkpoint where `folder` is a run's, else the folder itself."""
    for place in (folder / "checkpoints" / "best", folder / "best"):
        if not (folder / TASK_FILE).exists() and (place / TASK_FILE).is_file():
            return place
    return folder


def _misfit(cls: type[object], positional: list[object], named: Mapping[str, object]) -> str:
    """What is wrong with arguments for a constructor; nothing where they fit."""
    if cls.__init__ is nn.Module.__init__ and (positional or named):
        return f"it takes none, but got {', '.join(named) or len(positional)}"
    try:
        inspect.signature(cls).bind(*positional, **named)
    except TypeError as error:
        return str(error)
    return ""


def _split(cls: type[object], arguments: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Arguments by name as the constructor takes them: what stands before a `*rest` goes by position."""
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    rest = next((one.name for one in parameters if one.kind is inspect.Parameter.VAR_POSITIONAL), None)
    kinds: set[Any] = {inspect.Parameter.POSITIONAL_ONLY}
    if rest is not None and arguments.get(rest):
        kinds.add(inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [arguments.pop(one.name) for one in parameters if one.kind in kinds and one.name in arguments]
    return [*positional, *(arguments.pop(rest, ()) if rest is not None else ())], arguments
