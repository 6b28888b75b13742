"""The run folder of a trainer: what it was told and made with, and whether that is still so."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etude.app.environment import environment
from etude.app.folder import CONFIG, ENVIRONMENT, HARMLESS
from etude.base.config.loading import difference
from etude.base.config.writing import toml
from etude.base.errors import RefusedError, StorageError
from etude.base.files import write_json, write_text


def compare(data: Mapping[str, Any], folder: Path) -> list[str]:
    """What changed in the options since the run began, as notes; a change that makes it another run is refused."""
    path = folder / CONFIG
    if not path.exists():
        return []
    try:
        before = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StorageError(f"{path} is damaged: {error}.") from error
    changes = difference(before, tomllib.loads(toml(data)))
    refused = [change for change in changes if not _is_harmless(change[0])]
    if refused:
        listed = "; ".join(f"{key} was {old!r} and is {new!r}" for key, old, new in refused[:4])
        more = f"; and {len(refused) - 4} more" if len(refused) > 4 else ""  # noqa: PLR2004 - what fits on a line
        raise RefusedError(f"The run in {folder} was begun with other options: {listed}{more}. Give another run_dir.")
    return [f"{key} is now {new} (it was {old})." for key, old, new in changes]


def describe(data: Mapping[str, Any], folder: Path) -> None:
    """Write the options and what the run was made with."""
    write_text(folder / CONFIG, toml(data))
    write_json(folder / ENVIRONMENT, environment())


def _is_harmless(key: str) -> bool:
    return any(key == known or key.startswith((f"{known}.", f"{known}[")) for known in HARMLESS)
