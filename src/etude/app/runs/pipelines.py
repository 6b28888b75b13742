"""Folders that hold the stages of a pipeline, each a run or what else it has left."""

from collections.abc import Mapping
from pathlib import Path

from etude.base.errors import StorageError
from etude.base.files import json_or_empty
from etude.base.says import Say, unheard

PIPELINE = "pipeline.json"
"""The file of a folder that says that it is a pipeline's: the stages in their order, and what each does."""
DONE, BEGUN = "done.json", "stage.json"
"""The files of a stage's folder that say how it ended, and with what it was begun."""
TRAIN = "train"


def stages_in(folder: Path) -> dict[str, str]:
    """What the stages of the pipeline in a folder do, by name and in order; none of another folder."""
    stages = json_or_empty(folder / PIPELINE).get("stages")
    return {str(name): str(do) for name, do in stages.items()} if isinstance(stages, Mapping) else {}


def _has_saved(run: Path) -> bool:
    # As `folder.has_checkpoint`, which cannot be had without torch.
    return any((run / "checkpoints").glob("step-*"))


def run_in(folder: Path, say: Say = unheard) -> Path:
    """The run that a folder stands for: it itself or, of a pipeline, the last stage that has trained, which is said.

    Raises StorageError for a pipeline of which no stage has trained.
    """
    stages = stages_in(folder)
    if not stages:
        return folder
    trained = [name for name, do in stages.items() if do == TRAIN and _has_saved(folder / name)]
    if not trained:
        raise StorageError(f"{folder} is a pipeline of which no stage has trained yet; it has {', '.join(stages)}.")
    others = f" ({folder} has {', '.join(stages)})" if len(trained) > 1 else ""
    say(f"The stage {trained[-1]} is used{others}.")
    return folder / trained[-1]
