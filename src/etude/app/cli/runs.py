"""`etude runs`: what runs a folder holds, how far each has come, and whether it goes on."""

import json
import os
import stat
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from etude.app.cli.streams import printable, put, say
from etude.app.layout import columns
from etude.app.runs.pipelines import BEGUN, DONE, TRAIN, stages_in
from etude.base.config.reading import read
from etude.base.errors import ConfigError, StorageError
from etude.base.files import json_or_empty, storage
from etude.base.regular import reading
from etude.train.end import End
from etude.train.lock import is_locked, refuse_links_out

CONFIG, CHECKPOINTS, METRICS = "config.toml", "checkpoints", "metrics.jsonl"
MONITOR = "val/loss"
FORK = "fork.json"
RUNNING, FINISHED, INTERRUPTED, FAILED = "running", "finished", "interrupted", "failed"
FORKED = "forked"
"""A fork that was made, and has taken no step of its own."""
UNREADABLE = "unreadable"
WAITING = "waiting"
"""A stage that has not begun."""
LARGEST_NUMBER = 1e300
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
    pipeline: str = ""
    """The pipeline that it is a stage of."""


def run(arguments: Namespace, overrides: list[str]) -> int:
    """Print the runs of a folder, the one that changed last first."""
    del overrides
    folder = Path(arguments.folder)
    if not folder.is_dir():
        raise StorageError(f"{folder} is not a folder; etude runs DIR lists the runs in DIR.")
    found = _by_change([*summaries(folder)])
    if arguments.json:
        for one in found:
            put(json.dumps(asdict(one), ensure_ascii=False))
    elif found:
        rows = [COLUMNS, *map(cells, found)]
        put("\n".join(map(printable, columns(rows, right=NUMBERS))))
    else:
        say(f"{folder} holds no runs.")
    return 0


def _by_change(found: Sequence[Summary]) -> list[Summary]:
    """Runs, the one that changed last first; stages stay behind their pipeline."""
    groups: list[list[Summary]] = []
    for one in found:
        if one.pipeline and groups:
            groups[-1].append(one)
        else:
            groups.append([one])
    groups.sort(key=lambda group: group[0].changed_seconds)
    return [one for group in groups for one in group]


def summaries(folder: Path) -> Iterator[Summary]:
    """The runs that lie in `folder`, or the one that it is; the stages of a pipeline after it, in their order."""
    with storage("list", folder):
        inside = sorted(folder.iterdir())
    found = [] if stages_in(folder) else inside
    for one in filter(_is_run, [folder, *found]):
        stages = stages_in(one)
        yield of_pipeline(one, stages) if stages else summary(one)
        yield from (of_stage(one, name, do) for name, do in stages.items())


def of_stage(folder: Path, name: str, do: str) -> Summary:
    """What can be told of a stage of the pipeline in a folder."""
    place = folder / name
    known = summary(place) if (place / CONFIG).is_file() else _unknown(place)
    ended = json_or_empty(place / DONE)
    if do != TRAIN:
        known = replace(known, monitor=_first(ended), best=_number(ended.get("metrics"), _first(ended)))
    whose = folder.resolve().name
    return replace(known, name=f"{whose}/{name}", pipeline=whose, state=_state_of_stage(place, ended, known.state))


def _state_of_stage(place: Path, ended: Mapping[str, object], known: str) -> str:
    """How a stage stands: a training may have ended without its stage having done so."""
    if ended:
        return FINISHED
    if is_locked(place):
        return RUNNING
    if known == FINISHED:
        return INTERRUPTED
    return known if (place / BEGUN).is_file() else WAITING


def _first(ended: Mapping[str, object]) -> str:
    """The first of the metrics of a stage that has ended."""
    metrics = ended.get("metrics")
    return next(iter(metrics), MONITOR) if isinstance(metrics, Mapping) else MONITOR


def of_pipeline(folder: Path, stages: Mapping[str, str]) -> Summary:
    """What can be told of a pipeline: how far its stages are."""
    found = [of_stage(folder, name, do) for name, do in stages.items()]
    states = [one.state for one in found]
    changed = min(one.changed_seconds for one in found)
    return replace(_unknown(folder), state=_state_of_all(folder, states), changed_seconds=changed)


def _state_of_all(folder: Path, states: Sequence[str]) -> str:
    if is_locked(folder):
        return RUNNING
    return FINISHED if set(states) == {FINISHED} else INTERRUPTED


