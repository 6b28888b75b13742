"""Everything that is known of a run by name: its state, its config's keys, and its metrics."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

from etude.app.results.summary import Summary, measured, read_config, summary, tested
from etude.app.results.where import MISSING, Where
from etude.base.config.composing import dotted
from etude.base.config.lines import Key, split_key
from etude.base.config.nest import holds, leaves
from etude.base.errors import ConfigError
from etude.base.modes import Mode, mode_of
from etude.base.near import nearest

TEST = "test/"
OWN = ("name", "state", "step", "epoch", "best", "best_step", "monitor", "changed", "folder")
"""What is told of every run; `best` is what its monitored metric was at its best."""


@final
@dataclass(frozen=True)
class Values:
    """A run as what stands under each name: the words of `OWN`, keys of its config, and metrics."""

    summary: Summary

    @classmethod
    def of(cls, name: str, folder: Path) -> "Values":
        """What is known of the run in a folder, under the name that it has in a list."""
        return cls(summary(folder, name))

    @property
    def folder(self) -> Path:
        """Where the run lies."""
        return Path(self.summary.folder)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The composed config; an empty one where it cannot be read."""
        return read_config(self.folder)[1]

    @cached_property
    def metrics(self) -> Mapping[str, float]:
        """What was measured with the best weights, the training's last row, and the last test."""
        return {**measured(self.folder), **tested(self.folder)}

    @cached_property
    def _own(self) -> Mapping[str, object]:
        told = asdict(self.summary)
        return {**told, "changed": told["changed_seconds"]}

    def __call__(self, key: str) -> object:
        """What stands under a key; `MISSING` where nothing does."""
        for table in (self._own, self.metrics):
            if key in table:
                return MISSING if table[key] is None else table[key]
        return _looked_up(self.config, key)

    @property
    def keys(self) -> Iterator[str]:
        """Every name that something stands under."""
        yield from OWN
        yield from self.metrics
        yield from (dotted(place) for place, _ in leaves(self.config))

    @property
    def mode(self) -> Mode | None:
        """Whether less or more of the monitored metric is better; None where that is not known."""
        given = _looked_up(self.config, "train.mode")
        match given:
            case "min" | "max":
                return given
        return mode_of(self.summary.monitor)

    def merit(self) -> float:
        """Where the run stands among others by its monitored metric: the better, the smaller."""
        best = self.summary.best
        if best is None or self.mode is None:
            return math.inf
        return -best if self.mode == "max" else best


def _looked_up(config: Mapping[str, Any], key: str) -> object:
    value: Any = config
    for element in _place(key):
        if not holds(value, element):
            return MISSING
        value = value[element]
    return value


def _place(key: str) -> Key:
    """A dotted key, with positions in lists, as a place in a config."""
    try:
        parts = split_key(key.replace("[", ".").replace("]", ""))
    except (ValueError, IndexError):
        parts = (key,)
    return tuple(int(part) if part.isdecimal() else part for part in parts)


def refuse_unknown(keys: Iterable[str], runs: Sequence[Values], flag: str) -> None:
    """Raise ConfigError, with the nearest name, for a key that no run has."""
    for key in keys:
        if runs and all(run(key) is MISSING for run in runs) and key not in OWN:
            near = nearest(key, {name for run in runs for name in run.keys})
            advice = f"did you mean {near}?" if near else "texts stand in quotes, and keys are those of config.toml."
            raise ConfigError(f"{flag} asks for {key}, which no run here has; {advice}")


def refuse_tests(keys: Iterable[str], flag: str) -> None:
    """Raise ConfigError for a metric of the test split: what is chosen by it is no test any more."""
    for key in keys:
        if key.startswith(TEST):
            raise ConfigError(
                f"{flag} must not choose runs by {key}: the test set never ranks; take the same metric of val."
            )


def chosen(runs: Sequence[Values], conditions: Sequence[Where]) -> list[Values]:
    """The runs that meet every condition. Raises ConfigError for a key that none has, or that is of the test split."""
    for condition in conditions:
        asked = condition.keys.values()
        refuse_tests(asked, "--where")
        refuse_unknown(asked, runs, "--where")
    return [run for run in runs if all(condition.holds(run) for condition in conditions)]


def in_order(runs: Sequence[Values], key: str, *, downwards: bool = False) -> list[Values]:
    """The runs by what stands under a key: numbers before texts, and runs without it last, whichever way round."""
    refuse_tests([key], "--sort")
    refuse_unknown([key], runs, "--sort")
    having = [run for run in runs if run(key) is not MISSING]
    ordered = sorted(having, key=lambda run: rank(run(key)), reverse=downwards)
    return [*ordered, *(run for run in runs if run(key) is MISSING)]


def rank(value: object) -> tuple[int, float, str]:
    """Where a value stands among others of any kind."""
    match value:
        case bool():
            return 1, float(value), ""
        case int() | float():
            return 0, float(value), ""
        case str():
            return 2, 0.0, value
    return 3, 0.0, str(value)
