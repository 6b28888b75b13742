"""Arrays with labels or numbers: the mean and deviation of their features, and a table of both.

Shapes: T places of a sequence, F features.
"""

import hashlib
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self, final

import numpy as np

from etude.base.errors import DataError
from etude.base.says import Say, unheard
from etude.data.files.arrays import ArraySource
from etude.data.files.lines import Flaw, shown
from etude.data.files.records import Row
from etude.data.files.skipped import Policy
from etude.data.store.columns import Array, Column, Part, frames, text
from etude.data.store.table import Chunk, Table, Wanted, prepare_table
from etude.data.store.targets import GROUP, Targets

ARRAY = "array"
"""The column of such a table that holds standardised features."""
CHUNK_SAMPLES = 256
FORMAT = 1


@final
@dataclass(frozen=True)
class Features:
    """What the training data has of each feature."""

    means: tuple[float, ...]
    deviations: tuple[float, ...]
    """1 where a feature is constant."""

    @classmethod
    def learned(cls, source: ArraySource) -> Self:
        """Those of all places of the arrays that can be used. Raises DataError where there is none."""
        arrays = [one for one in source.arrays(0, len(source.records)) if not isinstance(one, Flaw)]
        if not arrays:
            raise DataError(f"{shown(source.records.place(0)[0])} holds no array that can be used.")
        places = np.concatenate([one for one in arrays if one.shape[1] == arrays[0].shape[1]])
        deviations = [float(one) or 1.0 for one in places.std(0)]
        return cls(tuple(places.mean(0).tolist()), tuple(deviations))

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """What `plain` gave. Raises KeyError or TypeError where it is damaged."""
        return cls(tuple(plain["means"]), tuple(plain["deviations"]))

    def plain(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self)

    @cached_property
    def _both(self) -> tuple[Array, Array]:
        return np.array(self.means), np.array(self.deviations)

    def standard(self, array: Array) -> Array | Flaw:
        """Features [T, F] less their means, over their deviations, in float32."""
        if array.shape[1] != len(self.means):
            return Flaw(f"the array has {array.shape[1]} features, but those of training have {len(self.means)}")
        means, deviations = self._both
        return ((array - means) / deviations).astype(np.float32)


class _Sample(NamedTuple):
    array: Array
    target: Any
    group: str


def prepare_arrays(
    source: ArraySource,
    features: Features,
    targets: Targets,
    cache: Path,
    policy: Policy,
    *,
    by: str | None = None,
    notice: Say = unheard,
) -> Table:
    """Write standardised arrays into the folder `cache`, or open what an earlier call has made of the same content.

    `by` names a column that is kept as text. Raises as `prepare_table` does.
    """
    encoder = _Encoder(source, features, targets, by)
    parts = [FORMAT, source.fingerprint(), policy.skips, by, features.plain(), targets.plain()]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    wanted = Wanted(key, encoder.columns, source.records, policy)
    return prepare_table("arrays", wanted, cache, encoder.chunks, notice=notice)


class _Encoder:
    """Makes rows of samples."""

    def __init__(self, source: ArraySource, features: Features, targets: Targets, by: str | None) -> None:
        self._source, self._features, self._targets = source, features, targets
        self._labels = [source.records.column(name, "data.label") for name in targets.columns]
        self._by = None if by is None else source.records.column(by, "task.by")
        groups = [] if by is None else [text(GROUP)]
        self.columns: list[Column] = [frames(ARRAY, len(features.means)), targets.stored, *groups]

    def chunks(self) -> Generator[Chunk, None, None]:
        """Give all samples, in order."""
        total = len(self._source.records)
        rows = enumerate(zip(self._source.arrays(0, total), self._source.records.rows(0, total), strict=True))
        for start in range(0, total, CHUNK_SAMPLES):
            yield self._chunk(rows, min(CHUNK_SAMPLES, total - start))

    def _chunk(self, rows: Iterator[tuple[int, tuple[Array | Flaw, Row | Flaw]]], count: int) -> Chunk:
        samples: list[_Sample] = []
        flaws: list[tuple[int, Flaw]] = []
        for _ in range(count):
            index, (array, row) = next(rows)
            match self._sample(array, row):
                case Flaw() as flaw:
                    flaws.append((index, flaw))
                case sample:
                    samples.append(sample)
        return Chunk(self._parts(samples), flaws)

    def _sample(self, array: Array | Flaw, row: Row | Flaw) -> _Sample | Flaw:
        if isinstance(row, Flaw):
            return row
        standard = array if isinstance(array, Flaw) else self._features.standard(array)
        if isinstance(standard, Flaw):
            return standard
        target = self._targets.encode([row[place] for place in self._labels])
        group = "" if self._by is None else row[self._by] or ""
        return target if isinstance(target, Flaw) else _Sample(standard, target, group)

    def _parts(self, samples: Sequence[_Sample]) -> list[Part]:
        lengths = np.array([len(sample.array) for sample in samples], dtype=np.int32)
        empty = np.zeros((0, len(self._features.means)), dtype=np.float32)
        arrays = Part(np.concatenate([empty, *(sample.array for sample in samples)]), lengths)
        parts = [arrays, self._targets.part([sample.target for sample in samples])]
        return parts if self._by is None else [*parts, Part.of_texts([sample.group for sample in samples])]
