"""`morse`: words and call signs in Morse code, sent by hand, with a transcript in lower case.

Speed, pitch, drift and strength differ, and so do the lengths of dots, dashes and gaps, as those of a human hand.
Words are of random syllables; those of val and test never stand in train. Codes: ITU-R M.1677-1 (2009).
"""

from string import ascii_lowercase, digits
from typing import Final, NamedTuple

import numpy as np

from etude.data.corpora.chance import Chance
from etude.data.corpora.sounds import (
    RATE,
    Recordings,
    Signal,
    Speaker,
    joined,
    recordings,
    samples_of,
    silence,
    sized,
    swelling,
    uniform,
    word,
)

SIZES: Final = {"train": 4_000, "val": 300, "test": 300}
_LETTERS: Final = (
    ".- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- -..- -.-- --.."
)
_DIGITS: Final = "----- .---- ..--- ...-- ....- ..... -.... --... ---.. ----."
CODES: Final = dict(zip(ascii_lowercase + digits, f"{_LETTERS} {_DIGITS}".split(), strict=True))
"""Dots and dashes by character."""
_RAMP: Final = 0.005
_CALLS: Final = 30
"""In how many of 100 words are call signs."""


class Hand(NamedTuple):
    """How one recording is sent."""

    unit: float
    """Seconds of a dot."""
    pitch: float
    """Hz at the beginning."""
    drift: float
    """Hz by which the pitch has moved after a second."""
    unsteady: float
    """The share by which lengths differ at most."""


def morse(split: str, seed: int = 1, size: int | None = None) -> Recordings:
    """Give recordings of one to three words. Raises ConfigError for an unknown split."""
    return recordings("morse", _sent, sized(SIZES, size), split, seed)


def _sent(split: str, chance: Chance, speaker: Speaker) -> tuple[Signal, str]:
    words = [word(chance, split, _spelled) for _ in range(chance.between(1, 3))]
    hand = Hand(
        unit=1.2 / uniform(chance, 25, 40) * speaker.pace,  # a dot is 1.2 s over words per minute ("PARIS")
        pitch=uniform(chance, 450, 900) * speaker.pitch,
        drift=uniform(chance, -12, 12),
        unsteady=uniform(chance, 0.02, 0.15),
    )
    keyed = joined([silence(uniform(chance, 0.05, 0.2)), *_keyed(words, hand, chance), silence(0.05)])
    return keyed * _carrier(len(keyed), hand), " ".join(words)


def _spelled(chance: Chance) -> str:
    if chance.percent(_CALLS):
        return _call_sign(chance)
    return "".join(chance.pick("bcdfghjklmnprstvwz") + chance.pick("aeiou") for _ in range(chance.between(1, 3)))


def _call_sign(chance: Chance) -> str:
    """Make one such as dl1abc: a prefix, a digit, and one to three letters."""
    letters = [chance.pick(ascii_lowercase) for _ in range(chance.between(2, 5))]
    return "".join([*letters[:2], chance.pick(digits), *letters[2:], chance.pick(ascii_lowercase)])


def _keyed(words: list[str], hand: Hand, chance: Chance) -> list[Signal]:
    """When the key is down: dots of one unit, dashes of three; one between them, three after a letter, seven a word."""
    parts: list[Signal] = []
    for spelled in words:
        for character in spelled:
            for sign in CODES[character]:
                parts += [_down({".": 1, "-": 3}[sign], hand, chance), _up(1, hand, chance)]
            parts.append(_up(2, hand, chance))
        parts.append(_up(4, hand, chance))
    return parts


def _down(units: int, hand: Hand, chance: Chance) -> Signal:
    return swelling(np.ones(samples_of(_seconds(units, hand, chance))), _RAMP, _RAMP)


def _up(units: int, hand: Hand, chance: Chance) -> Signal:
    return silence(_seconds(units, hand, chance))


def _seconds(units: int, hand: Hand, chance: Chance) -> float:
    return units * hand.unit * (1 + hand.unsteady * uniform(chance, -1, 1))


def _carrier(size: int, hand: Hand) -> Signal:
    time = np.arange(size) / RATE
    sound: Signal = np.sin(2 * np.pi * time * (hand.pitch + hand.drift / 2 * time))
    return sound
