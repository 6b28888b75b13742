"""What the loggers that are named share: the numbers of a row, and the name of the run that goes on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etude.base.errors import ConfigError

PLACE = frozenset({"step"})
"""The key of a row that says where it stands."""


def scalars(row: Mapping[str, Any], without: frozenset[str] = PLACE) -> dict[str, float]:
    """The numbers of a row by name, without those that say where it stands; what was not finite is left out.

    >>> scalars({"step": 3, "epoch": 0.5, "train/loss": 2.0, "train/grad_norm": None, "note": "text"})
    {'epoch': 0.5, 'train/loss': 2.0}
    """
    return {
        name: float(value)
        for name, value in row.items()
        if name not in without and isinstance(value, int | float) and not isinstance(value, bool)
    }


def remembered(path: Path) -> str:
    """The name that an earlier process of this run wrote down; empty where there was none."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def folder_for(folder: Path | None, name: str) -> Path:
    """The run folder. Raises ConfigError where there is none to keep the name of the run in."""
    if folder is None:
        raise ConfigError(f'The logger "{name}" needs a run folder, where the name of its run is kept: give run_dir.')
    return folder
