"""The run folder: claimed by one process, described, and compared with what it held before."""

import shlex
import shutil
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from etude.app.runs.changes import changes_between, judged
from etude.base.config.loading import Loaded
from etude.base.errors import ConfigError, RefusedError
from etude.base.files import make_folder, read_json, sha256_of, storage, write_bytes, write_json, write_text
from etude.tasks.config import Config, load_config
from etude.tasks.task_type import TOKENIZERS
from etude.train.memory.checkpoint.origin import CONFIGS, configs_of
from etude.train.memory.checkpoint.store import Store

CONFIG, ENVIRONMENT, DATA, CODE = "config.toml", "environment.json", "data.json", "code"
STARTS = "starts"
"""The key in `environment.json` under which a run's starts stand."""
MOST_STARTS = 1000


def has_checkpoint(folder: Path) -> bool:
    """Whether the run has saved anything: one that ended before is begun anew, with whatever config."""
    return any((folder / "checkpoints").glob("step-*"))


def compare(loaded: Loaded[Config], folder: Path) -> list[str]:
    """What changed since the run began, as notes; a change that makes it another run is refused."""
    path = folder / CONFIG
    if not path.exists() or not has_checkpoint(folder):
        return []
    try:
        before = load_config(path)
    except ConfigError as error:
        raise RefusedError(f"{path} can no longer be read: {error} Give --run.name for a new run.") from error
    changes = changes_between(before.data, loaded.data, type(loaded.config))
    return judged(changes, f"The run in {folder} began with another config", _instead(folder))


def _instead(folder: Path) -> str:
    """What to do where a run cannot go on with another config."""
    last = max(Store(folder / "checkpoints").steps())
    fork = f'etude fork {shlex.quote(str(folder))} --at "{last} steps" --section.key VALUE'
    return f"Give --run.name for a new run, or let one share the first steps: {fork}."


def describe(loaded: Loaded[Config], folder: Path, environment: Mapping[str, object]) -> None:
    """Write the composed config and what the run was made with."""
    write_text(folder / CONFIG, loaded.toml())
    write_json(folder / ENVIRONMENT, {**environment, CONFIGS: configs_of(folder), STARTS: starts_with_now(folder)})


def starts_with_now(folder: Path) -> list[dict[str, object]]:
    """When and at which step the run was begun and gone on with, the present start included; the last `MOST_STARTS`."""
    before = noted(folder / ENVIRONMENT, folder).get(STARTS)
    earlier = before if isinstance(before, list) else []
    now = datetime.now(tz=UTC).isoformat(timespec="seconds")
    step = max(Store(folder / "checkpoints").steps(), default=0)
    return [*earlier, {"time": now, "step": step}][-MOST_STARTS:]


def check_data(folder: Path, fingerprints: Mapping[str, str]) -> None:
    """Refuse a training or validation split whose content changed since the run began; else write it down."""
    path = folder / DATA
    before = noted(path, folder)
    for name, content in fingerprints.items():
        if before.get(name, content) != content:
            raise RefusedError(
                f"The content of {content_key(name)} (or its tokenization) has changed since the run in {folder} "
                f"began. Restore it, or give --run.name for a new run."
            )
    if before != {**before, **fingerprints}:
        write_json(path, {**before, **fingerprints})


def content_key(name: str) -> str:
    """The key of the config that says where content lies: a split's name stands for its own.

    >>> content_key("train"), content_key("init.from[0]")
    ('data.train', 'init.from[0]')
    """
    return name if "." in name else f"data.{name}"


def noted(path: Path, folder: Path) -> dict[str, Any]:
    """What a file notes of how the run in `folder` began; nothing of one that has saved nothing yet."""
    return read_json(path) if path.exists() and has_checkpoint(folder) else {}


def tokenizer_hashes(run: Path) -> dict[str, str]:
    """The tokenizers that a run keeps, by file name, as hashes."""
    return {path.name: sha256_of(path) for path in sorted((run / TOKENIZERS).glob("*.json"))}


def copy_code(files: list[Path], folder: Path) -> None:
    """Copy the files of imported components beside the run, with their hashes; refuse ones changed since it began."""
    if not files:
        return
    place = folder / CODE
    make_folder(place)
    hashes = place / "sha256.json"
    now = {str(file): sha256_of(file) for file in files}
    for file, digest in noted(hashes, folder).items():
        if now.get(file, digest) != digest:
            raise RefusedError(f"{file} has changed since the run in {folder} began. Give --run.name for a new run.")
    for source, name in code_names(now).items():
        make_folder((place / name).parent)
        write_bytes(place / name, Path(source).read_bytes())
    write_json(hashes, now)


def code_names(files: Collection[str]) -> dict[str, str]:
    """What each file of code is kept as: its name, below as many of its folders as tell it from the others.

    >>> code_names(["/a/x/net.py", "/a/y/net.py", "/a/loss.py"])
    {'/a/x/net.py': 'x/net.py', '/a/y/net.py': 'y/net.py', '/a/loss.py': 'loss.py'}
    """
    return {file: _told_apart(file, [other for other in files if other != file]) for file in files}


def _told_apart(file: str, others: Collection[str]) -> str:
    parts = Path(file).relative_to(Path(file).anchor).parts
    ends = ("/".join(parts[-count:]) for count in range(1, len(parts)))
    return next((end for end in ends if not any(other.endswith(f"/{end}") for other in others)), "/".join(parts))


def remove_tree(folder: Path) -> None:
    """Remove a folder and all in it."""
    with storage("remove", folder):
        shutil.rmtree(folder)
