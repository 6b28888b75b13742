"""`espeak`: English number words from one to 999, spoken by eSpeak NG where it is installed, with a transcript.

Voices, pitch and pace differ; the numbers of val and test never stand in train. The program espeak-ng is a package of
every usual Linux; recordings are the same as long as its version is.
"""

import shutil
import struct
import subprocess
from typing import Final

import numpy as np

from etude.base.errors import ConfigError, DataError
from etude.base.randomness import seed_of
from etude.data.corpora.chance import Chance
from etude.data.corpora.sounds import Recordings, Sounded, Wave, sized
from etude.data.corpora.values import SPLITS, Number, number, spread

SIZES: Final = {"train": 2_000, "val": 200, "test": 200}
RATE: Final = 22_050
"""Samples per second of what eSpeak NG gives."""
LARGEST: Final = 999
PROGRAM: Final = "espeak-ng"
VOICES: Final = ("en-us", "en-gb", "en-gb-scotland")
VARIANTS: Final = ("m1", "m3", "m4", "m7", "f1", "f2", "f4")
_ONES: Final = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS: Final = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def espeak(split: str, seed: int = 1, size: int | None = None) -> Recordings:
    """Give recordings of numbers. Raises ConfigError for an unknown split, or when espeak-ng is missing."""
    if split not in SPLITS:
        raise ConfigError(f"The split of a corpus must be train, val or test, but is {split!r}.")
    program = shutil.which(PROGRAM)
    if program is None:
        raise ConfigError(f"The corpus `espeak` needs the program {PROGRAM}; install the package of that name.")

    def make(index: int) -> Sounded:
        chance = Chance(seed_of(seed, "espeak", split, index))
        text = in_words(number(chance, split, lambda chance: Number(spread(chance, 1, LARGEST))).whole)
        voice = f"{chance.pick(VOICES)}+{chance.pick(VARIANTS)}"
        options = ["-v", voice, "-s", str(chance.between(120, 220)), "-p", str(chance.between(20, 80))]
        return Sounded(_spoken([program, *options, "--stdout", text]), text, voice)

    return Recordings(RATE, sized(SIZES, size)[split], make)


def in_words(whole: int) -> str:
    """Give a number from 0 to 999 in English words, without hyphens.

    >>> [in_words(whole) for whole in (0, 13, 40, 77, 305)]
    ['zero', 'thirteen', 'forty', 'seventy seven', 'three hundred five']
    """
    hundreds, rest = divmod(whole, 100)
    words = [_ONES[hundreds], "hundred"] if hundreds else []
    if rest >= len(_ONES):
        words.append(_TENS[rest // 10 - 2])
        rest %= 10
    if rest or not words:
        words.append(_ONES[rest])
    return " ".join(words)


def _spoken(command: list[str]) -> Wave:
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - the program was found by name
    if done.returncode:
        raise DataError(f"{PROGRAM} failed: {done.stderr.decode(errors='replace').strip() or done.returncode}.")
    return _samples(done.stdout)


def _samples(wav: bytes) -> Wave:
    """Read a WAV file of 16 bits and one channel whose header, written before its end was known, has no length."""
    if wav[:4] != b"RIFF" or (start := wav.find(b"data")) < 0:
        raise DataError(f"{PROGRAM} gave no WAV file.")
    _, channels, rate, _, _, bits = struct.unpack("<HHIIHH", wav[20:36])
    if (channels, rate, bits) != (1, RATE, 16):
        raise DataError(
            f"{PROGRAM} must give one channel of 16 bits at {RATE:,} Hz, but gives {channels} of {bits} bits at "
            f"{rate:,} Hz."
        )
    end = len(wav) - (len(wav) - start) % 2
    return np.frombuffer(wav[start + 8 : end], "<i2").astype(np.float32) / np.float32(32768)
