"""Draws for one sample of a generated corpus, from whole-number arithmetic alone.

numpy may change its streams from version to version; a corpus must not change with them.
"""

from collections.abc import Sequence
from typing import Final, TypeVar, final

_MASK: Final = (1 << 64) - 1
_GOLDEN: Final = 0x9E3779B97F4A7C15

T = TypeVar("T")


@final
class Chance:
    """A stream of draws that a 63-bit seed decides (splitmix64; Steele, Lea and Flood 2014)."""

    __slots__ = ("_state",)

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK

    def below(self, count: int) -> int:
        """Draw a whole number from 0 to `count` - 1, `count` at most 2**32."""
        self._state = (self._state + _GOLDEN) & _MASK
        mixed = self._state
        mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB & _MASK
        return ((mixed ^ (mixed >> 31)) * count) >> 64

    def between(self, low: int, high: int) -> int:
        """Draw a whole number from `low` to `high`, both included."""
        return low + self.below(high - low + 1)

    def pick(self, choices: Sequence[T]) -> T:
        """Draw one of `choices`, each as likely."""
        return choices[self.below(len(choices))]

    def percent(self, share: int) -> bool:
        """Say yes in `share` of 100 draws."""
        return self.below(100) < share
