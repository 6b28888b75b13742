"""What is told of one run by its files alone: how far it has come, whether it goes on, and how good it was."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.app.runs.pipelines import BEGUN, DONE, as_stage
from etude.base.config.reading import read
from etude.base.errors import ConfigError, StorageError
from etude.base.files import json_or_empty
from etude.base.regular import reading
from etude.tasks.run_files import LOG, is_of_run
from etude.train.end import End
from etude.train.lock import is_locked, refuse_links_out
from etude.train.memory.checkpoint.content import MANIFEST
from etude.train.memory.checkpoint.store import BEST, LAST

CONFIG, CHECKPOINTS, METRICS = "config.toml", "checkpoints", "metrics.jsonl"
MONITOR = "val/loss"
FORK = "fork.json"
REMOVED = "removed.json"
"""What is left of the checkpoints of a run that were removed: what they told of it."""
RUNNING, FINISHED, INTERRUPTED, FAILED = "running", "finished", "interrupted", "failed"
FORKED = "forked"
"""A fork that was made, and has taken no step of its own."""
UNREADABLE = "unreadable"
WAITING = "waiting"
"""A stage that has not begun, or a config without a run."""
LARGEST_NUMBER = 1e300


@dataclass(frozen=True)
class Summary:
    """What is told of one run."""

    name: str
    state: str
    step: int
    epoch: float
    best_step: int | None
    """The step of the best checkpoint."""
    monitor: str
    best: float | None
    """What the monitored metric was there."""
    changed_seconds: float
    """How long ago it last wrote something."""
    folder: str
    pipeline: str = ""
    """The pipeline that it is a stage of."""


def summary(folder: Path, name: str = "") -> Summary:
    """What can be told of one run without loading it; a damaged file is told of as nothing known."""
    last, best = (_manifest(folder, which) for which in ("last", "best"))
    row = last_row(folder / METRICS)
    readable, monitor = _monitor(folder)
    metrics = best.get("metrics")
    step, epoch = max(_place(row), (number_in(last, "step") or 0.0, _epochs(folder)))
    return Summary(
        name=name or folder.resolve().name,
        state=state(folder) if readable and not _leads_out(folder) else UNREADABLE,
        step=int(step),
        epoch=epoch,
        best_step=_step(best),
        monitor=monitor,
        best=number_in(metrics, monitor),
        changed_seconds=max(0.0, time.time() - changed_at(folder)),
        folder=str(folder),
    )


def _place(row: Mapping[str, object]) -> tuple[float, float]:
    """The step and the epoch of a row."""
    return number_in(row, "step") or 0.0, number_in(row, "epoch") or 0.0


def _epochs(folder: Path) -> float:
    """How far the last checkpoint is, in epochs, which the last row may be behind."""
    progress = _saved(folder).get("progress")
    whole, done, total = (number_in(progress, key) or 0.0 for key in ("epoch", "epoch_done", "epoch_total"))
    return whole + (done / total if total else 0.0)


def _saved(folder: Path) -> dict[str, Any]:
    """The state of the last checkpoint; an empty one where there is none to read."""
    return json_or_empty(folder / CHECKPOINTS / "last" / "state.json") or _kept(folder).get("state", {})


def _manifest(folder: Path, which: str) -> dict[str, Any]:
    """The manifest of the best or the last checkpoint; an empty one where there is none to read."""
    return json_or_empty(folder / CHECKPOINTS / which / MANIFEST) or _kept(folder).get(which, {})


def _kept(folder: Path) -> dict[str, Any]:
    """What was written down of the checkpoints of a run before they were removed."""
    told = json_or_empty(folder / REMOVED)
    return told if all(isinstance(part, dict) for part in told.values()) else {}


def what_checkpoints_tell(folder: Path) -> dict[str, Any]:
    """What is told of a run by its checkpoints, to be written down before they are removed."""
    state = _saved(folder)
    return {
        "best": {key: _manifest(folder, BEST).get(key) for key in ("step", "metrics")},
        "last": {"step": _manifest(folder, LAST).get("step")},
        "state": {key: state[key] for key in ("progress", "ended") if key in state},
    }


def measured(folder: Path) -> dict[str, float]:
    """The metrics of the best weights, and those of the last row of the training."""
    metrics = _manifest(folder, BEST).get("metrics")
    return {**_last_of("train/", folder), **_numbers(metrics)}


def tested(folder: Path) -> dict[str, float]:
    """What the last test of a run measured; nothing of one that was not tested of late."""
    return _last_of("test/", folder)


def _last_of(prefix: str, folder: Path) -> dict[str, float]:
    """The metrics of a prefix in the last row that has one of them."""
    rows = (_numbers(row) for row in rows_from_the_end(folder / METRICS))
    found = ({name: row[name] for name in row if name.startswith(prefix)} for row in rows)
    return next(filter(None, found), {})


def _numbers(table: object) -> dict[str, float]:
    """The finite numbers of a table."""
    names = table if isinstance(table, Mapping) else ()
    told = {name: number_in(table, name) for name in names}
    return {name: value for name, value in told.items() if value is not None}


def _leads_out(folder: Path) -> bool:
    """Whether a link in a run folder leads out of it."""
    try:
        refuse_links_out(folder)
    except StorageError:
        return True
    return False


def number_in(table: object, key: str) -> float | None:
    """A finite number that stands in a table; None for anything else."""
    value = table.get(key) if isinstance(table, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < LARGEST_NUMBER else None


def _step(manifest: Mapping[str, object]) -> int | None:
    step = number_in(manifest, "step")
    return None if step is None else int(step)


def state(folder: Path) -> str:
    """Whether the run is going on, and if not, how it ended."""
    if is_locked(folder):
        return RUNNING
    try:
        end = End.read(_saved(folder))
    except TypeError:  # words of another kind where text should be
        end = None
    if end is None:
        return FORKED if _is_untrained_fork(folder) else _without_end(folder)
    return INTERRUPTED if end.goes_on else FINISHED


def _without_end(folder: Path) -> str:
    """How it stands with a run that has saved no end: it failed, or it has left nothing yet but its config."""
    left = any((folder / name).exists() for name in (METRICS, CHECKPOINTS)) or _has_said(folder / LOG)
    return FAILED if left or is_of_run(folder / CONFIG) else WAITING


def _has_said(log: Path) -> bool:
    with suppress(OSError):
        return log.stat().st_size > 0
    return False


def _is_untrained_fork(folder: Path) -> bool:
    """Whether a run is a fork that has taken no step of its own."""
    left = number_in(json_or_empty(folder / FORK), "step")
    return left is not None and (number_in(last_row(folder / METRICS), "step") or 0.0) <= left


def last_row(path: Path) -> dict[str, Any]:
    """The last whole row of a `metrics.jsonl`, read from its end."""
    return next(rows_from_the_end(path), {})


def rows_from_the_end(path: Path) -> Iterator[dict[str, Any]]:
    """The last whole rows of a `metrics.jsonl`, the last first."""
    rows = map(_row, reversed(_end_of(path).split(b"\n")))
    yield from (row for row in rows if row is not None)


def _end_of(path: Path) -> bytes:
    """The last bytes of a file, more than the longest row has; none where it cannot be read."""
    try:
        with reading(path) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - (1 << 16)))
            return file.read()
    except OSError:
        return b""


def _row(line: bytes) -> dict[str, Any] | None:
    """The object on a line of JSON; None where it holds none."""
    with suppress(ValueError, RecursionError):
        row = json.loads(line)
        if isinstance(row, dict):
            return row
    return None


def read_config(folder: Path) -> tuple[bool, Mapping[str, Any]]:
    """Whether the config of a run can be read at all, and what it holds."""
    try:
        return True, as_stage(read(folder / CONFIG).data)
    except ConfigError:
        return False, {}


def _monitor(folder: Path) -> tuple[bool, str]:
    """Whether a config can be read at all, and the metric that it judges by."""
    readable, config = read_config(folder)
    train = config.get("train")
    return readable, str(train.get("monitor", MONITOR)) if isinstance(train, Mapping) else MONITOR


def changed_at(folder: Path) -> float:
    """When a run last wrote something, in seconds since the epoch."""
    times = []
    for name in (METRICS, CONFIG, DONE, BEGUN, f"{CHECKPOINTS}/last/manifest.json"):
        with suppress(OSError):
            times.append((folder / name).stat().st_mtime)
    return max(times, default=0.0)
