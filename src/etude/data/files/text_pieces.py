"""Documents in pieces: how much is tokenised at once, and where a long document may be cut without a trace."""

import itertools
from collections.abc import Iterable, Iterator

from etude.data.files.lines import is_blank

PIECE = 1 << 16
"""The longest piece, in characters."""

BREAKS = " \n"
SIGNS = "\x1c\x1d\x1e\x1f"
"""Separators that Python calls white space, and the tokenizers a sign."""


def pieces(blocks: Iterable[str], most: int = PIECE) -> Iterator[str]:
    """Cut a document into pieces of at most `most` characters; a function of its text, however it comes in blocks.

    A piece ends before the last space or line end that follows a letter or a digit, in its second half; failing that,
    before one that follows another sign; failing that, where it is full. No tokenizer that Etude trains looks across
    the first two, so the tokens of all pieces together are those of the whole document.
    """
    rest, at = "", 0
    for block in blocks:
        rest, at = rest[at:] + block, 0
        while len(rest) - at > most:
            end = _cut(rest, at, at + most)
            yield rest[at:end]
            at = end
    if at < len(rest):
        yield rest[at:]


def _cut(text: str, begin: int, end: int) -> int:
    """Find where the piece that begins at `begin` ends: at most at `end`, where there is still a character."""
    half = begin + (end - begin) // 2
    second = 0
    place = end + 1
    while (place := max(text.rfind(sign, half, place) for sign in BREAKS)) > half:
        before = text[place - 1]
        if before.isalnum():
            return place
        if not second and (before in SIGNS or not before.isspace()):
            second = place
    return second or end


def not_blank(blocks: Iterator[str]) -> Iterator[str] | None:
    """Give the same blocks again, or None where they hold nothing but white space."""
    seen: list[str] = []
    for block in blocks:
        seen.append(block)
        if not is_blank(block):
            return itertools.chain(seen, blocks)
    return None
