"""Several runs as the trials of a sweep: which keys differ, where each run lies, what each key explains."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain, compress, starmap
from operator import attrgetter, itemgetter, methodcaller
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etude.app.report.gather import RunTold
from etude.base.numbers import is_finite

FEWEST = 3
"""Runs from which on they are looked at as a sweep."""
PLACES = {"run.name", "run.dir"}
"""Keys that differ between any two runs."""
DECADE = 20
"""Numbers of which the greatest is more than so many times the least lie on a logarithmic axis."""
GROUPS = 0.5
"""A key of more different values than this share of the runs is looked at by rank, if its values are numbers."""


def differing(runs: Sequence[RunTold]) -> list[str]:
    """The keys of the config whose values are not the same in all runs, in the order of the configs."""
    keys = dict.fromkeys(chain.from_iterable(run.config for run in runs))
    return list(filter(partial(_differs, runs), keys))


def _differs(runs: Sequence[RunTold], key: str) -> bool:
    return key not in PLACES and len({run.config.get(key) for run in runs}) > 1


def result_of(run: RunTold) -> float | None:
    """What the monitored metric was at the best checkpoint; else its best in the rows."""
    if run.best is not None:
        return run.best
    choose: Callable[..., float | None] = min if run.lower_is_better else max
    return choose(filter(is_finite, map(methodcaller("get", run.monitor), run.rows)), default=None)


def sweep(runs: Sequence[RunTold]) -> dict[str, Any] | None:
    """The runs as a sweep; None of fewer than `FEWEST`, or where nothing differs.

    `axes` are the differing keys with the place of each run between 0 and 1 and what stands there, `results` by run,
    `importance` by key.
    """
    columns = {key: _column(runs, key) for key in differing(runs)}
    if len(runs) < FEWEST or not columns:
        return None
    results = list(map(result_of, runs))
    return {
        "metric": runs[0].monitor,
        "lower": runs[0].lower_is_better,
        "names": list(map(attrgetter("name"), runs)),
        "results": results,
        "axes": list(starmap(_axis, columns.items())),
        "importance": importances(columns, results),
    }


def _column(runs: Sequence[RunTold], key: str) -> list[str]:
    return [run.config.get(key, "not set") for run in runs]


def _axis(key: str, column: Sequence[str]) -> dict[str, Any]:
    return {"key": key, "told": column, "at": places(column)}


def places(column: Sequence[str]) -> list[float]:
    """Where on an axis from 0 to 1 each value lies: numbers by their size, their logarithm if they span decades.

    >>> places(["1", "3", "2"]), places(["0.001", "0.01", "0.1"]), places(["adam", "sgd", "adam"])
    ([0.0, 1.0, 0.5], [0.0, 0.5, 1.0], [0.0, 1.0, 0.0])
    """
    numbers = numbers_of(column)
    if numbers is None:
        numbers = np.unique(column, return_inverse=True)[1].astype(np.float64)
    elif numbers.min() > 0 and numbers.max() / numbers.min() > DECADE:
        numbers = np.log10(numbers)
    low, spread = numbers.min(), np.ptp(numbers)
    shares: NDArray[np.float64] = (numbers - low) / spread if spread > 0 else np.full(len(column), 0.5)
    return list(shares.round(6).tolist())


def numbers_of(column: Sequence[str]) -> NDArray[np.float64] | None:
    """The values as finite numbers; None where one is none."""
    try:
        values = np.array(list(map(json.loads, column)))
    except ValueError:
        return None
    usable = values.ndim == 1 and values.dtype.kind in "iuf" and np.isfinite(values).all()
    return values.astype(np.float64) if usable else None


def importances(columns: Mapping[str, Sequence[str]], results: Sequence[float | None]) -> dict[str, float]:
    """What share of the variance of the results' ranks each key explains alone, from 0 to 1, the greatest first.

    Of a key with few values the correlation ratio (Fisher 1925), of one with many numbers the squared rank correlation
    (Spearman 1904). It tells nothing of what keys do together. Runs without a result do not count.
    """
    values = np.array(results, dtype=np.float64)
    known = np.isfinite(values)
    if known.sum() < FEWEST:
        return {}
    ranks = ranked(values[known])
    found = {key: _explained(list(compress(column, known)), ranks) for key, column in columns.items()}
    return dict(sorted(found.items(), key=itemgetter(1), reverse=True))


def _explained(column: Sequence[str], ranks: NDArray[np.float64]) -> float:
    groups = len(set(column))
    if groups == 1 or np.ptp(ranks) == 0:
        return 0.0
    numbers = numbers_of(column)
    if numbers is not None and groups > GROUPS * len(column):
        return float(np.corrcoef(ranked(numbers), ranks)[0, 1] ** 2)
    return _correlation_ratio(column, ranks)


def _correlation_ratio(column: Sequence[str], ranks: NDArray[np.float64]) -> float:
    """The squared distances of the groups' means over those of all values."""
    _, group, sizes = np.unique(column, return_inverse=True, return_counts=True)
    away = ranks - ranks.mean()
    return float((np.bincount(group, away) ** 2 / sizes).sum() / (away @ away))


def ranked(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1 on; equal values share the mean of theirs.

    >>> ranked(np.array([3.0, 1.0, 3.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    below = (values[None, :] < values[:, None]).sum(1)
    equal = (values[None, :] == values[:, None]).sum(1)
    found: NDArray[np.float64] = below + (equal + 1) / 2
    return found
