"""What a report tells of a run: read from its folder alone, without loading any of it; a damaged part is left out."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import filterfalse
from pathlib import Path
from typing import Any

from etude.app.report.outputs import Samples, samples_of
from etude.app.results.found import is_another_name
from etude.app.runs.folder import CONFIG, ENVIRONMENT, STARTS
from etude.app.runs.pipelines import as_stage, stages_in, trained_in
from etude.base.config.reading import read
from etude.base.config.writing import inline
from etude.base.errors import ConfigError, EtudeError, StorageError
from etude.base.files import json_or_empty
from etude.base.modes import mode_of
from etude.base.regular import read_regular
from etude.tasks.task_type import SKIPPED
from etude.train.end import End
from etude.train.lock import is_locked, refuse_links_out
from etude.train.watch.record import METRICS, Row, read_rows, row_of

MONITOR = "val/loss"
DEEPEST = 2
"""Folders inside folders in which runs are looked for."""
LARGEST_PICTURE = 200_000
PICTURES = 12
LISTED = 50
"""Skipped samples that are shown; the others are counted."""
LARGEST_TABLE = 1 << 20
LABELS = 60
"""A confusion matrix of more labels is not shown."""


@dataclass(frozen=True)
class Skipped:
    """Samples that the data left out."""

    count: int = 0
    listed: Sequence[Mapping[str, Any]] = ()


@dataclass
class RunTold:
    """All that a report tells of one run."""

    name: str
    folder: Path
    state: str
    """Whether it is going on, and if not how it ended, as a sentence."""
    rows: Sequence[Row]
    config: Mapping[str, str]
    """The composed config: dotted keys, and values as a config writes them."""
    monitor: str
    environment: Mapping[str, Any]
    best_step: int | None = None
    best: float | None = None
    """What the monitored metric was at the best checkpoint."""
    skipped: Skipped = Skipped()
    samples: Mapping[str, Samples] = field(default_factory=dict)
    """By split."""
    tables: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    """Confusion matrices by name: cells, the first row and column of which are labels."""
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    """SVG files by their path in the folder: attention, alignments."""

    @property
    def starts(self) -> Sequence[Mapping[str, Any]]:
        """When the run was begun and gone on with, where it has written that down."""
        match self.environment.get(STARTS):
            case list() as found:
                return list(map(_table, found))
        return ()

    @property
    def lower_is_better(self) -> bool:
        """Whether less of the monitored metric is better."""
        return (mode_of(self.monitor) or "min") == "min"


def folders(given: Sequence[str | Path]) -> list[Path]:
    """The run folders that are named, or that lie in those that are: the runs of a sweep.

    Of a pipeline these are the stages that have trained, of one in a sweep the last of them. Raises StorageError.
    """
    found: list[Path] = []
    for one in map(Path, given):
        here = trained_in(one) or list(_runs_in(one, DEEPEST))
        if not here:
            raise StorageError(f"{one} is not a run folder, and holds none: it has no {CONFIG}.")
        found += here
    return list(dict.fromkeys(found))


def _runs_in(folder: Path, depth: int) -> Iterator[Path]:
    """A run folder itself, else those inside, as a sweep leaves them; nothing is looked for in a run."""
    if stages_in(folder):
        yield from trained_in(folder)[-1:]
    elif (folder / CONFIG).is_file():
        yield folder
    elif depth:
        for inside in filterfalse(is_another_name, sorted(folder.glob("[!.]*/"))):
            yield from _runs_in(inside, depth - 1)


def gather_all(found: Sequence[Path], *, whole: bool = True) -> list[RunTold]:
    """Read what a report tells of several runs, of which no two have the same name. Raises as `gather` does."""
    named = names(found)
    return [replace(gather(folder, whole=whole), name=named[folder]) for folder in found]


def names(found: Sequence[Path]) -> dict[Path, str]:
    """What each folder is called: its name, below as many of its folders as tell it from the others.

    >>> list(names([Path("/a/x/run"), Path("/b/x/run"), Path("/a/other")]).values())
    ['a/x/run', 'b/x/run', 'other']
    """
    whole = {one: Path(os.path.abspath(one)).parts[1:] for one in found}  # noqa: PTH100 - a stage may be a link
    return {one: "/".join(_told_apart(parts, list(whole.values()))) for one, parts in whole.items()}


def _told_apart(parts: tuple[str, ...], others: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    for count in range(1, len(parts)):
        if [other[-count:] for other in others].count(parts[-count:]) <= 1:
            return parts[-count:]
    return parts


def gather(folder: Path, *, whole: bool = True) -> RunTold:
    """Read what a report tells of a run; of one of many, not the `whole`: no samples, tables and pictures.

    Raises StorageError for a folder that is no run, or of which a link leads out; ConfigError for an unreadable config.
    """
    if not (folder / CONFIG).is_file():
        raise StorageError(f"{folder} is not a run folder: it has no {CONFIG}.")
    refuse_links_out(folder)
    data = as_stage(read(folder / CONFIG).data)
    monitor = str(_table(data.get("train")).get("monitor", MONITOR))
    manifest = json_or_empty(folder / "checkpoints" / "best" / "manifest.json")
    told = RunTold(
        name=folder.resolve().name,
        folder=folder,
        state=_state(folder),
        rows=read_rows(folder / METRICS, lambda _: None),
        config=dict(_flat(data)),
        monitor=monitor,
        environment=json_or_empty(folder / ENVIRONMENT),
    )
    told.best_step = _whole(manifest.get("step"))
    told.best = _number(_table(manifest.get("metrics")).get(monitor))
    if whole:
        told.skipped = _skipped(folder / SKIPPED)
        told.samples = samples_of(folder / "outputs")
        told.tables = dict(_tables(folder / "outputs"))
        told.pictures = dict(_pictures(folder))
    return told


def _state(folder: Path) -> str:
    """Whether a run is going on, and if not, how it ended."""
    if is_locked(folder):
        return "running"
    end: End | None = None
    with suppress(TypeError):
        end = End.read(json_or_empty(folder / "checkpoints" / "last" / "state.json"))
    if end is None:
        return "not finished: it ended without a last save"
    return f"{'interrupted' if end.goes_on else 'finished'}: {end.says}"


def _flat(table: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys and values as a config writes them; a schedule stays whole."""
    for key, value in table.items():
        match value:
            case Mapping() if "schedule" not in value and value:
                yield from _flat(value, f"{place}{key}.")
            case _:
                yield f"{place}{key}", _written(value)


