"""Error rates of sequences by edit distance, pooled over a corpus: of tokens, words and characters.

Legend: m tokens of a reference, n of its hypothesis.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Self, final

Tokens = Sequence[Hashable]


@final
@dataclass(frozen=True, slots=True)
class Edits:
    """What turns references into their hypotheses with the fewest edits."""

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions: the edit distance."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def reference(self) -> int:
        """The tokens of the references."""
        return self.hits + self.substitutions + self.deletions

    @property
    def rate(self) -> float:
        """Errors for each token of the references; where those are all empty, the errors, as jiwer has it."""
        return self.errors / max(self.reference, 1)

    def __add__(self, other: "Edits") -> "Edits":
        return Edits(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )


def edits(reference: Tokens, hypothesis: Tokens) -> Edits:
    """The fewest edits (Levenshtein 1966) from a reference to a hypothesis.

    Where several ways need as few, the counts are those of jiwer: from the end backwards, a deletion is taken before
    an insertion, and that before a substitution, once what both begin and end with is set aside. The distances are
    found a whole reference at a time (Hyyrö 2003, "A bit-vector algorithm for computing Levenshtein and Damerau edit
    distances"): n steps on integers of m bits, and two bits kept for each pair; 0.2 ms for two lines of 100 characters.

    >>> edits("the cat sat".split(), "cat sat down".split())
    Edits(hits=2, substitutions=0, deletions=1, insertions=1)
    """
    first = _common(reference, hypothesis)
    reference, hypothesis = reference[first:], hypothesis[first:]
    last = _common(reference[::-1], hypothesis[::-1])
    reference, hypothesis = reference[: len(reference) - last], hypothesis[: len(hypothesis) - last]
    found = _counted(reference, hypothesis, _columns(reference, hypothesis))
    return found + Edits(hits=first + last)


def _common(one: Tokens, other: Tokens) -> int:
    """How many tokens two sequences begin with alike."""
    shorter = min(len(one), len(other))
    return next((at for at in range(shorter) if one[at] != other[at]), shorter)


def _columns(reference: Tokens, hypothesis: Tokens) -> list[tuple[int, int]]:
    """After no token of the hypothesis and after each, where the distance grows and where it falls by one.

    Bit i tells whether the distance of i + 1 tokens of the reference is larger, or smaller, than that of i.
    """
    every = (1 << len(reference)) - 1
    places: dict[Hashable, int] = {}
    for at, token in enumerate(reference):
        places[token] = places.get(token, 0) | 1 << at
    grows, falls = every, 0
    columns = [(grows, falls)]
    for token in hypothesis:
        match = places.get(token, 0) | falls
        diagonal = (((match & grows) + grows) ^ grows) | match
        up = ((falls | ~(diagonal | grows)) << 1) | 1
        grows, falls = ((diagonal & grows) << 1 | ~(diagonal | up)) & every, up & diagonal & every
        columns.append((grows, falls))
    return columns


def _counted(reference: Tokens, hypothesis: Tokens, columns: list[tuple[int, int]]) -> Edits:
    """The edits on the way back from the end of both."""
    hits = substitutions = deletions = insertions = 0
    at, other = len(reference), len(hypothesis)
    while at and other:
        bit = 1 << at - 1
        if columns[other][0] & bit:
            deletions, at = deletions + 1, at - 1
        elif columns[other - 1][1] & bit:
            insertions, other = insertions + 1, other - 1
        else:
            at, other = at - 1, other - 1
            equal = reference[at] == hypothesis[other]
            hits, substitutions = hits + equal, substitutions + (not equal)
    return Edits(hits, substitutions, deletions + at, insertions + other)


class _ErrorRate:
    """Edits over the tokens of all references: every reference counts, empty ones with what was put in for them."""

    def __init__(self) -> None:
        self.edits = Edits()
        """What was counted so far."""
        self._seen = 0

    def _tokens(self, sequence: Any) -> Tokens:
        raise NotImplementedError

    def update(self, hypotheses: Sequence[Any], references: Sequence[Any]) -> None:
        """Take in hypotheses and, for each, its reference."""
        if len(hypotheses) != len(references):
            raise ValueError(f"{len(hypotheses)} hypotheses cannot be compared with {len(references)} references.")
        for hypothesis, reference in zip(hypotheses, references, strict=True):
            self.edits += edits(self._tokens(reference), self._tokens(hypothesis))
        self._seen += len(references)

    def merge(self, other: Self) -> None:
        """Take in what `other` has seen."""
        self.edits += other.edits
        self._seen += other._seen

    def compute(self) -> float:
        """Errors for each token of the references, 0 where all is right, above 1 where much was put in.

        NaN where nothing was seen; where all references are empty, the number of errors.
        """
        return self.edits.rate if self._seen else math.nan

    def reset(self) -> None:
        """Forget all that was seen."""
        self.edits, self._seen = Edits(), 0


@final
class TokenErrorRate(_ErrorRate):
    """The token error rate: `update` takes sequences of anything that can be compared and hashed, such as ids."""

    def _tokens(self, sequence: Tokens) -> Tokens:
        return sequence


@final
class WordErrorRate(_ErrorRate):
    """The word error rate: `update` takes texts, whose words stand between white space.

    >>> metric = WordErrorRate()
    >>> metric.update(["one two too"], ["one two three four"])
    >>> metric.compute()
    0.5
    """

    def _tokens(self, sequence: str) -> Tokens:
        return sequence.split()


@final
class CharacterErrorRate(_ErrorRate):
    """The character error rate: `update` takes texts; white space at their ends is no part of them, between words is.

    A character is a code point.
    """

    def _tokens(self, sequence: str) -> Tokens:
        return sequence.strip()


@final
class CountedErrors:
    """An error rate under its name, and how many errors there are of each kind.

    >>> metric = CountedErrors("word_error_rate", WordErrorRate())
    >>> metric.update(["one two too"], ["one two three four"])
    >>> metric.compute()["word_error_rate"], metric.compute()["word_error_rate/deletions"]
    (0.5, 1)
    """

    def __init__(self, name: str, rate: _ErrorRate) -> None:
        self._name, self._rate = name, rate

    def update(self, hypotheses: Sequence[Any], references: Sequence[Any]) -> None:
        """Take in hypotheses and, for each, its reference."""
        self._rate.update(hypotheses, references)

    def merge(self, other: Self) -> None:
        """Take in what `other` has seen."""
        self._rate.merge(other._rate)

    def compute(self) -> dict[str, float]:
        """The rate, and the numbers of substitutions, deletions and insertions as `NAME/insertions`."""
        edits = self._rate.edits
        return {
            self._name: self._rate.compute(),
            f"{self._name}/substitutions": edits.substitutions,
            f"{self._name}/deletions": edits.deletions,
            f"{self._name}/insertions": edits.insertions,
        }

    def reset(self) -> None:
        """Forget all that was seen."""
        self._rate.reset()
