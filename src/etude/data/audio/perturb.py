"""What is changed of samples in training: pure functions of a wave and of what is drawn.

Legend: S samples of a wave, K frequencies, T frames of a spectrum, P samples and W taps of a filter.
"""

import math
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from etude.base.randomness import generator, uniform_each

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

_HALF: Final = 8
"""Samples to either side that one sample of a resampled wave is made of."""
_PHASES: Final = 512
"""Places between two samples that filters are made for."""
_ROLLOFF: Final = 0.94
"""Where filters begin to fall, as a share of the highest frequency that they may keep."""
_AT_ONCE: Final = 1 << 12
_HOP: Final = 0.016
"""Seconds from one frame to the next where tempo is changed; each frame is twice as long."""
_SLACK: Final = 0.008
"""Seconds by which a frame may be taken earlier or later: more than half a period of a low voice."""
_LONG: Final = (2**16, 3**10)
"""Samples of the noises that stretches are taken of."""
_QUIET: Final = 1e-12


def drawn_factors(strength: float, samples: Ints, seed: int, *names: str | int) -> Floats:
    """Draw a factor for each sample's number, evenly on a logarithmic scale from 1 / (1 + strength) to 1 + strength.

    A sample's factor does not depend on which others are asked for.

    >>> drawn_factors(0.0, np.arange(2), 1, "speed").tolist()
    [1.0, 1.0]
    """
    if not strength:
        return np.ones(len(samples))
    factors: Floats = np.exp(math.log1p(strength) * (2 * uniform_each(samples, seed, *names) - 1))
    return factors


def length_after(samples: Ints | int, factors: Floats | float) -> Ints:
    """Give how many samples are left of so many at a speed: samples / factor, rounded to the nearest, a half up.

    At least 1 where there was one and the factor is less than 2.

    >>> length_after(np.array([0, 1, 8000]), np.array([1.1, 1.9, 1.25])).tolist()
    [0, 1, 6400]
    """
    return np.floor(np.asarray(samples) / factors + 0.5).astype(np.int64)


def resampled(wave_S: Tensor, factor: float) -> Tensor:
    """Play a wave faster by a factor, so that its length is `length_after` and its frequencies rise by the factor.

    Band-limited interpolation (Smith and Gossett 1984): each sample is a sum over sixteen with a windowed sinc, which
    takes off what would lie beyond half of the rate.
    """
    size = int(length_after(len(wave_S), factor))
    if factor == 1 or not size:
        return wave_S
    filters_PW = _filters(math.floor(min(1.0, 1 / factor) * 50) / 50).to(wave_S)
    windows_SW = F.pad(wave_S, (_HALF - 1, _HALF)).unfold(0, 2 * _HALF, 1)
    parts = []
    for first in range(0, size, _AT_ONCE):
        # Places need float64: over minutes, float32 cannot tell neighbouring samples apart.
        places = np.arange(first, min(size, first + _AT_ONCE)) * factor
        before = places.astype(np.int64)
        places -= before
        places *= _PHASES
        phases = places.astype(np.int64)
        taps_SW = windows_SW.index_select(0, torch.from_numpy(before).to(wave_S.device))
        taps_SW *= filters_PW.index_select(0, torch.from_numpy(phases).to(wave_S.device))
        parts.append(taps_SW.sum(1))
    return torch.cat(parts)


@lru_cache(maxsize=64)
def _filters(cutoff: float) -> Tensor:
    """Give the weights of neighbouring samples for each place between two, float32 [P, W]; each row adds up to 1."""
    middles = (np.arange(_PHASES)[:, None] + 0.5) / _PHASES
    distance = np.arange(1 - _HALF, _HALF + 1) - middles
    weights = np.sinc(_ROLLOFF * cutoff * distance) * np.cos(np.pi * distance / (2 * _HALF)) ** 2
    return torch.from_numpy(weights / weights.sum(1, keepdims=True)).float()


