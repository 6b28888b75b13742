"""Whom a part of Etude tells what it chose, or what went wrong and was mended."""

from collections.abc import Callable

Say = Callable[[str], None]
"""Takes one sentence: `print`, the shell's stderr, a test's list."""


def unheard(sentence: str) -> None:
    """Take a sentence that nobody asked for: the default of a `say` that may be left out."""
    del sentence
