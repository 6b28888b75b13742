"""A run as loggers take it: rows as a step and numbers by name, its config as parameters, the sweep that it is of."""

from collections.abc import Mapping
from pathlib import Path

from etude.base.config.composing import dotted
from etude.base.config.nest import leaves
from etude.base.config.writing import inline
from etude.base.errors import ConfigError
from etude.base.numbers import is_number

SWEEP = "sweep.toml"
"""The file of a folder that says that it is a sweep's: its trials lie in it."""
PLACE = frozenset({"step"})
"""The key of a row that says where it stands."""


def placed(row: Mapping[str, object], without: frozenset[str] = PLACE) -> tuple[int, dict[str, float]]:
    """The step of a row, and its numbers without those that say where it stands; what was not finite is left out.

    >>> placed({"step": 3, "epoch": 0.5, "train/loss": 2.0, "train/grad_norm": None, "note": "text"})
    (3, {'epoch': 0.5, 'train/loss': 2.0})
    """
    numbers = {name: float(value) for name, value in row.items() if is_number(value)}
    step = int(numbers["step"])
    return step, {name: value for name, value in numbers.items() if name not in without}


def parameters(config: Mapping[str, object]) -> dict[str, bool | float | str]:
    """A composed config as parameters by dotted key: numbers and text; lists as a config writes them.

    >>> parameters({"run": {"seed": 1}, "train": {"freeze": ["a"], "patience": None}})
    {'run.seed': 1, 'train.freeze': '["a"]'}
    """
    return {dotted(place): _plain(value) for place, value in leaves(config) if value is not None}


def _plain(value: object) -> bool | float | str:
    match value:
        case bool() | int() | float() | str():
            return value
    try:
        return inline(value)
    except (TypeError, ConfigError):
        return str(value)


def sweep_of(run: Path) -> str:
    """The name of the sweep whose trial a run is, or whose trial it is a stage of; empty for any other run."""
    above = run.absolute().parents[:2]
    return next((folder.name for folder in above if (folder / SWEEP).is_file()), "")
