"""The rows of runs as curves, thinned to what a page can hold, and which of them belong into one chart."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etude.app.report.gather import RunTold
from etude.train.watch.record import Row

AXES = {"step": "step", "epoch": "epoch", "tokens": "tokens", "seconds": "time/seconds"}
"""What curves can be drawn over, and the key that holds it."""
HEAD = {"step", "epoch", "tokens", "samples"}
MEASURED = ("loss", "grad_norm", "padding", "skipped_steps", "batches_without_targets", "epoch_loss")
"""What stands under `train/` and follows no schedule, in itself or as the beginning of a name."""
PACE = ("_per_second", "_memory", "_seconds", "loader_share", "flops_utilization")
FEWEST = 40
"""Points of a curve, at least."""
DIGITS = 7


@dataclass(frozen=True)
class Chart:
    """Curves that are looked at together."""

    title: str
    section: str
    """`curves`, `schedules` or `pace`."""
    keys: Sequence[str]


def curves(run: RunTold, points: int, keys: Iterable[str] | None = None) -> dict[str, Any]:
    """The curves of a run by key, each of at most about so many points: `axes` by name, and of each key places and `y`.

    A place is a number of the axes' values. What is not finite is left out.
    """
    held = _columns(run.rows)
    wanted = [key for key in held if keys is None or key in set(keys)]
    kept = {key: thinned(held[key], points) for key in wanted}
    rows = sorted({row for places in kept.values() for row, _ in places})
    place = {row: number for number, row in enumerate(rows)}
    axes = _axes(run.rows)
    return {
        "name": run.name,
        "axes": {name: [_short(values[row]) for row in rows] for name, values in axes.items()},
        "series": {
            key: {"at": [place[row] for row, _ in places], "y": [_short(value) for _, value in places]}
            for key, places in kept.items()
        },
    }


def _columns(rows: Sequence[Row]) -> dict[str, list[tuple[int, float]]]:
    """The values of each key that is drawn, with the number of their row."""
    found: dict[str, list[tuple[int, float]]] = {}
    for number, row in enumerate(rows):
        for key, value in row.items():
            if key not in HEAD and _is_number(value):
                found.setdefault(key, []).append((number, float(value)))
    found.pop("time/seconds", None)
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _axes(rows: Sequence[Row]) -> dict[str, list[float]]:
    """What each row is drawn over; a row that does not say takes what the one before said."""
    found: dict[str, list[float]] = {name: [] for name in AXES}
    for row in rows:
        for name, key in AXES.items():
            values = found[name]
            before = values[-1] if values else 0.0
            value = row.get(key)
            values.append(float(value) if _is_number(value) else before)  # type: ignore[arg-type]
    return found


def thinned(curve: Sequence[tuple[int, float]], points: int) -> list[tuple[int, float]]:
    """At most about so many points of a curve: the first, the last, and of each stretch the lowest and the highest.

    >>> thinned([(0, 1.0), (1, 9.0), (2, 1.0), (3, 1.0), (4, 1.0), (5, 0.0), (6, 2.0)], 4)
    [(0, 1.0), (1, 9.0), (5, 0.0), (6, 2.0)]
    """
    if len(curve) <= points:
        return list(curve)
    stretches = max(1, points // 2)
    kept = {curve[0], curve[-1]}
    for number in range(stretches):
        stretch = curve[number * len(curve) // stretches : (number + 1) * len(curve) // stretches]
        kept |= {min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])}
    return sorted(kept)


def _short(value: float) -> float:
    """A number of a few digits, which is enough to draw it."""
    short = float(f"{value:.{DIGITS}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short  # noqa: PLR2004 - exact as a float


def charts(runs: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """The charts of curves that `curves` gave: a metric's training and validation together, the losses first."""
    keys = dict.fromkeys(key for run in runs for key in run["series"])
    losses = [key for key in ("train/loss", "train/epoch_loss", "val/loss") if key in keys]
    made = [Chart("loss", "curves", losses)] if losses else []
    names = dict.fromkeys(_name(key) for key in keys if key not in losses)
    return [*made, *(_chart(name, [key for key in keys if _name(key) == name and key not in losses]) for name in names)]


def _name(key: str) -> str:
    return key.partition("/")[2] if key.startswith(("train/", "val/", "test/")) else key


def _chart(name: str, keys: Sequence[str]) -> Chart:
    return Chart(name, _section(keys), keys)


def _section(keys: Sequence[str]) -> str:
    if all(key.startswith("time/") or key.endswith(PACE) for key in keys):
        return "pace"
    if all(key.startswith("train/") and not _name(key).startswith(MEASURED) for key in keys):
        return "schedules"
    return "curves"


def where_time_went(rows: Sequence[Row]) -> dict[str, float]:
    """Seconds of a run by what they were spent on, as far as its rows tell."""
    spent = {"steps": 0.0, "waiting for data": 0.0, "validation": 0.0}
    before = 0
    for row in rows:
        step = int(row.get("step") or 0)
        seconds = (step - before) * (row.get("time/step_seconds") or 0.0)
        if "time/step_seconds" in row:
            waited = seconds * (row.get("time/loader_share") or 0.0)
            spent["steps"] += seconds - waited
            spent["waiting for data"] += waited
            before = step
        spent["validation"] += row.get("time/validation_seconds") or 0.0
    total = max(_all(rows, "time/seconds"), default=0.0)
    return spent | {"saving and the rest": max(0.0, total - sum(spent.values()))}


def _all(rows: Sequence[Row], key: str) -> Iterator[float]:
    return (row[key] for row in rows if _is_number(row.get(key)))
