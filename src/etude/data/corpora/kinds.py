"""`tone_kinds`: short sounds of eight kinds, each with its kind as the label, for classification of audio.

Kinds differ in how pitch and level move, not in which pitch or level they have: those are drawn alike for all.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np

from etude.data.corpora.chance import Chance
from etude.data.corpora.sounds import (
    RATE,
    Recordings,
    Signal,
    Speaker,
    hiss,
    joined,
    recordings,
    samples_of,
    silence,
    sized,
    swelling,
    tone,
    uniform,
)

SIZES: Final = {"train": 4_000, "val": 400, "test": 400}
_CHORD: Final = (1.0, 1.26, 1.5)
_NOISES: Final = 1 << 30

Kind: TypeAlias = Callable[[Chance, float, float], Signal]
"""Of draws, a frequency in Hz, and seconds."""


def tone_kinds(split: str, seed: int = 1, size: int | None = None) -> Recordings:
    """Give sounds of 0.3 to 1 s, any of the kinds as likely. Raises ConfigError for an unknown split."""
    return recordings("tone_kinds", _heard, sized(SIZES, size), split, seed)


def _heard(_split: str, chance: Chance, speaker: Speaker) -> tuple[Signal, str]:
    kind = chance.pick(sorted(KINDS))
    frequency = 2 ** uniform(chance, 8.3, 10.3) * speaker.pitch
    sound = KINDS[kind](chance, frequency, uniform(chance, 0.25, 0.7))
    around = (silence(uniform(chance, 0.02, 0.15)) for _ in range(2))
    return joined([next(around), swelling(sound, 0.02, 0.04), next(around)]), kind


def _rise(chance: Chance, frequency: float, seconds: float) -> Signal:
    return tone(seconds, frequency, frequency * uniform(chance, 1.15, 1.8))


def _fall(chance: Chance, frequency: float, seconds: float) -> Signal:
    return tone(seconds, frequency * uniform(chance, 1.15, 1.8), frequency)


def _steady(chance: Chance, frequency: float, seconds: float) -> Signal:
    return tone(seconds, frequency, frequency * uniform(chance, 0.98, 1.02))


def _chord(chance: Chance, frequency: float, seconds: float) -> Signal:
    weights = [uniform(chance, 0.6, 1.0) for _ in _CHORD]
    notes = [tone(seconds, frequency * ratio) for ratio in _CHORD]
    return np.average(notes, axis=0, weights=weights)


def _arpeggio(chance: Chance, frequency: float, seconds: float) -> Signal:
    notes = [tone(seconds / len(_CHORD), frequency * ratio) for ratio in _CHORD]
    return joined([swelling(uniform(chance, 0.6, 1.0) * note, 0.01, 0.02) for note in notes])


def _trill(chance: Chance, frequency: float, seconds: float) -> Signal:
    each = uniform(chance, 0.04, 0.08)
    step = uniform(chance, 1.1, 1.3)
    turns = max(2, round(seconds / (2 * each)))
    return joined([swelling(tone(each, frequency * ratio), 0.005, 0.005) for ratio in (1.0, step) * turns])


def _tremolo(chance: Chance, frequency: float, seconds: float) -> Signal:
    time = np.arange(samples_of(seconds)) / RATE
    depth = 1 + uniform(chance, 0.5, 0.9) * np.sin(2 * np.pi * uniform(chance, 6, 12) * time)
    return depth * tone(seconds, frequency)


def _bursts(chance: Chance, frequency: float, seconds: float) -> Signal:
    """Noise around the frequency, on and off."""
    each = uniform(chance, 0.03, 0.08)
    parts = []
    for _ in range(max(2, round(seconds / (2 * each)))):
        noise = hiss(samples_of(each), chance.below(_NOISES))
        parts += [swelling(noise * tone(each, frequency), 0.005, 0.02), silence(each)]
    return joined(parts)


KINDS: Final[dict[str, Kind]] = {
    "arpeggio": _arpeggio,
    "bursts": _bursts,
    "chord": _chord,
    "fall": _fall,
    "rise": _rise,
    "steady": _steady,
    "tremolo": _tremolo,
    "trill": _trill,
}
"""What makes a sound of each kind."""
