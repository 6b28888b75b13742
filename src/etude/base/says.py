"""Whom a part of Etude tells what it chose, or what went wrong and was mended."""

from collections.abc import Callable
from contextlib import suppress

Say = Callable[[str], None]
"""Takes one sentence: `print`, the shell's stderr, a test's list."""


def unheard(sentence: str) -> None:
    """Take a sentence that nobody asked for: the default of a `say` that may be left out."""
    del sentence


def surely(say: Say) -> Say:
    """The same, of which a sentence that cannot be written (a full disk, a closed stream) is dropped.

    What a run says is never what ends it.
    """

    def said(sentence: str) -> None:
        with suppress(OSError, ValueError, AttributeError):
            say(sentence)

    return said
