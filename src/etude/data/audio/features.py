"""Log-mel energies and cepstral coefficients of many recordings at once, by the conventions of Kaldi.

Frames of all recordings lie one after another: nothing is padded, so none sees another, nor a length that is not its
own. Legend: N frames of all recordings, S samples of a window, K frequencies, M mel bins, F features.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Final, NamedTuple, TypeVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from etude.base.errors import ConfigError, DataError
from etude.base.randomness import generator
from etude.data.audio import mel
from etude.data.audio.config import FeaturesConfig

FLOOR: Final = float(np.finfo(np.float32).eps)
"""Energies are not taken below this before the logarithm: Kaldi's."""
WARP_STEP: Final = 0.01
"""Vocal-tract warps are rounded to this, so that few tables of filters are made."""
_AT_ONCE: Final = 256
"""Frames: what is computed between two steps then stays in the processor's cache, in memory that is used again."""
_LEAST: Final = 8
"""Rows that are multiplied at least: libraries have kernels of their own for fewer."""
_DITHER: Final = 1 << 16
"""Samples after which the noise of `dither` is the same again."""

Count = TypeVar("Count", int, NDArray[np.int64], Tensor)


class Run(NamedTuple):
    """Frames one after the other that share their filters."""

    frames: int
    warp: float


def frames_of(samples: Count, window: int, shift: int) -> Count:
    """Give how many whole windows of samples there are: a number, an array or a tensor.

    >>> [frames_of(samples, 400, 160) for samples in (0, 399, 400, 559, 560, 16000)]
    [0, 0, 1, 1, 2, 98]
    """
    frames = (samples - window + shift) // shift
    return frames * (frames > 0)


