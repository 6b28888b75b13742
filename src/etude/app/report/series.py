"""The rows of runs as curves, thinned to what a page can hold, and which of them belong into one chart."""

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise, starmap
from operator import methodcaller
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from etude.app.report.gather import RunTold
from etude.base.numbers import is_finite
from etude.train.watch.record import Row

AXES = {"step": "step", "epoch": "epoch", "tokens": "tokens", "seconds": "time/seconds"}
"""What curves can be drawn over, and the key that holds it."""
HEAD = {"step", "epoch", "tokens", "samples", "time/seconds"}
LOSSES = ("train/loss", "train/epoch_loss", "val/loss")
"""What is drawn first, and together."""
MEASURED = ("loss", "grad_norm", "padding", "skipped_steps", "batches_without_targets", "epoch_loss")
"""What stands under `train/` and follows no schedule, in itself or as the beginning of a name."""
PACE = ("_per_second", "_memory", "_seconds", "loader_share", "flops_utilization")
FEWEST = 40
"""Points of a curve, at least."""
DIGITS = 7
_NONE = np.array([], dtype=np.int64)


@dataclass(frozen=True)
class Chart:
    """Curves that are looked at together."""

    title: str
    section: str
    """`curves`, `schedules` or `pace`."""
    keys: Sequence[str]


class Curve(NamedTuple):
    """The values of a key, with the numbers of their rows."""

    rows: NDArray[np.int64]
    values: NDArray[np.float64]

    def told(self, rows: NDArray[np.int64]) -> dict[str, list[Any]]:
        """As places among all `rows` that are drawn, and values."""
        return {"at": np.searchsorted(rows, self.rows).tolist(), "y": _short(self.values)}


def curves(run: RunTold, points: int, keys: Collection[str] = ()) -> dict[str, Any]:
    """The curves of a run by key, each of about `points` at most: `axes` by name, and of each key places and `y`.

    A place is a number of the axes' values. What is not finite is left out; of `keys`, where given, all others are.
    """
    kept = {key: thinned(curve, points) for key, curve in _columns(run.rows, keys).items()}
    rows = np.unique(np.concatenate([_NONE, *(curve.rows for curve in kept.values())]))
    return {
        "name": run.name,
        "axes": {name: _short(_axis(run.rows, key)[rows]) for name, key in AXES.items()},
        "series": {key: curve.told(rows) for key, curve in kept.items()},
    }


def _columns(rows: Sequence[Row], keys: Collection[str]) -> dict[str, Curve]:
    """The values of each key that is drawn, with the number of their row."""
    found: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for number, row in enumerate(rows):
        for key in filter(partial(_is_drawn, row, keys), row):
            found[key].append((number, float(row[key])))
    return {key: Curve(*map(np.array, zip(*pairs, strict=True))) for key, pairs in found.items()}


def _is_drawn(row: Row, keys: Collection[str], key: str) -> bool:
    return key not in HEAD and (not keys or key in keys) and is_finite(row[key])


def _axis(rows: Sequence[Row], key: str) -> NDArray[np.float64]:
    """What each row is drawn over; a row that does not say takes what the one before said."""
    values, before = np.zeros(len(rows)), 0.0
    for number, row in enumerate(rows):
        if is_finite(row.get(key)):
            before = row[key]
        values[number] = before
    return values


def thinned(curve: Curve, points: int) -> Curve:
    """About so many points of a curve at most: the first, the last, and of each stretch the lowest and the highest.

    >>> kept = thinned(Curve(np.arange(7), np.array([1.0, 9, 1, 1, 1, 0, 2])), 4)
    >>> kept.rows.tolist(), kept.values.tolist()
    ([0, 1, 5, 6], [1.0, 9.0, 0.0, 2.0])
    """
    count = len(curve.rows)
    if count <= points:
        return curve
    edges = np.linspace(0, count, max(1, points // 2) + 1).astype(np.int64)
    kept = {0, count - 1}
    for begin, end in pairwise(edges.tolist()):
        stretch = curve.values[begin:end]
        kept |= {begin + int(stretch.argmin()), begin + int(stretch.argmax())}
    places = sorted(kept)
    return Curve(curve.rows[places], curve.values[places])


def _short(values: NDArray[np.float64]) -> list[float]:
    """Numbers of a few digits, which are enough to draw them; whole ones without a point."""
    return [json.loads(f"{value:.{DIGITS}g}") for value in values.tolist()]


def charts(runs: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """The charts of curves that `curves` gave: a metric's training and validation together, the losses first."""
    keys = dict.fromkeys(chain.from_iterable(run["series"] for run in runs))
    charted: dict[str, list[str]] = defaultdict(list)
    for key in sorted(keys, key=LOSSES.__contains__, reverse=True):
        charted[_name(key)].append(key)
    return list(starmap(_chart, charted.items()))


def _name(key: str) -> str:
    """What a chart of a key is called."""
    if key in LOSSES:
        return "loss"
    return key.partition("/")[2] if key.startswith(("train/", "val/", "test/")) else key


def _chart(name: str, keys: Sequence[str]) -> Chart:
    return Chart(name, _section(keys), keys)


def _section(keys: Sequence[str]) -> str:
    if all(map(_is_pace, keys)):
        return "pace"
    return "schedules" if all(map(_is_scheduled, keys)) else "curves"


def _is_pace(key: str) -> bool:
    return key.startswith("time/") or key.endswith(PACE)


def _is_scheduled(key: str) -> bool:
    return key.startswith("train/") and not _name(key).startswith(MEASURED)


def where_time_went(rows: Sequence[Row]) -> dict[str, float]:
    """Seconds of a run by what they were spent on, as far as its rows tell."""
    steps = waited = 0.0
    before = 0
    for row in filter(_tells_of_steps, rows):
        seconds = (row["step"] - before) * row["time/step_seconds"]
        waited += seconds * row["time/loader_share"]
        steps += seconds
        before = row["step"]
    validation, total = sum(_all(rows, "time/validation_seconds")), max(_all(rows, "time/seconds"), default=0.0)
    return {
        "steps": steps - waited,
        "waiting for data": waited,
        "validation": validation,
        "saving and the rest": max(0.0, total - steps - validation),
    }


def _tells_of_steps(row: Row) -> bool:
    return all(map(is_finite, map(row.get, ("step", "time/step_seconds", "time/loader_share"))))


def _all(rows: Sequence[Row], key: str) -> list[float]:
    """The values of a key."""
    return list(filter(is_finite, map(methodcaller("get", key), rows)))