def retimed(wave_S: Tensor, factor: float, rate: int) -> Tensor:
    """Play a wave faster by a factor at the same pitch, so that its length is `length_after`.

    Frames of 32 ms are laid out anew, half over each other, each taken from where it goes on best from the one before
    it, within 8 ms of where the factor asks for it (WSOLA; Verhelst and Roelands 1993).
    """
    size = int(length_after(len(wave_S), factor))
    if factor == 1 or not size:
        return wave_S
    hop, slack = max(2, round(_HOP * rate)), max(1, round(_SLACK * rate))
    frames = -(-size // hop)
    wanted = (np.arange(frames) * (hop * factor)).astype(np.int64)
    filling = max(0, int(wanted[-1]) + 2 * (hop + slack) + hop - len(wave_S))
    padded = np.pad(wave_S.cpu().float().numpy(), (slack, filling))
    taken = padded[_alike(padded, wanted, hop, slack)[:, None] + np.arange(2 * hop)]
    rising = np.sin(np.arange(hop, dtype=np.float32) * np.float32(np.pi / 2 / hop)) ** 2
    laid = taken[:, :hop]
    laid[1:] = laid[1:] * rising + taken[:-1, hop:] * (1 - rising)
    return torch.from_numpy(laid.reshape(-1)[:size]).to(wave_S)


def _alike(padded: NDArray[np.float32], wanted: Ints, hop: int, slack: int) -> Ints:
    """Choose where each frame is taken from: within `slack` of where it is wanted, most like what would come next."""
    # The squares are added up in float64: of two sums over minutes, a difference over milliseconds is taken.
    energies = np.concatenate([[0.0], np.cumsum(np.square(padded, dtype=np.float64))])
    place = slack
    chosen = [place]
    for first in wanted[1:].tolist():
        following = padded[place + hop : place + 2 * hop]
        lags = slice(first, first + 2 * slack + 1)
        ends = slice(first + hop, first + hop + 2 * slack + 1)
        likeness = np.correlate(padded[first : first + 2 * slack + hop], following, "valid")
        place = first + int(np.argmax(likeness / np.sqrt(energies[ends] - energies[lags] + _QUIET)))
        chosen.append(place)
    return np.array(chosen)


def shifted(wave_S: Tensor, samples: int) -> Tensor:
    """Move a wave later by so many samples, or earlier where negative; zeros enter, and the length stays."""
    if samples >= 0:
        return F.pad(wave_S, (samples, 0))[: len(wave_S)]
    return F.pad(wave_S, (0, -samples))[-len(wave_S) :] if len(wave_S) else wave_S


def amplified(wave_S: Tensor, decibels: float) -> Tensor:
    """Make a wave louder by so many decibels, or quieter; nothing is clipped."""
    return wave_S * 10 ** (decibels / 20)


def response(rate: int, rt60: float, direct: float, chance: np.random.Generator) -> Tensor:
    """Make the impulse response of a room, float32: the direct sound, then white noise that decays exponentially.

    It falls by 60 dB within `rt60` seconds, and has `direct` decibels less energy than the direct sound (Habets 2007;
    Polack's model).
    """
    size = max(2, math.ceil(rt60 * rate))
    tail = chance.standard_normal(size, np.float32) * 10 ** (-3 * np.arange(size, dtype=np.float32) / size)
    tail[0] = 0
    tail *= 10 ** (-direct / 20) / max(float(np.sqrt(np.square(tail).sum())), _QUIET)
    tail[0] = 1
    return torch.from_numpy(tail)


def reverberated(wave_S: Tensor, response_P: Tensor) -> Tensor:
    """Let a wave sound in a room, cut to its own length and brought back to its own RMS."""
    if not len(wave_S):
        return wave_S
    fft = 1 << (len(wave_S) + len(response_P) - 2).bit_length()
    heard_S: Tensor = torch.fft.irfft(torch.fft.rfft(wave_S, fft) * torch.fft.rfft(response_P.to(wave_S), fft), fft)
    heard_S = heard_S[: len(wave_S)]
    level = rms(wave_S) / rms(heard_S).clamp_(min=_QUIET)
    return heard_S * level


def noise(size: int, colour: float, chance: np.random.Generator) -> Tensor:
    """Make noise of RMS 1, float32 [S]; its power falls as frequency to the power of minus `colour`: 1 is pink.

    The colour is rounded to a tenth. To be cheap, it is the sum of stretches, drawn anew, of two long noises that are
    made once; as their lengths share no factor, the sum does not repeat within 3.8e9 samples.
    """
    total = np.zeros(size, dtype=np.float32)
    for long in _LONG:
        table = _long_noise(round(10 * colour), long)
        total += _stretch(table, int(chance.integers(long)), size)
    return torch.from_numpy(total / np.float32(max(math.sqrt(float(total @ total) / max(1, size)), _QUIET)))


def _stretch(table: NDArray[np.float32], start: int, size: int) -> NDArray[np.float32]:
    """Give `size` samples from `start` on, of a noise that is repeated where it ends."""
    if start + size <= len(table):
        return table[start : start + size]
    return np.take(table, np.arange(start, start + size), mode="wrap")


@lru_cache(maxsize=32)
def _long_noise(tenths: int, size: int) -> NDArray[np.float32]:
    """Make noise of RMS 1 without an edge where it is repeated, float32, of a spectrum that is drawn."""
    parts = generator(0, "noise", tenths, size).standard_normal((size // 2, 2), np.float32)
    falling = np.arange(1, size // 2 + 1) ** (-tenths / 20)
    spectrum = np.concatenate([[0], falling * (parts[:, 0] + 1j * parts[:, 1])])
    made = np.fft.irfft(spectrum, size)
    made /= np.sqrt(np.mean(np.square(made)))
    return made.astype(np.float32)


def noisy(wave_S: Tensor, noise_S: Tensor, snr: float) -> Tensor:
    """Add noise of RMS 1, `snr` decibels below the wave's own RMS, which is taken over the whole wave."""
    return wave_S + noise_S.to(wave_S) * (rms(wave_S) * 10 ** (-snr / 20))


def rms(wave_S: Tensor) -> Tensor:
    """Give the root of the mean square, a scalar; of nothing it is 0."""
    norm: Tensor = torch.linalg.vector_norm(wave_S)
    return norm / math.sqrt(max(1, len(wave_S)))


def mixed(wave_S: Tensor, other_S: Tensor, share: float) -> Tensor:
    """Mix `share` of a wave with the rest of another, cut or filled with zeros to the first one's length.

    For classification: the first one's class then counts `share`, the other's the rest (Zhang et al. 2018, "mixup").
    """
    return share * wave_S + (1 - share) * F.pad(other_S, (0, len(wave_S) - len(other_S)))


def levelled(wave_S: Tensor, like_S: Tensor) -> Tensor:
    """Bring a wave to the RMS of another; digital silence stays."""
    return wave_S * (rms(like_S) / rms(wave_S).clamp(min=_QUIET))
