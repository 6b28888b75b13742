"""The values inside the sentences, and the split that each of them belongs to.

A value is written `number:1234`, `number:12.75`, `time:3:17` (on a clock of twelve hours) or `date:1987-03-05`. Its
split is a hash of it, so that no value of val or test ever stands in train, whatever the seed of the corpus. Counts,
ordinals, amounts, measures and years are all numbers: when 37 is kept for test, then so are the 37th floor and 37
dollars. A date belongs to the split of its year.
"""

from calendar import monthrange
from collections.abc import Callable
from datetime import date
from functools import lru_cache
from typing import Final, NamedTuple

from etude.base.randomness import seed_of
from etude.data.corpora.chance import Chance

SPLITS: Final = ("train", "val", "test")
SHARES: Final = {"val": 6, "test": 6}
"""How many of 100 values are kept for a split; the others are train's."""
LARGEST_BLOCK: Final = 20
PAST: Final = (1800, 2024)
LATELY: Final = (1950, 2024)
SOON: Final = (2000, 2099)
"""The first and the last year of dates that lie behind, that are remembered, and that may lie ahead."""

_TWELVE: Final = 12


class Number(NamedTuple):
    """A number with the decimals that it is written with: (12, "50") is 12.50."""

    whole: int
    decimals: str = ""

    @property
    def value(self) -> str:
        """The number as a value: 12.50 and 12.5 are the same."""
        decimals = self.decimals.rstrip("0")
        return f"number:{self.whole}.{decimals}" if decimals else f"number:{self.whole}"

    @property
    def digits(self) -> str:
        """The number as English writes it."""
        return f"{self.whole:,}.{self.decimals}" if self.decimals else f"{self.whole:,}"


@lru_cache(maxsize=1 << 18)
def split_of(value: str) -> str:
    """Give the split that `value` belongs to: one of SPLITS.

    Building blocks are always train's: whole numbers up to 20, those with a single digit that is not zero (70, 400,
    3,000), and full hours. What val and test ask for can be put together from them.
    """
    kind, _, text = value.partition(":")
    if kind == "date":
        return split_of(f"number:{text[:4]}")
    if _is_block(kind, text):
        return "train"
    place = seed_of(0, "etude.data.corpora", value) % 100
    for split, share in SHARES.items():
        if place < share:
            return split
        place -= share
    return "train"


def _is_block(kind: str, text: str) -> bool:
    if kind == "time":
        return text.endswith(":00")
    return text.isdigit() and (int(text) <= LARGEST_BLOCK or not text[1:].strip("0"))


def number(chance: Chance, split: str, propose: Callable[[Chance], Number]) -> Number:
    """Draw from `propose` until the number belongs to `split`."""
    while True:
        drawn = propose(chance)
        if split_of(drawn.value) == split:
            return drawn


def spread(chance: Chance, low: int, high: int) -> int:
    """Draw a whole number from `low` to `high`, its count of digits first, so that small ones are not rare."""
    size = chance.between(len(str(low)), len(str(high)))
    return chance.between(max(low, 10 ** (size - 1)), min(high, 10**size - 1))


def time(chance: Chance, split: str) -> tuple[int, int, str]:
    """Draw a time of `split`: its hour from 0 to 23, its minute, and its value."""
    while True:
        hour, minute = chance.below(24), chance.below(60) if chance.percent(60) else 5 * chance.below(12)
        value = f"time:{hour % _TWELVE or _TWELVE}:{minute:02}"
        if split_of(value) == split:
            return hour, minute, value


def year(chance: Chance, split: str, years: tuple[int, int]) -> int:
    """Draw a year of `split` from the first to the last of `years`."""
    return number(chance, split, lambda chance: Number(chance.between(*years))).whole


def day(chance: Chance, split: str, years: tuple[int, int]) -> tuple[date, tuple[str, str]]:
    """Draw a date of `split` in one of `years`, with its values: the date, and its year as a number."""
    in_year = year(chance, split, years)
    month = chance.between(1, 12)
    drawn = date(in_year, month, chance.between(1, monthrange(in_year, month)[1]))
    return drawn, (f"date:{drawn.isoformat()}", f"number:{in_year}")
