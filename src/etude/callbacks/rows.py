"""The rows of a run as loggers take them: a step, and numbers by name."""

from collections.abc import Mapping

from etude.base.numbers import is_number

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
