"""SpecAugment: stretches of time and of features are set to 0, which is the mean of what is normalised.

Widths and numbers go by the recording's own length, so that it is masked alone as beside others. Legend: T frames,
F features.
"""

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]
Stretches: TypeAlias = list[tuple[int, int]]
"""Where each begins and ends."""

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


def fixed(features_TF: Floats, masks: Masks, chance: np.random.Generator) -> None:
    """Mask so many stretches of each kind, each from nothing to the most wide (Park et al. 2019), in place."""
    frames, width = features_TF.shape
    _mask(
        features_TF,
        _inside(round(masks.time_masks), frames, int(masks.time_share * frames), chance),
        _inside(round(masks.frequency_masks), width, min(width, int(masks.frequency_bins)), chance),
    )


def adaptive(features_TF: Floats, masks: Masks, chance: np.random.Generator) -> None:
    """Mask a number of stretches that is drawn, and of those over time more in long recordings, in place.

    With m = `time_masks`, from m // 2 to m * max(T // 100, 2) masks over time; with m = `frequency_masks`, from m // 2
    to m + 1 over features; no two begin at one place, and each is at least 1 wide. This is RETURNN's specaugment, which
    steps m through 1, 2 and 4 in the first 2,000 steps, but for `time_share`, which also bounds its widths.
    """
    frames, width = features_TF.shape
    times, bins = round(masks.time_masks), round(masks.frequency_masks)
    longest = min(masks.time_frames, int(masks.time_share * frames))
    most = min(frames, times * max(frames // LONG, 2))
    _mask(
        features_TF,
        _anywhere(_drawn(min(frames, times // 2), most, chance), frames, longest, chance),
        _anywhere(_drawn(bins // 2, min(width, bins + (bins > 0)), chance), width, int(masks.frequency_bins), chance),
    )


def _drawn(least: int, most: int, chance: np.random.Generator) -> int:
    return int(chance.integers(min(least, most), most, endpoint=True))


def _inside(count: int, size: int, most: int, chance: np.random.Generator) -> Stretches:
    """Draw stretches inside of `size` places."""
    wide, early = chance.random((2, count)).tolist()
    widths = [int(share * (most + 1)) for share in wide]
    starts = [int(share * (size - width + 1)) for share, width in zip(early, widths, strict=True)]
    return _stretches(starts, widths)


def _anywhere(count: int, size: int, most: int, chance: np.random.Generator) -> Stretches:
    """Draw stretches that begin at different places and perhaps end beyond the last one."""
    if most < 1:
        return []
    starts = chance.permutation(size)[:count].tolist()
    return _stretches(starts, chance.integers(1, most, count, endpoint=True).tolist())


def _stretches(starts: list[int], widths: list[int]) -> Stretches:
    return [(start, start + width) for start, width in zip(starts, widths, strict=True)]


def _mask(features_TF: Floats, times: Stretches, bins: Stretches) -> None:
    for start, end in times:
        features_TF[start:end] = 0
    for start, end in bins:
        features_TF[:, start:end] = 0
