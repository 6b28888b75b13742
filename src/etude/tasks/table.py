"""Every task by name: the only file that knows them all. A task is imported when it is asked for."""

import importlib
from functools import cache
from typing import TYPE_CHECKING, Any

from etude.tasks.flags import Flag

if TYPE_CHECKING:
    from etude.tasks.task_type import TaskType

TASK_TYPES = {
    "translation": "etude.tasks.translation.type:TRANSLATION",
    "language_model": "etude.tasks.language_model.type:LANGUAGE_MODEL",
    "hf": "etude.tasks.hf.type:HF",
    "classification": "etude.tasks.classification.type:CLASSIFICATION",
    "speech_recognition": "etude.tasks.speech_recognition.type:SPEECH_RECOGNITION",
}
"""By the name that `task.type` takes; what its flags are stands in the module `flags` beside it."""


@cache
def named(name: str) -> "TaskType[Any, Any]":
    """The task of the table that has this name."""
    module, _, attribute = TASK_TYPES[name].partition(":")
    found: TaskType[Any, Any] = getattr(importlib.import_module(module), attribute)
    return found


@cache
def built_in() -> "dict[str, TaskType[Any, Any]]":
    """All of the table; the first is what a config is read as that names none."""
    return {name: named(name) for name in TASK_TYPES}


@cache
def predict_flags() -> tuple[Flag, ...]:
    """The flags of `etude predict` that any of these tasks understands, each once; nothing else of it is imported."""
    found: dict[str, Flag] = {}
    for target in TASK_TYPES.values():
        folder = target.partition(":")[0].rpartition(".")[0]
        for flag in importlib.import_module(f"{folder}.flags").FLAGS:
            found.setdefault(flag.name, flag)
    return tuple(found.values())
