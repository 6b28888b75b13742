"""Samples joined to longer ones: which, and with which pauses, drawn from (seed, epoch, sample) before any is read.

All is drawn for many samples at once, by a hash of where it stands, so that the lengths of an epoch are known to its
plan of batches. Connected digits are made so of single ones.
"""

from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from etude.base.randomness import uniform_each

Ints = NDArray[np.int64]


class Joining(NamedTuple):
    """How samples are joined."""

    least: int
    most: int
    """Parts of one, the first of which is the sample itself; the others are any of the same split."""
    pause: tuple[int, int]
    """Fewest and most places before each part and at the end, ends included."""


class Joined(NamedTuple):
    """Some joined samples, in order."""

    counts: Ints
    """[B]: parts of each."""
    parts: Ints
    """[sum of counts]: the samples that they are made of."""
    pauses: Ints
    """[sum of counts + B]: places before each part, and at the end of each sample."""


@final
class Joiner:
    """Draws the parts of samples for an epoch."""

    def __init__(self, joining: Joining, samples: int, seed: int, epoch: int) -> None:
        self._joining, self._samples = joining, samples
        self._seed, self._epoch = seed, epoch

    def of(self, indices: Ints) -> Joined:
        """Give the parts of some samples, the same whichever others are asked for with them."""
        least, most, (shortest, longest) = self._joining
        drawn = self._drawn(indices, 2 * most + 2)
        counts = least + _below(drawn[:, 0], most - least + 1)
        parts = _below(drawn[:, 1 : most + 1], self._samples)
        parts[:, 0] = indices
        pauses = shortest + _below(drawn[:, most + 1 :], longest - shortest + 1)
        places = np.arange(most + 1)
        return Joined(counts, parts[places[:most] < counts[:, None]], pauses[places <= counts[:, None]])

    def lengths(self, indices: Ints, lengths: Ints) -> Ints:
        """Give how many places samples have, of the `lengths` [N] of all: [B]."""
        joined = self.of(indices)
        owners = np.repeat(np.arange(len(indices)), joined.counts)
        ends = np.repeat(np.arange(len(indices)), joined.counts + 1)
        total = np.bincount(owners, weights=lengths[joined.parts], minlength=len(indices))
        total += np.bincount(ends, weights=joined.pauses, minlength=len(indices))
        return total.astype(np.int64)

    def _drawn(self, indices: Ints, each: int) -> NDArray[np.float64]:
        places = indices[:, None] * each + np.arange(each)
        return uniform_each(places, self._seed, "joined", self._epoch)


def _below(drawn: NDArray[np.float64], size: int) -> Ints:
    """Turn numbers in [0, 1) into whole ones below `size`."""
    return (drawn * size).astype(np.int64)
