"""Folders that hold the stages of a pipeline, each a run or what else it has left."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

from etude.base.config.nest import rebuilt
from etude.base.errors import RefusedError, StorageError
from etude.base.files import json_or_empty
from etude.base.says import Say, unheard
from etude.callbacks.rows import SWEEP

PIPELINE = "pipeline.json"
"""The file of a folder that says that it is a pipeline's: the stages in their order, and what each does."""
SHARED = ".stages"
"""The folder of a sweep that holds the stages of all its trials."""
DONE, BEGUN = "done.json", "stage.json"
"""The files of a stage's folder that say how it ended, and with what it was begun."""
TRAIN = "train"


def stages_in(folder: Path) -> dict[str, str]:
    """What the stages of the pipeline in a folder do, by name and in order; none of another folder."""
    stages = json_or_empty(folder / PIPELINE).get("stages")
    return {str(name): str(do) for name, do in stages.items()} if isinstance(stages, Mapping) else {}


def shared_by(pipeline: Path) -> Path | None:
    """The folder of the stages that a pipeline shares with the other trials of its sweep; None where it is no trial."""
    return pipeline.parent / SHARED if (pipeline.parent / SWEEP).is_file() else None


def refuse_sweep(folder: Path) -> None:
    """Raise RefusedError for the folder of a sweep: with a run in it, it could not go on."""
    if (folder / SWEEP).is_file():
        raise RefusedError(f"{folder} is the folder of a sweep: give --run.name for the run.")


def as_stage(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config of a stage with its pipeline's folder left out of paths; that of any other run as it is.

    >>> as_stage({"run": {"dir": "/runs/a", "stage": "b"}, "init": {"from": "/runs/a/c/best"}})["init"]
    {'from': 'c/best'}
    """
    match config:
        case {"run": {"dir": str() as folder, "stage": str()}}:
            return cast("Mapping[str, Any]", rebuilt(config, partial(_from, f"{folder}/")))
    return config


def _from(folder: str, value: object) -> object:
    return value.removeprefix(folder) if isinstance(value, str) else value


def _has_saved(run: Path) -> bool:
    # As `folder.has_checkpoint`, which cannot be had without torch.
    return any((run / "checkpoints").glob("step-*"))


def trained_in(folder: Path) -> list[Path]:
    """The stages of the pipeline in a folder that have trained, in order; none of another folder."""
    return [folder / name for name, do in stages_in(folder).items() if do == TRAIN and _has_saved(folder / name)]


def run_in(folder: Path, say: Say = unheard) -> Path:
    """The run that a folder stands for: it itself or, of a pipeline, the last stage that has trained, which is said.

    Raises StorageError for a pipeline of which no stage has trained.
    """
    stages = stages_in(folder)
    if not stages:
        return folder
    trained = [path.name for path in trained_in(folder)]
    if not trained:
        raise StorageError(f"{folder} is a pipeline of which no stage has trained yet; it has {', '.join(stages)}.")
    others = f" ({folder} has {', '.join(stages)})" if len(trained) > 1 else ""
    say(f"The stage {trained[-1]} is used{others}.")
    return folder / trained[-1]