def _unknown(folder: Path) -> Summary:
    """What is told of a folder of which nothing is known but when it has changed."""
    seconds = max(0.0, time.time() - _changed(folder))
    return Summary(folder.resolve().name, WAITING, 0, 0.0, None, MONITOR, None, seconds, str(folder))


def _is_run(folder: Path) -> bool:
    """Whether a folder is a run's; one that cannot be looked into is told of as well."""
    try:
        return stat.S_ISDIR(folder.stat().st_mode) and _holds_config(folder)
    except OSError:
        return False


def _holds_config(folder: Path) -> bool:
    try:
        (folder / CONFIG).lstat()
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def summary(folder: Path) -> Summary:
    """What can be told of one run without loading it; a damaged file is told of as nothing known."""
    last, best = (json_or_empty(folder / CHECKPOINTS / name / "manifest.json") for name in ("last", "best"))
    row = last_row(folder / METRICS)
    readable, monitor = _monitor(folder / CONFIG)
    metrics = best.get("metrics")
    step, epoch = max(_place(row), (_number(last, "step") or 0.0, _epochs(folder)))
    return Summary(
        name=folder.resolve().name,
        state=state(folder) if readable and not _leads_out(folder) else UNREADABLE,
        step=int(step),
        epoch=epoch,
        best_step=_step(best),
        monitor=monitor,
        best=_number(metrics, monitor),
        changed_seconds=max(0.0, time.time() - _changed(folder)),
        folder=str(folder),
    )


def _place(row: Mapping[str, object]) -> tuple[float, float]:
    """The step and the epoch of a row."""
    return _number(row, "step") or 0.0, _number(row, "epoch") or 0.0


def _epochs(folder: Path) -> float:
    """How far the last checkpoint is, in epochs, which the last row may be behind."""
    progress = _saved(folder).get("progress")
    whole, done, total = (_number(progress, key) or 0.0 for key in ("epoch", "epoch_done", "epoch_total"))
    return whole + (done / total if total else 0.0)


def _saved(folder: Path) -> dict[str, Any]:
    """The state of the last checkpoint; an empty one where there is none to read."""
    return json_or_empty(folder / CHECKPOINTS / "last" / "state.json")


def _leads_out(folder: Path) -> bool:
    """Whether a link in a run folder leads out of it."""
    try:
        refuse_links_out(folder)
    except StorageError:
        return True
    return False


def _number(table: object, key: str) -> float | None:
    """A finite number that stands in a table; None for anything else."""
    value = table.get(key) if isinstance(table, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < LARGEST_NUMBER else None


def _step(manifest: Mapping[str, object]) -> int | None:
    step = _number(manifest, "step")
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
        return FORKED if _is_untrained_fork(folder) else FAILED
    return INTERRUPTED if end.goes_on else FINISHED


def _is_untrained_fork(folder: Path) -> bool:
    """Whether a run is a fork that has taken no step of its own."""
    left = _number(json_or_empty(folder / FORK), "step")
    return left is not None and (_number(last_row(folder / METRICS), "step") or 0.0) <= left


def last_row(path: Path) -> dict[str, Any]:
    """The last whole row of a `metrics.jsonl`, read from its end."""
    rows = map(_row, reversed(_end_of(path).split(b"\n")))
    return next((row for row in rows if row is not None), {})


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


def cells(one: Summary) -> tuple[str, ...]:
    """The texts of a run's row, one for each of `COLUMNS`."""
    at = "" if one.best_step is None else f" at step {one.best_step:,}"
    best = "" if one.best is None else f"{one.monitor} {one.best:.4g}{at}"
    changed = "" if one.state == WAITING else age(one.changed_seconds)
    return (one.name, one.state, f"{one.step:,}", f"{one.epoch:.2f}", best, changed)


def age(seconds: float) -> str:
    """How long ago, in the largest unit.

    >>> age(30), age(4000)
    ('30 s ago', '1 h ago')
    """
    unit, length = next(((unit, length) for unit, length in SECONDS if seconds >= length), SECONDS[-1])
    return f"{int(seconds // length)} {unit} ago"


def _monitor(path: Path) -> tuple[bool, str]:
    """Whether a config can be read at all, and the metric that it judges by."""
    try:
        config = read(path).data
    except ConfigError:
        return False, MONITOR
    train = config.get("train")
    return True, str(train.get("monitor", MONITOR)) if isinstance(train, Mapping) else MONITOR


def _changed(folder: Path) -> float:
    times = []
    for name in (METRICS, CONFIG, DONE, BEGUN, f"{CHECKPOINTS}/last/manifest.json"):
        with suppress(OSError):
            times.append((folder / name).stat().st_mtime)
    return max(times, default=0.0)
