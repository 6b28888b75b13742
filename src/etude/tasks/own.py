"""A task of the user's own, by import path: a whole `TaskType`, or a `Task` over data of a kind that there is.

A class of a task may say more of itself: `task_type` (a name of the table or a `TaskType`: whose data and processor it
uses), and the methods `predictor()` and `export(folder)`.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from etude.base.config.components import is_import_path
from etude.base.config.imports import resolve_import
from etude.base.errors import ConfigError
from etude.base.says import Say
from etude.tasks.flags import BEST_LINES
from etude.tasks.table import TASK_TYPES, built_in, named
from etude.tasks.task_type import Data, Kept, Predictor, Processor, TaskType

if TYPE_CHECKING:
    from etude.tasks.config import Config
    from etude.train.task import Task


def task_type(config: "Config") -> TaskType[Any, Any]:
    """The task of a config. Raises ConfigError where one of the user's own cannot be imported."""
    name = config.task.type
    return named(name) if name in TASK_TYPES else imported_type(name, named(config.kind or next(iter(TASK_TYPES))))


def type_of(config: Mapping[str, object]) -> TaskType[Any, Any] | None:
    """The task that a composed config, as plain values, names; None where it names none that there is.

    One of the user's own is imported; where that fails it is taken by its data, and told when the run is built.
    """
    match config:
        case {"task": {"type": str() as name}} | {"task": str() as name}:
            return _named_or_imported(name, config)
    return None


def _named_or_imported(name: str, config: Mapping[str, object]) -> TaskType[Any, Any] | None:
    if not is_import_path(name):
        return named(name) if name in TASK_TYPES else None
    types = built_in().values()
    base = next((one for one in types if one.recognises(config)), next(iter(types)))
    try:
        return imported_type(name, base)
    except ConfigError:
        return OwnTask(base, None)


def imported_type(path: str, base: TaskType[Any, Any]) -> TaskType[Any, Any]:
    """The task at an import path; one that says nothing of its data has those of `base`."""
    found = resolve_import(path, "task.type")
    if inspect.isclass(found) and TaskType in found.__mro__:
        found = found()
    return found if isinstance(found, TaskType) else OwnTask(_declared(path, found, base), found)


def _declared(path: str, task: object, base: TaskType[Any, Any]) -> TaskType[Any, Any]:
    """The kind of data that a task of the user's own says it is made for; `base` where it says none."""
    declared = getattr(task, "task_type", base)
    if isinstance(declared, TaskType):
        return declared
    if declared in TASK_TYPES:
        return named(declared)
    raise ConfigError(
        f"task.type {path} has the task_type {declared!r}, which must be one of {', '.join(TASK_TYPES)}, or a TaskType."
    )


@final
class OwnTask(TaskType["Config", Processor]):
    """A task of the user's own over the data of `base`."""

    flags = BEST_LINES

    def __init__(self, base: TaskType[Any, Any], made_by: object) -> None:
        self.config = base.config
        self._base = base
        self._made_by = made_by

    def config_of(self, config: Mapping[str, object]) -> "type[Config]":
        """What configs over such data are read as."""
        return self._base.config_of(config)

    def processor(self, config: "Config", folder: Path) -> Processor:
        """What a run has kept."""
        found: Processor = self._base.processor(config, folder)
        return found

    def open(
        self, config: "Config", splits: Sequence[str], say: Say, processor: Processor | None = None
    ) -> Data[Processor]:
        """Open and prepare splits."""
        return self._base.open(config, splits, say, processor)

    def files(self, config: "Config", split: str) -> Iterable[Path]:
        """Those that the kind of data knows."""
        return self._base.files(config, split)

    def task(self, config: "Config", processor: Processor) -> "Task":
        """The user's task, with the model and the loss of the config."""
        return self._base.task(config, processor)

    def predictor(self, task: "Task") -> Predictor:
        """The task's own or, of one that has `predict`, one that answers lines with the best that it finds."""
        from etude.tasks.best_lines import BestLines

        own: Callable[[], Predictor] | None = getattr(task, "predictor", None)
        return BestLines(task) if own is None else own()

    def export(self, task: "Task", kept: Kept, folder: Path) -> str:
        """As the task itself exports. Raises ConfigError for one that says nothing of it."""
        own: Callable[[Path], str] | None = getattr(task, "export", None)
        if own is None:
            return self._base.export(task, kept, folder)
        return own(folder)
