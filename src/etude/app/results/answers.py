"""What two runs have answered to the same samples, as their saved outputs tell, and metrics of it sample by sample."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np

from etude.base.errors import ConfigError, StorageError
from etude.base.files import json_or_empty, storage
from etude.base.regular import reading
from etude.callbacks.config import is_installed
from etude.callbacks.outputs import INDEX, OUTPUTS
from etude.callbacks.tables import PARQUET
from etude.metrics.edit_distance import edits
from etude.metrics.significance import Sums
from etude.metrics.text import TEXT_METRICS

Answer = Mapping[str, Any]
"""A row of saved outputs: `sample`, `target`, `prediction`, `loss` and what a task adds."""


def answers_of(run: Path, split: str) -> dict[object, Answer] | None:
    """The saved outputs of a split by sample; None where none are saved. Raises StorageError for a damaged file."""
    entry = json_or_empty(run / OUTPUTS / INDEX).get(split)
    name = str(entry.get("file")) if isinstance(entry, Mapping) else ""
    path = run / OUTPUTS / name
    if not name or Path(name).name != name or not path.is_file():
        return None
    rows = _of_parquet(path) if path.suffix == PARQUET else _of_lines(path)
    return {row.get("sample"): row for row in rows}


def _of_lines(path: Path) -> list[Answer]:
    with storage("read", path), reading(path) as file:
        content = file.read()
    try:
        rows = [json.loads(line) for line in content.splitlines()]
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{path} is damaged: {error}.") from error
    return [row for row in rows if isinstance(row, dict)]


def _of_parquet(path: Path) -> list[Answer]:
    if not is_installed("pyarrow"):
        raise ConfigError(f"{path} needs pyarrow, which is not installed: run pip install 'etude[outputs]'.")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[Answer] = pq.ParquetFile(path).read().to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise StorageError(f"{path} is damaged: {' '.join(str(error).split())}.") from error
    return rows


@final
@dataclass(frozen=True)
class Shared:
    """The samples that two runs have both answered, in one order."""

    first: Sequence[Answer]
    second: Sequence[Answer]
    left_out: int
    """Samples that only one of them has."""

    @classmethod
    def of(cls, first: Mapping[object, Answer], second: Mapping[object, Answer]) -> "Shared":
        """Join by sample. Raises ConfigError where a sample has another target in one than in the other."""
        both = [sample for sample in first if sample in second]
        for sample in both:
            if first[sample].get("target") != second[sample].get("target"):
                raise ConfigError(
                    f"The saved outputs are of other data: sample {sample} has another target in one run than in the "
                    f"other."
                )
        left_out = len(first) + len(second) - 2 * len(both)
        return cls([first[sample] for sample in both], [second[sample] for sample in both], left_out)

    @cached_property
    def targets(self) -> list[Any]:
        """The target of each sample."""
        return [answer.get("target") for answer in self.first]

    def texts(self) -> "tuple[list[str], list[str], list[str]] | None":
        """Predictions of both and the targets, of samples where all three are texts; None where there are none."""
        rows = zip(self.first, self.second, self.targets, strict=True)
        found = [(one.get("prediction"), other.get("prediction"), target) for one, other, target in rows]
        texts = [row for row in found if all(isinstance(part, str) for part in row)]
        return tuple(map(list, zip(*texts, strict=True))) if texts else None  # type: ignore[return-value]

    def both(self, measure: "Measure") -> tuple[Sums, Sums] | None:
        """A metric of both runs over the samples that can be measured in both; None where that is none."""
        pairs = [(measure(one), measure(other)) for one, other in zip(self.first, self.second, strict=True)]
        kept = [(one, other) for one, other in pairs if one is not None and other is not None]
        if not kept:
            return None
        first, second = np.asarray(kept, dtype=np.float64).transpose(1, 2, 0)
        return Sums(*first), Sums(*second)


Measure = Callable[[Answer], "tuple[float, float] | None"]
"""What a sample adds to the two sums of a metric; None where it cannot be measured."""


def _loss(answer: Answer) -> tuple[float, float] | None:
    """The loss, weighed by the tokens where the outputs have them."""
    loss, tokens = answer.get("loss"), answer.get("tokens")
    match loss, tokens:
        case float() | int(), float() | int():
            return loss * tokens, tokens
        case float() | int(), None:
            return loss, 1.0
    return None


def _accuracy(answer: Answer) -> tuple[float, float] | None:
    prediction, target = answer.get("prediction"), answer.get("target")
    if prediction is None or target is None:
        return None
    return float(prediction == target), 1.0


def _edits(split: Callable[[str], Sequence[str]]) -> Measure:
    def measure(answer: Answer) -> tuple[float, float] | None:
        match answer.get("prediction"), answer.get("target"):
            case str(prediction), str(target):
                counted = edits(split(target), split(prediction))
                return counted.errors, counted.reference
        return None

    return measure


def _error(power: int) -> Measure:
    def measure(answer: Answer) -> tuple[float, float] | None:
        match answer.get("prediction"), answer.get("target"):
            case (float() | int()) as prediction, (float() | int()) as target:
                return abs(prediction - target) ** power, 1.0
        return None

    return measure


MEASURES: Mapping[str, Measure] = {
    "loss": _loss,
    "accuracy": _accuracy,
    "wer": _edits(str.split),
    "cer": _edits(list),
    "mse": _error(2),
    "mae": _error(1),
}
"""Metrics that are one sum over another, sample by sample."""


def measurable(names: Sequence[str]) -> list[str]:
    """Those metrics of runs (`val/loss`, `val/bleu`) that their outputs can be measured by, in short."""
    short = dict.fromkeys(name.rpartition("/")[2] for name in names)
    return [name for name in short if name in MEASURES or name in TEXT_METRICS]
