"""The run folder: claimed by one process, described, and compared with what it held before."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etude.app.config import Config, load_config
from etude.base.config.loading import Loaded, difference
from etude.base.config.writing import inline
from etude.base.errors import ConfigError, RefusedError, StorageError
from etude.base.files import make_folder, sha256_of, storage, write_bytes, write_json, write_text

CONFIG, ENVIRONMENT, DATA, CODE = "config.toml", "environment.json", "data.json", "code"

HARMLESS = (
    "run.name",
    "run.dir",
    "log.",
    "data.test",
    "data.workers",
    "task.beam_size",
    "task.length_penalty",
    "train.max_duration",
    "train.min_duration",
    "train.save_every",
    "train.keep_last",
    "train.keep_best",
    "train.log_every",
    "train.sanity_batches",
    "train.patience",
    "train.min_delta",
    "train.max_skipped_steps",
    "train.max_failed_saves",
    "train.limit_test",
    "train.eval_batch_size",
    "train.device",
)
"""Keys that may change between two starts of one run, said in a note; any other makes it another run."""


def compare(loaded: Loaded[Config], folder: Path) -> list[str]:
    """What changed since the run began, as notes; a change that makes it another run is refused."""
    path = folder / CONFIG
    if not path.exists():
        return []
    try:
        before = load_config(path)
    except ConfigError as error:
        raise RefusedError(f"{path} cannot be read any more: {error} Give --run.name for a new run.") from error
    changes = difference(before.data, loaded.data)
    refused = [change for change in changes if not _is_harmless(change[0])]
    if refused:
        listed = "; ".join(f"{key} was {shown(old)} and is {shown(new)}" for key, old, new in refused[:4])
        more = f"; and {len(refused) - 4} more" if len(refused) > 4 else ""  # noqa: PLR2004
        raise RefusedError(
            f"The run in {folder} was begun with another config: {listed}{more}. Give --run.name for a new run."
        )
    return [f"{key} is now {shown(new)} (it was {shown(old)})." for key, old, new in changes]


def shown(value: Any) -> str:
    """A value as a config writes it; a key that is not there is not set."""
    return "not set" if value is None else inline(value)


def _is_harmless(key: str) -> bool:
    return any(
        key == known or key.startswith((f"{known}.", known if known.endswith(".") else f"{known}["))
        for known in HARMLESS
    )


def describe(loaded: Loaded[Config], folder: Path, environment: Mapping[str, Any]) -> None:
    """Write the composed config and what the run was made with."""
    write_text(folder / CONFIG, loaded.toml())
    write_json(folder / ENVIRONMENT, dict(environment))


def check_data(folder: Path, fingerprints: Mapping[str, str]) -> None:
    """Refuse a training or validation split whose content changed since the run began; else write it down."""
    path = folder / DATA
    before: dict[str, str] = {}
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise StorageError(f"{path} is damaged: {error}.") from error
    for name, content in fingerprints.items():
        if before.get(name, content) != content:
            raise RefusedError(
                f"The content of data.{name} (or how it is tokenised) has changed since the run in {folder} began. "
                f"Put it back, or give --run.name for a new run."
            )
    if before != {**before, **fingerprints}:
        write_json(path, {**before, **fingerprints})


def copy_code(files: list[Path], folder: Path) -> None:
    """Copy the files of imported components beside the run, with their hashes; refuse ones changed since it began."""
    if not files:
        return
    place = folder / CODE
    make_folder(place)
    hashes = place / "sha256.json"
    before = json.loads(hashes.read_text(encoding="utf-8")) if hashes.exists() else {}
    now = {str(file): sha256_of(file) for file in files}
    for file, digest in now.items():
        if before.get(file, digest) != digest:
            raise RefusedError(f"{file} has changed since the run in {folder} began. Give --run.name for a new run.")
    for source in files:
        write_bytes(place / source.name, source.read_bytes())
    write_json(hashes, now)


def remove_tree(folder: Path) -> None:
    """Remove a folder and all in it."""
    with storage("remove", folder):
        shutil.rmtree(folder)
