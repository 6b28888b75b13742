"""Which source the next row is drawn from, where several are mixed by weight."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etude.base.errors import ConfigError
from etude.base.randomness import generator

WINDOW = 256
"""Draws that are put into a random order together."""


def total_of(weights: Sequence[float]) -> float:
    """The sum of the weights of an epoch. Raises ConfigError where nothing can be drawn."""
    total = sum(weights)
    if total <= 0:
        raise ConfigError("The weights of data.train are all 0 in an epoch: one of them must stay above 0.")
    return total


class Mixing:
    """Draws of sources in proportion to `weights`, exactly so up to one draw after every `WINDOW` of them.

    Each draw of a window is the source that lags most behind its share (smooth weighted round robin); then the window
    is shuffled. `at` is where another one stood.
    """

    def __init__(self, weights: Sequence[float], *, seed: int, epoch: int, at: Mapping[str, Any] | None) -> None:
        total = total_of(weights)
        self._shares = np.array([weight / total for weight in weights])
        self._seed, self._epoch = seed, epoch
        at = at or {"window": 0, "place": 0, "counts": [0] * len(weights)}
        self._window, self._place = at["window"], at["place"]
        self._counts = np.array(at["counts"], dtype=np.int64)
        self._drawn = self._draw()

    @property
    def at(self) -> dict[str, Any]:
        """Where it stands: `counts` are the draws of each source before its window."""
        return {"window": self._window, "place": self._place, "counts": self._counts.tolist()}

    def take(self, count: int) -> NDArray[np.int64]:
        """Give the sources of the next `count` draws: [count]."""
        parts = []
        while count:
            part = self._drawn[self._place : self._place + count]
            parts.append(part)
            count -= len(part)
            self._place += len(part)
            if self._place == WINDOW:
                self._counts += np.bincount(self._drawn, minlength=len(self._counts))
                self._window, self._place = self._window + 1, 0
                self._drawn = self._draw()
        return np.concatenate(parts)

    def _draw(self) -> NDArray[np.int64]:
        counts = self._counts.astype(np.float64)
        drawn = np.empty(WINDOW, dtype=np.int64)
        for place in range(WINDOW):
            number = self._window * WINDOW + place + 1
            lag = np.where(self._shares > 0, self._shares * number - counts, -np.inf)
            drawn[place] = source = int(lag.argmax())
            counts[source] += 1
        generator(self._seed, "mixture", self._epoch, self._window).shuffle(drawn)
        return drawn