def _written(value: object) -> str:
    try:
        return inline(value)
    except (TypeError, ConfigError, EtudeError):
        return str(value)


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: object) -> float | None:
    return float(value) if type(value) in {int, float} else None  # type: ignore[arg-type]


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _lines(path: Path) -> list[bytes]:
    """The lines of a file; none where it cannot be read."""
    try:
        return read_regular(path, LARGEST_TABLE * 16).splitlines()
    except (OSError, ValueError, StorageError):
        return []


def _skipped(path: Path) -> Skipped:
    lines = list(filter(None, _lines(path)))
    return Skipped(len(lines), list(filter(None, map(row_of, lines[:LISTED]))))


def _tables(folder: Path) -> Iterator[tuple[str, list[list[str]]]]:
    """Confusion matrices, such as `outputs/test.confusion.tsv`."""
    for path in sorted(folder.glob("*.confusion.tsv")):
        cells = [line.decode("utf-8", "replace").split("\t") for line in _lines(path)]
        if 1 < len(cells) <= LABELS + 1:
            yield path.name, cells


def _pictures(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Drawn attention and alignments: SVG files in outputs and alignments."""
    found = [
        path for place in ("outputs", "alignments", "pictures") for path in sorted((folder / place).rglob("*.svg"))
    ]
    for path in found[:PICTURES]:
        with suppress(OSError, ValueError, StorageError):
            yield str(path.relative_to(folder)), read_regular(path, LARGEST_PICTURE, links=False)
