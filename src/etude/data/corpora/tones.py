"""`tone_letters`: words of letters, each letter two tones at once, as vowels are two formants; with a transcript.

Letters differ in length, gaps and glides, speakers in pitch, pace and level, and everything has hiss. The words are of
random letters, and those of val and test never stand in train.
"""

from string import ascii_lowercase
from typing import Final

from etude.data.corpora.chance import Chance
from etude.data.corpora.sounds import (
    Recordings,
    Signal,
    Speaker,
    joined,
    recordings,
    silence,
    sized,
    swelling,
    tone,
    uniform,
    word,
)

SIZES: Final = {"train": 4_000, "val": 300, "test": 300}
LOWER: Final = (320.0, 410.0, 530.0, 690.0, 900.0)
HIGHER: Final = (1200.0, 1470.0, 1800.0, 2200.0, 2700.0, 3300.0)
"""The two tones, in Hz, of letter n are LOWER[n % 5] and HIGHER[n // 5]: n counts from 0 at "a"."""


def tone_letters(split: str, seed: int = 1, size: int | None = None) -> Recordings:
    """Give recordings of one to three words of two to five letters. Raises ConfigError for an unknown split."""
    return recordings("tone_letters", _said, sized(SIZES, size), split, seed)


def _said(split: str, chance: Chance, speaker: Speaker) -> tuple[Signal, str]:
    words = [word(chance, split, _spelled) for _ in range(chance.between(1, 3))]
    parts = [silence(uniform(chance, 0.03, 0.15))]
    for spelled in words:
        for letter in spelled:
            parts += [_letter(letter, chance, speaker), silence(speaker.pace * uniform(chance, 0.015, 0.06))]
        parts.append(silence(speaker.pace * uniform(chance, 0.1, 0.2)))
    return joined(parts), " ".join(words)


def _spelled(chance: Chance) -> str:
    return "".join(chance.pick(ascii_lowercase) for _ in range(chance.between(2, 5)))


def _letter(letter: str, chance: Chance, speaker: Speaker) -> Signal:
    higher, lower = divmod(ascii_lowercase.index(letter), len(LOWER))
    seconds = speaker.pace * uniform(chance, 0.06, 0.13)
    loudness = 10 ** (uniform(chance, -3, 3) / 20)
    low, high = (_formant(speaker.pitch * one, seconds, chance) for one in (LOWER[lower], HIGHER[higher]))
    return loudness * swelling(low + high, 0.01, 0.02)


def _formant(frequency: float, seconds: float, chance: Chance) -> Signal:
    glide = uniform(chance, -0.03, 0.03)
    return uniform(chance, 0.5, 1.0) * tone(seconds, frequency * (1 - glide), frequency * (1 + glide))
