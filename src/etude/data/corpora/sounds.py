"""What generated corpora of audio are made of: recordings by number, and the sounds in them.

Which sounds a recording has is decided by whole-number arithmetic, the same everywhere; samples are computed in
floating point, so that two machines may differ in their last bits.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from etude.base.errors import ConfigError
from etude.base.randomness import seed_of, uniform_each
from etude.data.corpora.chance import Chance
from etude.data.corpora.values import SPLITS, split_of

Wave: TypeAlias = NDArray[np.float32]
Signal: TypeAlias = NDArray[np.float64]

RATE: Final = 8000
"""Samples per second of what Etude itself makes sound."""
SPEAKERS: Final = 20
"""Each split has so many, who speak in no other."""
_FINE: Final = 1 << 30


class Sounded(NamedTuple):
    """A recording, and what it is."""

    wave: Wave
    """Samples between -1 and 1, float32."""
    text: str
    """What is said in it, or its class."""
    speaker: str
    """Whose it is."""


@final
class Recordings:
    """A generated corpus of audio: random access, `[i]` always the same, nothing stored.

    >>> corpus = Recordings(8000, 3, lambda i: Sounded(np.zeros(i, np.float32), str(i), "nobody"))
    >>> len(corpus), [sounded.text for sounded in corpus]
    (3, ['0', '1', '2'])
    """

    def __init__(self, rate: int, size: int, make: Callable[[int], Sounded]) -> None:
        self.rate = rate
        """Samples per second."""
        self._size = size
        self._make = make

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Sounded:
        if not 0 <= index < self._size:
            raise IndexError(f"a corpus of {self._size} recordings has no number {index}.")
        return self._make(index)


Maker: TypeAlias = Callable[[str, Chance, "Speaker"], tuple[Signal, str]]
"""Gives samples and text of a recording of a split, by a speaker."""


class Speaker(NamedTuple):
    """What the recordings of one speaker share."""

    name: str
    pitch: float
    """What frequencies are multiplied by."""
    pace: float
    """What lengths are multiplied by."""
    level: float
    """RMS in dBFS."""


def recordings(name: str, maker: Maker, sizes: Mapping[str, int], split: str, seed: int) -> Recordings:
    """Give the recordings of a split, each with a level of its own and hiss 15 to 40 dB below it.

    Raises ConfigError for an unknown split.
    """
    if split not in SPLITS:
        raise ConfigError(f"The split of a corpus must be train, val or test, but is {split!r}.")

    def make(index: int) -> Sounded:
        path = (name, split, index)
        chance = Chance(seed_of(seed, *path))
        speaker = _speaker(seed, name, split, chance.below(SPEAKERS))
        signal, text = maker(split, chance, speaker)
        level, below = speaker.level + uniform(chance, -3, 3), uniform(chance, 15, 40)
        heard = at_level(signal, level) + at_level(hiss(len(signal), seed, *path), level - below)
        return Sounded(heard.astype(np.float32), text, speaker.name)

    return Recordings(RATE, sizes[split], make)


def sized(sizes: Mapping[str, int], size: int | None) -> Mapping[str, int]:
    """Give the sizes of splits: `size` for each where it is asked for."""
    return sizes if size is None else dict.fromkeys(sizes, size)


def _speaker(seed: int, name: str, split: str, number: int) -> Speaker:
    chance = Chance(seed_of(seed, name, "speaker", split, number))
    pitch, pace = 1.08 ** uniform(chance, -1, 1), 1.25 ** uniform(chance, -1, 1)
    return Speaker(f"{split}-{number}", pitch, pace, uniform(chance, -40, -20))


def uniform(chance: Chance, low: float, high: float) -> float:
    """Draw a number from `low` to `high`."""
    return low + (high - low) * chance.below(_FINE) / _FINE


def word(chance: Chance, split: str, spell: Callable[[Chance], str]) -> str:
    """Draw words until one belongs to `split`: none of val or test ever stands in train."""
    while True:
        spelled = spell(chance)
        if split_of(f"word:{spelled}") == split:
            return spelled


def samples_of(seconds: float) -> int:
    """Give how many samples so long a sound has, at least one."""
    return max(1, round(seconds * RATE))


def silence(seconds: float) -> Signal:
    """Give no sound for a while."""
    return np.zeros(samples_of(seconds))


def tone(seconds: float, start: float, end: float | None = None) -> Signal:
    """Give a sine of amplitude 1, its frequency in Hz sliding evenly from `start` to `end`."""
    size = samples_of(seconds)
    last = start if end is None else end
    time = np.arange(size) / RATE
    turns: Signal = time * (start + (last - start) * RATE / (2 * size) * time)
    return np.sin(2 * np.pi * turns)


def swelling(signal: Signal, attack: float, decay: float) -> Signal:
    """Let a sound begin and end smoothly, within so many seconds each (a sine squared)."""
    shaped = signal.copy()
    for ends, seconds in ((shaped, attack), (shaped[::-1], decay)):
        size = min(samples_of(seconds), len(shaped))
        ends[:size] *= _rise(size)
    return shaped


@lru_cache(maxsize=256)
def _rise(size: int) -> Signal:
    rising: Signal = np.sin(np.linspace(0, np.pi / 2, size)) ** 2
    return rising


def hiss(size: int, seed: int, *names: str | int) -> Signal:
    """Give white noise, evenly distributed."""
    return uniform_each(np.arange(size), seed, *names, "hiss") - 0.5


def at_level(signal: Signal, decibels: float) -> Signal:
    """Scale a sound to an RMS in dBFS; silence stays."""
    rms = np.sqrt(np.mean(np.square(signal)))
    scaled: Signal = signal * (10 ** (decibels / 20) / max(float(rms), 1e-12))
    return scaled


def joined(parts: Sequence[Signal]) -> Signal:
    """Lay sounds end to end."""
    return np.concatenate(parts)
