"""`etude runs`: what runs a folder holds, how far each has come, and whether it goes on."""

import fcntl
import json
import os
import platform
import struct
import time
import tomllib
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from etude.app.cli.streams import printable, put, say
from etude.app.layout import columns
from etude.base.errors import StorageError
from etude.base.files import json_or_empty
from etude.train.end import End

CONFIG, LOCK, CHECKPOINTS, METRICS = "config.toml", ".lock", "checkpoints", "metrics.jsonl"
RUNNING, FINISHED, INTERRUPTED, FAILED = "running", "finished", "interrupted", "failed"
COLUMNS = ("name", "state", "step", "epoch", "best", "changed")
NUMBERS = [COLUMNS.index(name) for name in ("step", "epoch", "changed")]
SECONDS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


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


def run(arguments: Namespace, overrides: list[str]) -> int:
    """Print the runs of a folder, the one that changed last first."""
    del overrides
    folder = Path(arguments.folder)
    if not folder.is_dir():
        raise StorageError(f"{folder} is not a folder; etude runs DIR lists the runs in DIR.")
    found = sorted(summaries(folder), key=lambda one: one.changed_seconds)
    if arguments.json:
        for one in found:
            put(json.dumps(asdict(one), ensure_ascii=False))
    elif found:
        rows = [COLUMNS, *map(cells, found)]
        put("\n".join(map(printable, columns(rows, right=NUMBERS))))
    else:
        say(f"{folder} holds no runs.")
    return 0


def summaries(folder: Path) -> Iterator[Summary]:
    """The runs that lie in `folder`, or the one that it is."""
    runs = (path for path in [folder, *sorted(folder.iterdir())] if (path / CONFIG).is_file())
    yield from map(summary, runs)


def summary(folder: Path) -> Summary:
    """What can be told of one run without loading it; a damaged file is told of as nothing known."""
    last, best = (json_or_empty(folder / CHECKPOINTS / name / "manifest.json") for name in ("last", "best"))
    row = last_row(folder / METRICS)
    monitor = _monitor(folder / CONFIG)
    metrics = best.get("metrics", {})
    return Summary(
        name=folder.resolve().name,
        state=state(folder),
        step=max(int(row.get("step", 0)), int(last.get("step", 0))),
        epoch=float(row.get("epoch", 0.0)),
        best_step=best.get("step"),
        monitor=monitor,
        best=metrics.get(monitor) if isinstance(metrics, Mapping) else None,
        changed_seconds=max(0.0, time.time() - _changed(folder)),
        folder=str(folder),
    )


def state(folder: Path) -> str:
    """Whether the run is going on, and if not, how it ended."""
    if is_locked(folder / LOCK):
        return RUNNING
    end = End.read(json_or_empty(folder / CHECKPOINTS / "last" / "state.json"))
    if end is None:
        return FAILED
    return INTERRUPTED if end.goes_on else FINISHED


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of a run folder; asked without taking it, so that no start is disturbed."""
    try:
        with path.open("rb") as file:
            return _is_held(file) if platform.system() == "Linux" else bool(file.read(1))
    except OSError:
        return False


def _is_held(file: BinaryIO) -> bool:
    # C's struct flock as Linux lays it out: kind, whence, start, length, process. Elsewhere the holder's name in the
    # file has to do, which a process that was killed leaves behind.
    asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind = struct.unpack("hhqqi4x", fcntl.fcntl(file, fcntl.F_GETLK, asked))[0]
    return bool(kind != fcntl.F_UNLCK)


def last_row(path: Path) -> dict[str, Any]:
    """The last whole row of a `metrics.jsonl`, read from its end."""
    rows = map(_row, reversed(_end_of(path).split(b"\n")))
    return next((row for row in rows if row is not None), {})


def _end_of(path: Path) -> bytes:
    """The last bytes of a file, more than the longest row has; none where it cannot be read."""
    try:
        with path.open("rb") as file:
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


def cells(one: Summary) -> tuple[str, ...]:
    """The texts of a run's row, one for each of `COLUMNS`."""
    best = "" if one.best is None else f"{one.monitor} {one.best:.4g} at step {one.best_step:,}"
    return (one.name, one.state, f"{one.step:,}", f"{one.epoch:.2f}", best, age(one.changed_seconds))


def age(seconds: float) -> str:
    """How long ago, in the largest unit.

    >>> age(30), age(4000)
    ('30 s ago', '1 h ago')
    """
    unit, length = next(((unit, length) for unit, length in SECONDS if seconds >= length), SECONDS[-1])
    return f"{int(seconds // length)} {unit} ago"


def _monitor(path: Path) -> str:
    try:
        config = tomllib.loads(path.read_text(encoding="utf-8"))
        return str(config["train"]["monitor"])
    except (OSError, ValueError, KeyError, TypeError):
        return "val/loss"


def _changed(folder: Path) -> float:
    times = []
    for name in (METRICS, CONFIG, f"{CHECKPOINTS}/last/manifest.json"):
        with suppress(OSError):
            times.append((folder / name).stat().st_mtime)
    return max(times, default=0.0)
