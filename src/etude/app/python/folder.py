"""The run folder of a trainer: what it was told and made with, and whether that is still so."""

import tomllib
from collections.abc import Mapping
from pathlib import Path

from etude.app.python.options import TrainerOptions
from etude.app.runs.changes import changes_between, judged, machine_notes
from etude.app.runs.environment import environment
from etude.app.runs.folder import CONFIG, ENVIRONMENT, has_checkpoint
from etude.base.config.reading import read
from etude.base.config.writing import toml
from etude.base.errors import ConfigError, StorageError
from etude.base.files import write_json, write_text
from etude.train.memory.checkpoint.origin import CONFIGS, configs_of

INSTEAD = (
    "Give another run_dir; a run of a config can share its first steps with a changed one (etude fork RUN --at STEP)."
)


def compare(data: Mapping[str, object], folder: Path) -> list[str]:
    """What changed in the options since the run began, as notes; a change that makes it another run is refused."""
    path = folder / CONFIG
    if not path.exists() or not has_checkpoint(folder):
        return []
    try:
        before = read(path).data
    except ConfigError as error:
        raise StorageError(f"{path} is damaged: {error}") from error
    changes = changes_between(before, tomllib.loads(toml(data)), TrainerOptions)
    return judged(changes, f"The run in {folder} began with other options", INSTEAD)


def describe(data: Mapping[str, object], folder: Path) -> list[str]:
    """Write the options and what the run was made with; give notes on what about the machine has changed."""
    now = environment()
    notes = machine_notes(folder / ENVIRONMENT, now)
    write_text(folder / CONFIG, toml(data))
    write_json(folder / ENVIRONMENT, {**now, CONFIGS: configs_of(folder)})
    return notes
