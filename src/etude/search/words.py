"""From labels that were found in frames to words with their times.

A word lasts from the first frame of its first label up to the end of its last one. CTC's labels are spikes, 20 to 60 ms
off, and where a sound ends they do not tell: a word then ends too early, by most of its last sound.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby, pairwise
from typing import NamedTuple, final

from etude.search.ctc import Label
from etude.search.text_stream import LOOKBACK, Decode

AHEAD = 4
"""Labels behind one that are decoded with it: bytes of a character read as that once all of them have come."""


@final
@dataclass(frozen=True, slots=True)
class Word:
    """One word, and when it was said."""

    text: str
    start: float
    """In seconds."""
    end: float
    """In seconds; never before the start, nor after the start of the next word."""
    confidence: float
    """The mean of its labels' confidences."""


@final
@dataclass(frozen=True, slots=True)
class Clock:
    """When frames are.

    >>> Clock(0.04, offset=0.5).at(10)
    0.9
    """

    seconds: float
    """From one frame of the labels to the next, after all subsampling."""
    offset: float = 0.0
    """When the first one begins, in seconds."""

    def __post_init__(self) -> None:
        if not (0 < self.seconds < math.inf and math.isfinite(self.offset)):
            raise ValueError(f"Frames must last a positive time from a finite one on, but {self} is given.")

    def at(self, frame: float) -> float:
        """When a frame begins, in seconds."""
        return self.offset + frame * self.seconds


def words(labels: Sequence[Label], decode: Decode, clock: Clock) -> list[Word]:
    """The words that labels spell: what stands between white space when all of them are decoded.

    It serves characters, of which the space is one, and pieces of words. A label that spells nothing, or spaces alone,
    is of no word. One that spells several words gives each its share, by characters. Times never decrease, and of two
    words that overlap, as those of a transducer may with several labels in a frame, the first ends where the second
    begins. A writing without spaces is one word.

    >>> spelled = [Label(0, 2, 3, 0.5), Label(1, 3, 5, 1.0), Label(2, 5, 6, 0.9), Label(0, 8, 9, 0.7)]
    >>> for word in words(spelled, lambda ids: "".join("ab "[i] for i in ids), Clock(0.5)):
    ...     print(word.text, word.start, word.end)
    ab 1.0 2.5
    a 4.0 4.5
    """
    runs = groupby(_characters(labels, decode), key=Character.is_space)
    found = [word_of(list(run), clock) for space, run in runs if not space]
    return list(_apart(found))


class Character(NamedTuple):
    """A character, and the frames and labels that are its own."""

    text: str
    start: float
    end: float
    labels: Sequence[Label]

    def is_space(self) -> bool:
        """Whether it parts words."""
        return self.text.isspace()


def word_of(characters: Sequence[Character], clock: Clock) -> Word:
    """The word of some characters, at least one."""
    pieces = {id(character.labels): character.labels for character in characters}
    shares = [label.confidence for labels in pieces.values() for label in labels]
    text = "".join(character.text for character in characters)
    times = clock.at(characters[0].start), clock.at(characters[-1].end)
    return Word(text, *times, math.fsum(shares) / len(shares))


def _apart(found: Iterable[Word]) -> Iterator[Word]:
    """The words with times that never decrease."""
    last: Word | None = None
    for word in found:
        if last is not None:
            before, word = apart(last, word)  # noqa: PLW2901 - the same word
            yield before
        last = word
    if last is not None:
        yield last


def apart(word: Word, later: Word) -> tuple[Word, Word]:
    """Two words that follow each other, with times that never decrease."""
    start = max(later.start, word.start)
    return replace(word, end=min(word.end, start)), replace(later, start=start, end=max(start, later.end))


def _characters(labels: Sequence[Label], decode: Decode) -> Iterator[Character]:
    for text, own in _pieces(labels, decode):
        yield from characters_of(text, own)


def characters_of(text: str, labels: Sequence[Label]) -> Iterator[Character]:
    """The characters of a text that some labels spell together, each with its share of their frames."""
    start, end = labels[0].start, max(label.end for label in labels)
    seen = [0, *accumulate(not character.isspace() for character in text)]
    places = [start + (end - start) * count / max(1, seen[-1]) for count in seen]
    for character, (first, last) in zip(text, pairwise(places), strict=True):
        yield Character(character, first, last, labels)


# -- which labels spell which characters ---------------------------------------------------------------------------


class _Piece(NamedTuple):
    """Characters that came with one label, or with the last of some that spell them together."""

    text: str
    labels: Sequence[Label]


def _pieces(labels: Sequence[Label], decode: Decode) -> list[_Piece]:
    """The text of all labels, in pieces.

    What a label reads as mostly depends on few around it, and they are decoded with those alone; where that does not
    add up to the text of all, as many as there are.
    """
    ids = [one.label for one in labels]
    whole = decode(ids)
    found = _joined(labels, _spelled_nearby(ids, decode))
    if "".join(piece.text for piece in found) == whole:
        return found
    return _joined(labels, _spelled(ids, decode, whole))


def _spelled_nearby(ids: Sequence[int], decode: Decode) -> Iterator[tuple[str, bool]]:
    """What each id adds to the text, and whether it begins a character that comes later, as seen from nearby."""
    for at in range(len(ids)):
        yield spelled_by(ids, at, decode)


def spelled_by(ids: Sequence[int], at: int, decode: Decode) -> tuple[str, bool]:
    """The same of one of them, by its place."""
    first = max(0, at - LOOKBACK)
    whole = decode(ids[first : at + 1 + AHEAD])
    shown = decode(ids[first : at + 1])
    before, after = _common(decode(ids[first:at]), whole), _common(shown, whole)
    return whole[before:after], after < len(shown)


def _spelled(ids: Sequence[int], decode: Decode, whole: str) -> Iterator[tuple[str, bool]]:
    """The same by the text of all: whatever decodes it, the pieces add up to it."""
    before = 0
    for at in range(len(ids)):
        shown = decode(ids[: at + 1])
        after = max(before, _common(shown, whole))
        yield whole[before:after], after < len(shown)
        before = after


def _common(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    shorter = min(len(one), len(other))
    return next((at for at in range(shorter) if one[at] != other[at]), shorter)


def _joined(labels: Sequence[Label], spelled: Iterable[tuple[str, bool]]) -> list[_Piece]:
    """Characters with all labels that spell them; labels that spell nothing are left out."""
    found = []
    waiting: list[Label] = []
    for label, (text, begins) in zip(labels, spelled, strict=True):
        if text or begins:
            waiting.append(label)
        if text:
            found.append(_Piece(text, tuple(waiting)))
            waiting = []
    return found
