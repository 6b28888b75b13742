"""A task's arguments written beside its weights, so that it can be made again in another process."""

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etude.base.errors import ConfigError, StorageError
from etude.base.files import write_json

TASK_FILE = "task.json"
_PLAIN = (str, int, float, bool, type(None))


def record_arguments(cls: type[Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `cls(*args, **kwargs)` by name, defaults included; those of a `**rest` stand beside them."""
    signature = inspect.signature(cls.__init__)
    try:
        bound = signature.bind(None, *args, **kwargs)
    except TypeError:
        return {}  # the constructor itself will say what is wrong
    bound.apply_defaults()
    arguments = dict(list(bound.arguments.items())[1:])
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            arguments.update(arguments.pop(name))
    return arguments


def is_plain(value: Any) -> bool:
    """Whether JSON gives `value` back as it was."""
    if isinstance(value, list):
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(part) for key, part in value.items())
    return isinstance(value, _PLAIN)


def describe_task(task: Any) -> dict[str, Any]:
    """What `task.json` holds: the class (as information only) and its arguments that are plain data."""
    arguments = getattr(task, "hparams", {})
    return {
        "class": f"{type(task).__module__}:{type(task).__qualname__}",
        "arguments": {name: value for name, value in arguments.items() if is_plain(value)},
        "passed_again": sorted(name for name, value in arguments.items() if not is_plain(value)),
    }


def save_task(task: Any, folder: Path) -> None:
    """Write `task.json`."""
    write_json(folder / TASK_FILE, describe_task(task))


def load_task(cls: type, folder: Path, arguments: Mapping[str, Any]) -> Any:
    """The task of class `cls` in `folder`, with its weights; `arguments` win over the recorded ones."""
    from etude.train.checkpoint import read_weights

    path = folder / TASK_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StorageError(f"{folder} holds no task: it has no {TASK_FILE}.") from None
    except ValueError as error:
        raise StorageError(f"{path} is damaged: {error}.") from error
    missing = [name for name in record["passed_again"] if name not in arguments]
    if missing:
        raise ConfigError(
            f"{cls.__name__}.load needs {', '.join(missing)} passed again: "
            f"what was given before is not plain data and was not stored."
        )
    task = cls(**{**record["arguments"], **arguments})
    task.load_state_dict(read_weights(folder))
    return task
