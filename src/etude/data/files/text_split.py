"""How a corpus is divided into train, val and test where no files are given for these; a function of its text alone.

By document: a document goes where the hash of its first piece says, so that equal ones stay together. Up to `RANKED`
documents the shares are counted out in the order of the hashes, beyond that the hash itself is compared. By position:
the first part of all characters is for training, what follows for validation, then for the test.
"""

import hashlib
import itertools
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

from etude.base.errors import DataError
from etude.data.files.text_pieces import pieces
from etude.data.files.text_source import BadDocument, Document, TextCorpus

PARTS = ("train", "val", "test")
WHOLE = "all"
"""The name of the one part of a corpus that is not divided."""
RANKED = 10_000
HASHES = 1 << 64
BY_DOCUMENT, BY_POSITION = (0.98, 0.01, 0.01), (0.9, 0.1)


class SplitRule(NamedTuple):
    """What shares of a corpus are for train, val and, where there is a third, test."""

    shares: tuple[float, ...] | None = None
    """None is `BY_DOCUMENT` or, where that would leave a part without a document, `BY_POSITION`."""
    by: str = "auto"
    """`document`, `position`, or `auto`: by document where the smallest part gets one."""


class Division(NamedTuple):
    """A rule, applied to a corpus."""

    names: tuple[str, ...]
    by: str
    ends: tuple[int, ...]
    """Where each part but the last ends: places among all characters, or hashes (val and test first, then train)."""


UNDIVIDED = Division((WHOLE,), "position", ())


class Part(NamedTuple):
    """A document, or a part of one that lies across a border, in pieces that are tokenised one by one."""

    name: str
    file: str
    line: int
    pieces: Iterator[str]


def survey(corpus: TextCorpus, rule: SplitRule | None) -> Division:
    """Find how `rule` divides `corpus`, by reading as much of it as that needs; None divides nothing."""
    if rule is None:
        return UNDIVIDED
    hashes: list[int] = []
    characters = 0
    for document in _good(corpus):
        if len(hashes) == RANKED and rule.by != "position":
            return _by_hash(rule.shares or BY_DOCUMENT, sorted(hashes), whole=False)
        first, rest = _opened(document)
        if len(hashes) < RANKED:
            hashes.append(_hash(first))
        characters += len(first) + sum(map(len, rest))
    if _is_by_document(rule, len(hashes)):
        shares = rule.shares or BY_DOCUMENT
        _need_enough(corpus, hashes, shares)
        return _by_hash(shares, sorted(hashes), whole=True)
    return _by_position(rule.shares or BY_POSITION, characters)


def _is_by_document(rule: SplitRule, documents: int) -> bool:
    """Tell whether documents are divided, of which there are so many; else their characters."""
    fits = documents * min(rule.shares or BY_DOCUMENT) >= 1
    return rule.by == "document" or (rule.by == "auto" and fits)


def _good(corpus: TextCorpus) -> Iterator[Document]:
    """Give the documents that can be used."""
    for document in corpus.documents():
        if not isinstance(document, BadDocument):
            yield document


def _need_enough(corpus: TextCorpus, hashes: Sequence[int], shares: Sequence[float]) -> None:
    if len(hashes) < len(shares):
        raise DataError(
            f"{corpus.name} holds {len(hashes)} documents, which are too few for {len(shares)} parts: "
            'set data.split_by = "position", or name data.val.'
        )


def divided(corpus: TextCorpus, division: Division) -> Iterator[Part | BadDocument]:
    """Give the documents of a corpus with the part that each belongs to, in order, each to be read before the next."""
    place = 0
    for document in corpus.documents():
        if isinstance(document, BadDocument):
            yield document
        elif division.by == "document":
            first, rest = _opened(document)
            yield Part(_part_of(division, _hash(first)), document.file, document.line, itertools.chain((first,), rest))
        elif not division.ends:
            yield Part(division.names[0], document.file, document.line, pieces(document.blocks))
        else:
            cutter = _Borders(document.blocks, division, place)
            while not cutter.over:
                yield Part(cutter.name, document.file, document.line, pieces(cutter.part()))
            place = cutter.place


def _opened(document: Document) -> tuple[str, Iterator[str]]:
    parts = pieces(document.blocks)
    return next(parts), parts


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, person=b"etude split").digest(), "big")


def _by_hash(shares: tuple[float, ...], hashes: list[int], *, whole: bool) -> Division:
    """Let the lowest hashes be val's, the next test's, and the rest train's."""
    names = (*PARTS[1 : len(shares)], PARTS[0])
    bounds = _bounds(shares[1:])
    if whole:
        counts = [0]
        for bound in bounds:
            counts.append(max(counts[-1] + 1, round(bound * len(hashes))))
        ends = [hashes[min(count, len(hashes) - 1)] for count in counts[1:]]
    else:
        ends = [int(bound * HASHES) for bound in bounds]
    return Division(names, "document", tuple(ends))


def _by_position(shares: tuple[float, ...], characters: int) -> Division:
    ends = [int(bound * characters) for bound in _bounds(shares[:-1])]
    return Division(PARTS[: len(shares)], "position", tuple(ends))


def _bounds(shares: Sequence[float]) -> list[float]:
    """Add shares up as they are written: 0.7 and 0.2 are 0.9."""
    return [float(bound) for bound in itertools.accumulate(Fraction(str(share)) for share in shares)]


def _part_of(division: Division, place: int) -> str:
    return division.names[bisect_right(division.ends, place)]


class _Borders:
    """A document that is being cut where parts end."""

    def __init__(self, blocks: Iterable[str], division: Division, place: int) -> None:
        self.place = place
        self._blocks, self._division = iter(blocks), division
        self._rest = ""
        self._fill()

    @property
    def over(self) -> bool:
        return not self._rest

    @property
    def name(self) -> str:
        return _part_of(self._division, self.place)

    def part(self) -> Iterator[str]:
        """Give the blocks up to the next border, or to the end."""
        number = bisect_right(self._division.ends, self.place)
        end = self._division.ends[number] if number < len(self._division.ends) else None
        while self._rest and self.place != end:
            text = self._rest if end is None else self._rest[: end - self.place]
            self._rest = self._rest[len(text) :]
            self.place += len(text)
            yield text
            self._fill()

    def _fill(self) -> None:
        while not self._rest and (block := next(self._blocks, None)) is not None:
            self._rest = block
