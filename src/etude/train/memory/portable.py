"""A task's arguments written beside its weights, so that it can be made again in another process."""

import copy
import inspect
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from itertools import chain, filterfalse
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import nn

from etude.base.errors import ConfigError, StorageError
from etude.base.files import json_or_empty, read_json, write_json

TASK_FILE = "task.json"
_PLAIN = {str, int, float, bool, type(None)}
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_TUPLE = "a tuple of"


_Key = TypeVar("_Key")


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
    arguments = dict(list(bound.arguments.items())[1:])
    for name in _of_kind(signature.parameters.values(), inspect.Parameter.VAR_KEYWORD):
        arguments.update(arguments.pop(name))
    return Arguments({name: _kept(value) for name, value in arguments.items()})


def _of_kind(parameters: Iterable[inspect.Parameter], *kinds: object) -> list[str]:
    """The names of the parameters of these kinds."""
    return [one.name for one in parameters if one.kind in kinds]


def _kept(value: object) -> object:
    """An argument as it is recorded."""
    return copy.deepcopy(value) if is_plain(value) else value


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
            return {_TUPLE: list(map(_packed, value))}
        case list():
            return list(map(_packed, value))
        case dict():
            return _with_each(value, _packed)
    return value


def _with_each(mapping: Mapping[_Key, object], of: Callable[[object], object]) -> dict[_Key, object]:
    """The same keys, with something else in the place of each value."""
    return {key: of(part) for key, part in mapping.items()}


def _unpacked(value: object) -> object:
    match value:
        case list():
            return list(map(_unpacked, value))
        case dict() if list(value) == [_TUPLE]:
            return tuple(map(_unpacked, value[_TUPLE]))
        case dict():
            return _with_each(value, _unpacked)
    return value


class Recorded(Protocol):
    """What keeps the arguments it was made with."""

    hparams: dict[str, Any]


def describe_task(task: Recorded, structure: str = "") -> dict[str, Any]:
    """What `task.json` holds: the class (as information only) and its arguments that are plain data.

    Of a task that was not of this structure from its run's beginning, also what the structure is called.
    """
    plain = {name: _packed(value) for name, value in task.hparams.items() if is_plain(value)}
    return {
        "class": f"{type(task).__module__}:{type(task).__qualname__}",
        "arguments": plain,
        "passed_again": sorted(_passed_again(task, but=plain)),
        **({"structure": structure} if structure else {}),
    }


def structure_of(folder: Path) -> str:
    """What the structure of the task is called whose weights lie in `folder`; empty for that of a run's beginning."""
    path = folder / TASK_FILE
    return str(json_or_empty(path).get("structure", "")) if path.is_file() else ""


def _passed_again(task: Recorded, but: Container[str]) -> Iterator[str]:
    """The arguments besides plain data that are not the constructor's defaults."""
    parameters = inspect.signature(type(task).__init__).parameters
    for name in filterfalse(but.__contains__, task.hparams):
        if not _is_default(parameters.get(name), task.hparams[name]):
            yield name


def _is_default(parameter: inspect.Parameter | None, value: object) -> bool:
    return parameter is not None and parameter.default is value


def save_task(task: Recorded, folder: Path) -> None:
    """Write `task.json`."""
    write_json(folder / TASK_FILE, describe_task(task))


def load_task(cls: type, folder: Path, arguments: Mapping[str, object]) -> Any:
    """The task of class `cls` in `folder`, with its weights; `arguments` win over the recorded ones."""
    from etude.train.memory.checkpoint import read_weights

    folder = _best_of(folder)
    path = folder / TASK_FILE
    record = _record(path)
    _require(cls, record["passed_again"], arguments)
    if not hasattr(cls, "training_step"):
        raise ConfigError(
            f"{cls.__name__}.load cannot know how to make the task in {folder}: call load of its own class, which was "
            f"{record['class']}."
        )
    known = _with_each(record["arguments"], _unpacked)
    positional, named = _split(cls, {**known, **arguments})
    if misfit := _misfit(cls, positional, named):
        raise ConfigError(
            f"{cls.__name__} cannot be made from the arguments in {path} and those given ({misfit}): call load of its "
            f"own class, which was {record['class']}, with the arguments that it takes."
        )
    task = cls(*positional, **named)
    task.load_state_dict(read_weights(folder, averaged=True))
    return task


def _require(cls: type[object], passed_again: Iterable[str], arguments: Mapping[str, object]) -> None:
    """Refuse to make a task without the arguments that were not stored."""
    missing = [name for name in passed_again if name not in arguments]
    if missing:
        raise ConfigError(
            f"{cls.__name__}.load needs {', '.join(missing)} passed again: "
            f"what was given before is not plain data and was not stored."
        )


def _record(path: Path) -> dict[str, Any]:
    """What `save_task` wrote."""
    if not path.exists():
        raise StorageError(f"{path.parent} holds no task: it has no {TASK_FILE}.")
    return read_json(path)


def _best_of(folder: Path) -> Path:
    """The best checkpoint where `folder` is a run's, or the last where there is no best, else the folder itself."""
    from etude.train.memory.checkpoint.store import BEST, LAST, Store

    if (folder / TASK_FILE).exists():
        return folder
    stores = map(Store, (folder / "checkpoints", folder))
    places = (store.link(name) for store in stores for name in (BEST, LAST))
    found = next(filter(_has_task, filter(None, places)), folder)
    if found != folder and not (found.parent / BEST).is_symlink():
        warnings.warn(f"{folder} has no best checkpoint: its last is loaded, {found.name}.", stacklevel=4)
    return found


def _has_task(folder: Path) -> bool:
    return (folder / TASK_FILE).is_file()


def _misfit(cls: type[object], positional: list[object], named: Mapping[str, object]) -> str:
    """What is wrong with arguments for a constructor; nothing where they fit."""
    given = ", ".join(named) or len(positional)
    if given and cls.__init__ is nn.Module.__init__:
        return f"it takes none, but got {given}"
    try:
        inspect.signature(cls).bind(*positional, **named)
    except TypeError as error:
        return str(error)
    return ""


def _split(cls: type[object], arguments: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Arguments by name as the constructor takes them: what stands before a `*rest` goes by position."""
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    rest = list(chain.from_iterable(_popped(arguments, _of_kind(parameters, inspect.Parameter.VAR_POSITIONAL))))
    names = _of_kind(parameters, *(_POSITIONAL if rest else _POSITIONAL[:1]))
    return [*_popped(arguments, names), *rest], arguments


def _popped(arguments: dict[str, Any], names: Iterable[str]) -> list[Any]:
    """The values of those of the names that there are, taken out of the arguments."""
    return list(map(arguments.pop, filter(arguments.__contains__, names)))
