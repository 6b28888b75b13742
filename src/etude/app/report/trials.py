"""Several runs as the trials of a sweep: which keys differ, where each run lies, what each key explains."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etude.app.report.gather import RunTold

FEWEST = 3
"""Runs from which on they are looked at as a sweep."""
PLACES = {"run.name", "run.dir"}
"""Keys that differ between any two runs."""
GROUPS = 0.5
"""A key of more different values than this share of the runs is looked at by rank, if its values are numbers."""


def differing(runs: Sequence[RunTold]) -> list[str]:
    """The keys of the config whose values are not the same in all runs, in the order of the configs."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    return [key for key in keys if key not in PLACES and len({run.config.get(key) for run in runs}) > 1]


def result_of(run: RunTold) -> float | None:
    """What the monitored metric was at the best checkpoint; else its best in the rows."""
    if run.best is not None:
        return run.best
    values = [row[run.monitor] for row in run.rows if isinstance(row.get(run.monitor), int | float)]
    if not values:
        return None
    return float(min(values) if run.lower_is_better else max(values))


def sweep(runs: Sequence[RunTold]) -> dict[str, Any] | None:
    """The runs as a sweep; None of fewer than `FEWEST`, or where nothing differs.

    `axes` are the differing keys with the place of each run between 0 and 1 and what stands there, `results` by run,
    `importance` by key.
    """
    keys = differing(runs)
    if len(runs) < FEWEST or not keys:
        return None
    results = [result_of(run) for run in runs]
    columns = {key: [run.config.get(key, "not set") for run in runs] for key in keys}
    return {
        "metric": runs[0].monitor,
        "lower": runs[0].lower_is_better,
        "names": [run.name for run in runs],
        "results": results,
        "axes": [{"key": key, "told": column, "at": places(column)} for key, column in columns.items()],
        "importance": dict(sorted(importances(columns, results).items(), key=lambda item: -item[1])),
    }


def places(column: Sequence[str]) -> list[float]:
    """Where on an axis from 0 to 1 each value lies: numbers by their size, their logarithm if they span decades.

    >>> places(["1", "3", "2"]), places(["0.001", "0.01", "0.1"]), places(["adam", "sgd", "adam"])
    ([0.0, 1.0, 0.5], [0.0, 0.5, 1.0], [0.0, 1.0, 0.0])
    """
    numbers = numbers_of(column)
    if numbers is None:
        order = {value: number for number, value in enumerate(dict.fromkeys(sorted(column)))}
        numbers = np.array([order[value] for value in column], dtype=np.float64)
    elif numbers.min() > 0 and numbers.max() / numbers.min() > 20:  # noqa: PLR2004 - more than a decade
        numbers = np.log10(numbers)
    low, high = numbers.min(), numbers.max()
    shares = (numbers - low) / (high - low) if high > low else np.full(len(column), 0.5)
    return [round(float(share), 6) for share in shares]


def numbers_of(column: Sequence[str]) -> NDArray[np.float64] | None:
    """The values as finite numbers; None where one is none."""
    try:
        values = [json.loads(value) for value in column]
    except ValueError:
        return None
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return None
    numbers = np.array(values, dtype=np.float64)
    return numbers if np.isfinite(numbers).all() else None


def importances(columns: Mapping[str, Sequence[str]], results: Sequence[float | None]) -> dict[str, float]:
    """What share of the variance of the results' ranks each key explains alone, from 0 to 1.

    Of a key with few values the correlation ratio (Fisher 1925), of one with many numbers the squared rank correlation
    (Spearman 1904). It tells nothing of what keys do together. Runs without a result do not count.
    """
    known = [number for number, result in enumerate(results) if result is not None]
    if len(known) < FEWEST:
        return {}
    ranks = ranked(np.array([results[number] for number in known], dtype=np.float64))
    return {key: _explained([column[number] for number in known], ranks) for key, column in columns.items()}


def _explained(column: Sequence[str], ranks: NDArray[np.float64]) -> float:
    total = float(((ranks - ranks.mean()) ** 2).sum())
    groups = list(dict.fromkeys(column))
    if total == 0 or len(groups) == 1:
        return 0.0
    numbers = numbers_of(column)
    if numbers is not None and len(groups) > GROUPS * len(column):
        return float(np.corrcoef(ranked(numbers), ranks)[0, 1] ** 2)
    chosen = [np.array([value == group for value in column]) for group in groups]
    between = sum(float(which.sum() * (ranks[which].mean() - ranks.mean()) ** 2) for which in chosen)
    return between / total


def ranked(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1 on; equal values share the mean of theirs.

    >>> ranked(np.array([3.0, 1.0, 3.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    below = (values[None, :] < values[:, None]).sum(1)
    equal = (values[None, :] == values[:, None]).sum(1)
    found: NDArray[np.float64] = below + (equal + 1) / 2
    return found
