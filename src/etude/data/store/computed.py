"""A corpus of any size that occupies no memory: its ids are computed, for measuring what a real one would cost."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class ComputedTable:
    """`n` pairs, 4 to 35 tokens a side and alike in both, every id a function of its sample and place."""

    def __init__(self, n: int, vocabulary: int = 8000) -> None:
        self._n = n
        self._vocabulary = vocabulary

    def __len__(self) -> int:
        return self._n

    def lengths(self, side: str) -> "ComputedLengths":
        """Give the lengths of a side, computed where they are asked for."""
        return ComputedLengths(side)

    def total(self, side: str) -> int | None:
        """Give nothing: all ids would have to be computed."""
        del side
        return None

    def origin(self, row: int) -> int:
        """Give which sample a row is."""
        return row

    def gather(self, side: str, indices: Ints) -> tuple[Ints, Ints]:
        """Give the ids of the samples one after another, and how many each has."""
        lengths = ComputedLengths(side)[indices]
        places = np.arange(int(lengths.sum()))
        return 4 + (np.repeat(indices, lengths) * 31 + places) % (self._vocabulary - 4), lengths


class ComputedLengths:
    """What a mapped file of lengths answers, by arithmetic."""

    def __init__(self, side: str) -> None:
        self._target = side == "target"

    def __getitem__(self, indices: NDArray[Any]) -> Ints:
        mixed = np.asarray(indices, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        # The sum of two draws: most lengths in the middle; the target is up to two tokens longer or shorter.
        base = (mixed >> np.uint64(60)) + ((mixed >> np.uint64(40)) & np.uint64(15))
        lengths = 4 + base.astype(np.int64)
        if self._target:
            lengths = np.maximum(lengths + ((mixed >> np.uint64(20)) % np.uint64(5)).astype(np.int64) - 2, 1)
        return lengths
