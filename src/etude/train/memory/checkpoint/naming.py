"""What the folder of a checkpoint is called."""

from pathlib import Path

FOLDER, PREFIX, DIGITS = "checkpoints", "step-", 8
PARTIAL = ".partial-"
"""Begins the name of a folder that is being written."""


def step_name(step: int) -> str:
    """The name of the folder of a step's checkpoint."""
    return f"{PREFIX}{step:0{DIGITS}d}"


def checkpoint_folder(run: Path, step: int) -> Path:
    """Where the checkpoint of a step lies in a run folder."""
    return run / FOLDER / step_name(step)


def step_of(folder: Path) -> int | None:
    """The step that the name of a checkpoint folder tells; None for any other name."""
    digits = folder.name.removeprefix(PREFIX)
    if digits == folder.name or not digits.isdecimal() or step_name(int(digits)) != folder.name:
        return None
    return int(digits)


def checkpoint_step(folder: Path) -> int:
    """The step of the checkpoint that `folder`, or the link `folder`, is. Raises ValueError for anything else."""
    step = step_of(folder.resolve())
    if step is None:
        raise ValueError(f"{folder} is not a checkpoint.")
    return step
