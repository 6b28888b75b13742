"""Warm-ups that a run is too short for."""

import math
from collections.abc import Iterator, Mapping

from etude.base.durations import Duration
from etude.base.errors import ConfigError
from etude.base.horizon import Horizon


def long_warm_ups(config: Mapping[str, object], horizon: Horizon, key: str = "") -> Iterator[str]:
    """A sentence for each schedule of a composed config whose warm-up the run ends before."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            place = f"{key}{name}"
            yield from _too_long(value, horizon, place)
            yield from long_warm_ups(value, horizon, f"{place}.")


def _too_long(table: Mapping[str, object], horizon: Horizon, key: str) -> Iterator[str]:
    warmup = table.get("warmup", "0 steps") if "schedule" in table else "0 steps"
    steps, whole = _steps(warmup, horizon, key), horizon.steps or math.inf
    if steps > whole:
        yield (
            f"{key}.warmup is {warmup}, but the run has {whole:,.0f} steps: it ends before the peak, at "
            f"{100 * whole / steps:.0f} % of the warm-up."
        )


def _steps(warmup: object, horizon: Horizon, key: str) -> float:
    """A warm-up in steps; 0 where that is not known, which binding the schedule tells of."""
    try:
        return horizon.in_steps(Duration.parse(warmup, zero=True), key)
    except (ConfigError, ValueError):
        return 0.0
