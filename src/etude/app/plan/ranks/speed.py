"""How quick a rank is, as a run has measured it."""

import json
import math
import tomllib
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from etude.base.errors import ConfigError

METRICS, CONFIG = "metrics.jsonl", "config.toml"
KEY = "train/tokens_per_second"


def measured(folder: Path) -> float | None:
    """Targets that one rank of a run learnt from in a second: the median of its log lines; None where it has none.

    How many ranks there were is what its config says.
    """
    file = folder / METRICS
    if not file.is_file():
        return None
    found = list(_speeds(file))
    return median(found) / _ranks(folder / CONFIG) if found else None


def _ranks(config: Path) -> int:
    """How many processes a run was to have."""
    if not config.is_file():
        return 1
    with config.open("rb") as file:
        return int(tomllib.load(file).get("distributed", {}).get("processes", 1))


def _speeds(file: Path) -> Iterator[float]:
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            value = json.loads(line).get(KEY)
        except (ValueError, AttributeError):
            continue  # a line that is being written
        if isinstance(value, int | float) and math.isfinite(value) and value > 0:
            yield float(value)


def read_speed(given: str | None, own: Path) -> float | None:
    """The speed that `--speed` gives: a number, or the folder of a run; without it that of the run itself, if any."""
    if given is None:
        return measured(own)
    try:
        return float(given)
    except ValueError:
        found = measured(Path(given))
    if found is None:
        raise ConfigError(
            f"--speed must be tokens a second of one rank, or the folder of a run that has logged some, but is {given}."
        )
    return found