@final
class Extractor:
    """Computes features of recordings at one rate, as float32, on one device.

    Equals Kaldi's `compute-fbank-feats` and `compute-mfcc-feats`. Raises ConfigError for options that the rate does
    not allow.
    """

    def __init__(self, config: FeaturesConfig, rate: int, device: torch.device | str = "cpu") -> None:
        self.config = config
        self.rate = rate
        self.window = int(rate * 0.001 * config.window)
        """Samples of a frame."""
        self.shift = int(rate * 0.001 * config.shift)
        """Samples from one frame to the next."""
        if self.window <= 1 or self.shift < 1:
            raise ConfigError(
                f"data.features.window and data.features.shift must be at least two samples and one, but are "
                f"{self.window} and {self.shift} at {rate:,} Hz."
            )
        self._fft = 1 << (self.window - 1).bit_length()
        self._device = torch.device(device)
        self._window_S = mel.window(config.window_type, self.window).to(device)
        self._cosines_MC = mel.cosines(config).to(device)
        self._banks = {1.0: mel.mel_bank(config, rate, self._fft).to(device)}
        self._dither = torch.from_numpy(generator(0, "dither").standard_normal(_DITHER, np.float32)).to(device)

    def __str__(self) -> str:
        config = self.config
        kinds = {"logmel": "log-mel energies", "mfcc": f"cepstral coefficients of {config.mel_bins} mel bins"}
        scaled = "as they are" if config.scale == 1 else f"times {config.scale:g}"
        return (
            f"{config.width} {kinds[config.type]} of {config.window:g} ms every {config.shift:g} ms at "
            f"{self.rate:,} Hz, samples {scaled}"
        )

    def frames_of(self, samples: Count) -> Count:
        """Give how many frames recordings of so many samples have: a number, an array or a tensor."""
        return frames_of(samples, self.window, self.shift)

    def extract(self, waves: Sequence[Tensor], warps: Sequence[float] | None = None) -> tuple[Tensor, list[int]]:
        """Give the features of all frames, float32 [N, F], and how many frames each recording has.

        A wave holds samples between -1 and 1, [samples]. `warps` has the vocal-tract factor of each: above 1, filters
        move down, as Kaldi's do. Raises DataError for a wave that is no vector of floating-point numbers.
        """
        for wave in waves:
            _check(wave)
        counts = [self.frames_of(wave.numel()) for wave in waves]
        starts_N, flat = self._laid(waves, counts)
        features_NF = flat.new_empty(len(starts_N), self.config.width)
        runs = _runs(counts, warps)
        for first in range(0, len(starts_N), _AT_ONCE):
            piece = slice(first, min(first + _AT_ONCE, len(starts_N)))
            frames_NS = flat.unfold(0, self.window, 1).index_select(0, starts_N[piece])
            features_NF[piece] = self._features(frames_NS, list(_inside(runs, piece)))
        return features_NF, counts

    def _laid(self, waves: Sequence[Tensor], counts: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Lay all samples end to end, scaled; give where each frame starts there, and the samples."""
        lengths = np.array([wave.numel() for wave in waves], dtype=np.int64)
        starts_N = np.repeat(np.cumsum(lengths) - lengths, counts) + self.shift * within(counts)
        if not len(starts_N):
            return torch.zeros(0, dtype=torch.long, device=self._device), torch.zeros(self.window, device=self._device)
        flat = torch.cat([wave.to(self._device, torch.float32) for wave in waves])
        if self.config.scale != 1:
            flat *= self.config.scale
        if self.config.dither:
            places = torch.from_numpy(within(lengths) % _DITHER).to(self._device)
            flat += self.config.dither * self._dither[places]
        return torch.from_numpy(starts_N).to(self._device), flat

    def _bank(self, warp: float) -> Tensor:
        if warp not in self._banks:
            self._banks[warp] = mel.mel_bank(self.config, self.rate, self._fft, warp).to(self._device)
        return self._banks[warp]

    def _features(self, frames_NS: Tensor, runs: Sequence[Run]) -> Tensor:
        """Compute features of frames, which are changed in place."""
        config = self.config
        if config.remove_dc:
            frames_NS -= frames_NS.mean(1, keepdim=True)
        parts = torch.split(self._power(frames_NS), [run.frames for run in runs])
        energies = [_product(power_NK, self._bank(run.warp)) for power_NK, run in zip(parts, runs, strict=True)]
        logs_NM = torch.cat(energies).clamp_(min=FLOOR).log_()
        if config.type == "logmel":
            return logs_NM
        coefficients_NC = _product(logs_NM, self._cosines_MC)
        if config.energy:
            coefficients_NC[:, 0] = frames_NS.square().sum(1).clamp_(min=FLOOR).log_()
        return coefficients_NC

    def _power(self, frames_NS: Tensor) -> Tensor:
        """Give the power spectra after preemphasis and window, [N, K]."""
        windowed_NS = frames_NS * self._window_S
        if self.config.preemphasis:
            taken_S = self._window_S * self.config.preemphasis
            windowed_NS[:, 1:] -= frames_NS[:, :-1] * taken_S[1:]
            windowed_NS[:, 0] -= frames_NS[:, 0] * taken_S[0]
        spectra_NK = torch.fft.rfft(windowed_NS, n=self._fft)
        squares_NK2 = torch.view_as_real(spectra_NK).square_()
        return squares_NK2[..., 0] + squares_NK2[..., 1]


@final
class StreamExtractor:
    """Computes features of one recording as its samples come; a frame is given once its last sample is there.

    What it gives, end to end, is what `extract` gives of the whole.
    """

    def __init__(self, extractor: Extractor, warp: float = 1.0) -> None:
        if extractor.config.dither:
            raise ConfigError("data.features.dither must be 0 where audio comes as a stream.")
        self._extractor = extractor
        self._warp = warp
        self._kept = torch.zeros(0)
        self._passed = 0
        """Samples that come before the next frame, of which none has them: its window is shorter than the shift."""

    def push(self, samples: Tensor) -> Tensor:
        """Take more samples, [samples]; give the frames that are complete now, float32 [N, F]."""
        _check(samples)
        joined = torch.cat([self._kept, samples.cpu().float()])
        self._kept, self._passed = joined[self._passed :], max(0, self._passed - len(joined))
        features_NF, (frames,) = self._extractor.extract([self._kept], [self._warp])
        used = frames * self._extractor.shift
        self._passed += max(0, used - len(self._kept))
        self._kept = self._kept[used:].clone()
        return features_NF


def within(lengths: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Count from 0 inside each of some stretches that lie end to end.

    >>> within([2, 0, 3]).tolist()
    [0, 1, 0, 1, 2]
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    return np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def _runs(counts: Sequence[int], warps: Sequence[float] | None) -> list[Run]:
    """Give how many frames come with one warp, and which; the warps rounded."""
    if warps is None:
        return [Run(sum(counts), 1.0)]
    rounded = [round(round(warp / WARP_STEP) * WARP_STEP, 6) for warp in warps]
    runs = groupby(zip(rounded, counts, strict=True), key=itemgetter(0))
    return [Run(sum(frames for _, frames in members), warp) for warp, members in runs]


def _inside(runs: Sequence[Run], piece: slice) -> Iterator[Run]:
    """Cut runs to a piece of all frames."""
    end = 0
    for frames, warp in runs:
        begin, end = end, end + frames
        inside = min(end, piece.stop) - max(begin, piece.start)
        if inside > 0:
            yield Run(inside, warp)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Multiply two matrices; a few rows as more, so that a row has the same bits beside any number of others."""
    rows = len(left)
    if rows < _LEAST:
        left = torch.cat([left, left.new_zeros(_LEAST - rows, left.size(1))])
    return (left @ right)[:rows]


def _check(wave: Tensor) -> None:
    if wave.dim() != 1 or not wave.is_floating_point():
        raise DataError(
            "A wave must be a vector of floating-point samples between -1 and 1, "
            f"but is {wave.dtype} of shape {list(wave.shape)}."
        )
