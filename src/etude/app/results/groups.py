"""Runs that differ in their seed alone, as one: the mean of a metric, its deviation, the number, the best."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import takewhile
from pathlib import Path
from typing import Any, final

from etude.app.results.values import Values
from etude.app.results.where import MISSING
from etude.base.config.composing import dotted
from etude.base.config.loading import difference
from etude.base.config.meaning import meaning_of
from etude.base.config.nest import leaves
from etude.base.numbers import is_finite
from etude.metrics.significance import Spread, spread
from etude.tasks.config import any_config

SEED = "run.seed"
SHORTEST = 3
"""Signs that the names of runs begin with alike, at least, to be the name of a group."""


@final
@dataclass(frozen=True)
class Group:
    """Runs of one config, but for the seed and for keys that change no number."""

    runs: Sequence[Values]
    called: str = ""
    """Its name, where it has one of its own."""

    @property
    def name(self) -> str:
        """What it is called, or what the names of the runs begin with, or the first of them."""
        if self.called:
            return self.called
        names = [run.summary.name for run in self.runs]
        common = _common(names).rstrip("-_. /")
        return common if len(names) == 1 or len(common) >= SHORTEST else f"{names[0]} ..."

    @property
    def monitor(self) -> str:
        """The metric that the runs judge by."""
        return self.runs[0].summary.monitor

    def numbers(self, key: str) -> list[float]:
        """The finite numbers that stand under a key."""
        values = [run(key) for run in self.runs]
        return [float(value) for value in values if is_finite(value)]

    def common(self, key: str) -> object:
        """What stands under a key in every run alike; `MISSING` where that is nothing, or differs."""
        first = self.runs[0](key)
        return first if all(run(key) == first for run in self.runs) else MISSING

    @cached_property
    def of_best(self) -> Spread:
        """The monitored metric of the runs at their best."""
        return spread(self.numbers("best"))

    @property
    def best(self) -> Values | None:
        """The best run by the monitored metric; None where none has been validated, or its mode is not known."""
        mode, judged = self.runs[0].mode, [run for run in self.runs if run.summary.best is not None]
        if mode is None or not judged:
            return None
        return min(judged, key=Values.merit)

    @property
    def merit(self) -> float:
        """Where the group stands among others, the better the smaller: by the mean of its monitored metric."""
        if not self.of_best.number:
            return math.inf
        return -self.of_best.mean if self.runs[0].mode == "max" else self.of_best.mean


def _common(names: Sequence[str]) -> str:
    """What several names begin with alike."""
    signs = takewhile(lambda column: len(set(column)) == 1, zip(*names, strict=False))
    return "".join(column[0] for column in signs)


def grouped(runs: Sequence[Values]) -> list[Group]:
    """The runs by their configs, those of one apart from the seed together, in the order of the first of each.

    A stage that trials of a sweep share is one run.
    """
    found: dict[str, list[Values]] = {}
    for run in _each_once(runs):
        found.setdefault(fingerprint(run.config) if run.config else run.summary.folder, []).append(run)
    return list(map(Group, found.values()))


def _each_once(runs: Sequence[Values]) -> Iterable[Values]:
    """The runs, of those in the same place the first."""
    found: dict[Path, Values] = {}
    for run in runs:
        found.setdefault(run.folder.resolve(), run)
    return found.values()


def fingerprint(config: Mapping[str, Any]) -> str:
    """A hash of what of a config the result or its validation depends on, the seed left out."""
    told = {key: value for key, value in _flat(config).items() if _counts(key)}
    return sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def _counts(key: str) -> bool:
    return key != SEED and meaning_of(any_config(), key).identity != "none"


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    return {dotted(place): value for place, value in leaves(config)}


def telling_keys(groups: Sequence[Group]) -> list[str]:
    """The keys of the configs that tell the groups apart, which is what a sweep has changed.

    A key that is a number here and a table there, as a rate and a schedule are, is told as a whole.
    """
    first, keys = groups[0].runs[0].config, dict[str, None]()
    for group in groups[1:]:
        keys |= {key: None for key, _, _ in difference(first, group.runs[0].config) if _counts(key)}
    return [key for key in keys if not any(key.startswith(f"{whole}.") for whole in keys)]
