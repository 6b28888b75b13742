"""The scale of gradient noise, from which a critical batch size follows (McCandlish et al. 2018)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLED: Final = 2000
"""Times that the measurements are drawn again for the interval."""
LEVEL: Final = 95.0
"""Percent of those between its ends."""


class Measured(NamedTuple):
    """Squared norms of gradients of two sizes of batches, at the same weights."""

    small: float
    """The mean squared norm of the gradients of some small batches ..."""
    big: float
    """... and the squared norm of the mean of the same gradients, which is that of one large batch."""


@dataclass(frozen=True)
class NoiseScale:
    """The simple noise scale tr(S) / |G|^2, in small batches, with its interval."""

    value: float
    """Infinite where the measured gradients hold no more than noise."""
    low: float
    high: float


def noise_scale(measured: Sequence[Measured], size: int, *, seed: int = 1) -> NoiseScale:
    """Estimate the noise scale from measurements of which each had `size` small batches; at least two of them.

    With b = 1 small batch and B = `size`, |G|^2 = (B big - b small) / (B - b) and tr(S) = (small - big) / (1/b - 1/B)
    are without bias (McCandlish et al. 2018, "An Empirical Model of Large-Batch Training", appendix A.1). Both are
    averaged over the measurements before the ratio is taken. The interval holds the middle `LEVEL` percent of the
    ratios of measurements drawn again with replacement (Efron 1979).
    """
    table = np.array(measured, dtype=np.float64)
    small, big = table[:, 0], table[:, 1]
    signal = (size * big - small) / (size - 1)
    noise = (small - big) / (1 - 1 / size)
    draws = np.random.default_rng(seed).integers(len(table), size=(RESAMPLED, len(table)))
    ratios = _ratio(noise[draws].mean(1), signal[draws].mean(1))
    low, high = np.quantile(ratios, [(100 - LEVEL) / 200, (100 + LEVEL) / 200], method="inverted_cdf")
    return NoiseScale(float(_ratio(noise.mean(), signal.mean())), float(low), float(high))


def _ratio(noise: NDArray[np.float64], signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Noise over signal; infinite where no signal is left."""
    safe = np.where(signal > 0, signal, 1.0)
    ratio: NDArray[np.float64] = np.where(signal > 0, np.maximum(noise, 0.0) / safe, math.inf)
    return ratio
