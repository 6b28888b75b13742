"""SpecAugment: stretches of time and of features are set to 0, which is the mean of what is normalised.

Widths and numbers go by the recording's own length, so that it is masked alone as beside others. Legend: T frames,
F features.
"""

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Ints: TypeAlias = NDArray[np.int64]

LONG = 100
"""Frames for each of which the adaptive policy may have more masks."""


class Masks(NamedTuple):
    """How many masks there are and how wide they may be; numbers of masks are rounded."""

    time_masks: float = 2.0
    time_share: float = 0.1
    """The share of the recording that a mask over time covers at most."""
    frequency_masks: float = 2.0
    frequency_bins: float = 8.0
    """How many features a mask covers at most."""
    time_frames: int = 20
    """The adaptive policy: how many frames a mask covers at most."""


def fixed(features_TF: Tensor, masks: Masks, chance: np.random.Generator) -> Tensor:
    """Mask so many stretches of each kind, each from nothing to the most wide (Park et al. 2019), in a copy."""
    frames, width = features_TF.shape
    return _masked(
        features_TF,
        _inside(round(masks.time_masks), frames, int(masks.time_share * frames), chance),
        _inside(round(masks.frequency_masks), width, min(width, int(masks.frequency_bins)), chance),
    )


def adaptive(features_TF: Tensor, masks: Masks, chance: np.random.Generator) -> Tensor:
    """Mask a number of stretches that is drawn, and of those over time more in long recordings, in a copy.

    With m = `time_masks`, from m // 2 to m * max(T // 100, 2) masks over time; with m = `frequency_masks`, from m // 2
    to m + 1 over features; no two begin at one place, and each is at least 1 wide. This is RETURNN's specaugment, which
    steps m through 1, 2 and 4 in the first 2,000 steps, but for `time_share`, which also bounds its widths.
    """
    frames, width = features_TF.shape
    times, bins = round(masks.time_masks), round(masks.frequency_masks)
    longest = min(masks.time_frames, int(masks.time_share * frames))
    most = min(frames, times * max(frames // LONG, 2))
    return _masked(
        features_TF,
        _anywhere(_drawn(min(frames, times // 2), most, chance), frames, longest, chance),
        _anywhere(_drawn(bins // 2, min(width, bins + (bins > 0)), chance), width, int(masks.frequency_bins), chance),
    )


def _drawn(least: int, most: int, chance: np.random.Generator) -> int:
    return int(chance.integers(min(least, most), most, endpoint=True))


def _inside(count: int, size: int, most: int, chance: np.random.Generator) -> Ints:
    """Draw where stretches inside of `size` places begin and end, [count, 2]."""
    wide, early = chance.random((2, count))
    widths = (wide * (most + 1)).astype(np.int64)
    starts = (early * (size - widths + 1)).astype(np.int64)
    return np.stack([starts, starts + widths], 1)


def _anywhere(count: int, size: int, most: int, chance: np.random.Generator) -> Ints:
    """Draw different places where stretches begin, and where they end, perhaps beyond the last place; [count, 2]."""
    if most < 1:
        return np.empty((0, 2), dtype=np.int64)
    starts = chance.permutation(size)[:count]
    return np.stack([starts, starts + chance.integers(1, most, count, endpoint=True)], 1)


def _masked(features_TF: Tensor, times: Ints, bins: Ints) -> Tensor:
    masked_TF = features_TF.clone()
    for start, end in times.tolist():
        masked_TF[start:end] = 0
    for start, end in bins.tolist():
        masked_TF[:, start:end] = 0
    return masked_TF
