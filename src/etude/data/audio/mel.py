"""The tables of feature extraction: windows, mel filters, cosine transform; all as Kaldi has them.

Legend: S samples of a window, K frequencies of a spectrum, M mel bins, C coefficients.
"""

import math
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from etude.base.errors import ConfigError
from etude.data.audio.config import FeaturesConfig

Floats = NDArray[np.float64]

_POVEY: Final = 0.85
_HAMMING: Final = 0.54
_KNEE: Final = 80.0
"""Hz above the lowest frequency up to which a warp is bent, so that the lowest stays: Kaldi's 100 with its 20."""
_SHOULDER: Final = 500.0
"""The same below the highest frequency."""


def window(shape: str, size: int) -> Tensor:
    """Give a symmetric window, float32 [S]."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / max(size - 1, 1))
    shapes = {
        "povey": hann**_POVEY,
        "hann": hann,
        "hamming": _HAMMING + (1 - _HAMMING) * (2 * hann - 1),
        "rectangular": np.ones(size),
    }
    return torch.from_numpy(shapes[shape]).float()


def mel(hertz: Floats) -> Floats:
    """Give the mel scale's value of frequencies in Hz: 1127 ln(1 + f / 700)."""
    return 1127.0 * np.log1p(hertz / 700.0)


def hertz(mels: Floats) -> Floats:
    """Give the frequencies in Hz of values of the mel scale."""
    return 700.0 * np.expm1(mels / 1127.0)


def warped(frequencies: Floats, warp: float, low: float, high: float) -> Floats:
    """Divide frequencies in Hz by `warp`, bent near both ends so that `low` and `high` stay where they are.

    Kaldi's piecewise linear function (`VtlnWarpFreq`), with its knees 80 Hz above `low` and 500 Hz below `high`.
    """
    first = (low + _KNEE) * max(1.0, warp)
    last = (high - _SHOULDER) * min(1.0, warp)
    return np.interp(frequencies, [low, first, last, high], [low, first / warp, last / warp, high])


def mel_bank(config: FeaturesConfig, rate: int, fft: int, warp: float = 1.0) -> Tensor:
    """Give the mel filters, float32 [K, M] with K = fft / 2 + 1; the highest frequency is in none of them.

    A filter without any frequency is refused, unless a warp makes it so narrow: then it takes the nearest. Raises
    ConfigError for that, and for frequencies beyond half of the rate.
    """
    low, high = frequencies(config, rate)
    lowest, highest = mel(np.array([low, high]))
    edges = np.linspace(lowest, highest, config.mel_bins + 2)
    if warp != 1.0:
        edges = mel(warped(hertz(edges), warp, low, high))
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    places = mel(np.arange(fft // 2) * rate / fft)[:, None]
    rising, falling = (places - left) / (centre - left), (right - places) / (right - centre)
    bank = np.maximum(0.0, np.minimum(rising, falling))
    empty = np.flatnonzero(bank.sum(0) == 0)
    if empty.size and warp == 1.0:
        raise ConfigError(
            f"data.features.mel_bins must be smaller at {rate:,} Hz, but is {config.mel_bins}: "
            f"no frequency of a spectrum of {fft} points falls into {len(empty)} of them."
        )
    bank[np.abs(places - centre[empty]).argmin(0), empty] = 1.0
    return torch.from_numpy(np.concatenate([bank, np.zeros((1, config.mel_bins))])).float()


def frequencies(config: FeaturesConfig, rate: int) -> tuple[float, float]:
    """Give where the filters begin and end, in Hz. Raises ConfigError for what the rate does not allow."""
    half = rate / 2
    low, high = config.low_frequency, config.high_frequency
    if high <= 0:
        high += half
    if not low < high <= half:
        raise ConfigError(
            f"data.features.high_frequency must lie above {low:g} Hz and at most at {half:g} Hz, half of the rate, "
            f"but is {high:g} Hz."
        )
    return low, high


def cosines(config: FeaturesConfig) -> Tensor:
    """Give the orthonormal cosine transform with its lifter, float32 [M, C]."""
    orders, bins = np.arange(config.coefficients), config.mel_bins
    table = math.sqrt(2 / bins) * np.cos(np.pi / bins * (np.arange(bins)[:, None] + 0.5) * orders)
    table[:, 0] = math.sqrt(1 / bins)
    if config.lifter:
        table *= 1 + config.lifter / 2 * np.sin(np.pi * orders / config.lifter)
    return torch.from_numpy(table).float()
