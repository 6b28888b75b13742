"""What a run's folder says of its task before anything is loaded: which one it is, and what code of its own it runs."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from etude.app.runs.folder import CONFIG
from etude.app.runs.pipelines import run_in
from etude.base.config.command import Overrides, parse
from etude.base.config.components import is_import_path
from etude.base.config.composing import compose
from etude.base.config.imports import code_of, refused
from etude.base.errors import StorageError
from etude.tasks.config import Config
from etude.tasks.own import type_of
from etude.tasks.task_type import TaskType
from etude.train.lock import refuse_links_out

RUNNING = ("task", "model", "loss")
"""Sections whose `type` may be code that a run needs to be used."""


def stored_config(folder: Path, overrides: Overrides = ()) -> Mapping[str, Any]:
    """The config of a run, composed as plain values; nothing of it is imported or checked.

    Raises StorageError where there is none.
    """
    if not (folder / CONFIG).exists():
        raise StorageError(f"{folder} is not a run folder: it has no {CONFIG}.")
    refuse_links_out(folder)
    return compose(Config, folder / CONFIG, parse(overrides)).data


def stored_type(folder: Path, overrides: Overrides = (), *, allow_code: bool) -> tuple[str, TaskType[Any, Any]] | None:
    """What a run calls its task, and its type; None of a run that a Python trainer made, or that names none there is.

    Raises RefusedError for code of its own.
    """
    folder = run_in(folder)
    config = stored_config(folder, overrides)
    if not allow_code:
        refuse_code(folder, config)
    with code_of(folder, allowed=allow_code):
        found = type_of(config)
    return None if found is None else (str(_type(config["task"])), found)


def refuse_code(folder: Path, config: Mapping[str, object]) -> None:
    """Raise RefusedError, before anything is imported, where a run's config names code of its own."""
    foreign = next(_foreign_code(config), None)
    if foreign is not None:
        raise refused(folder, foreign)


def _foreign_code(config: Mapping[str, object]) -> Iterator[str]:
    """The import paths that a run is used by: its task, its model and how that begins, and its loss."""
    given = [_type(config.get(name)) for name in RUNNING]
    weights = _table(_table(config.get("init")).get("weights"))
    yield from (str(path) for path in (*given, *weights.values()) if is_import_path(path))


def _type(section: object) -> object:
    return section.get("type") if isinstance(section, Mapping) else section


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
