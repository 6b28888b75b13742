"""Telling of files that cannot be read as what they should be."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from etude.base.errors import StorageError

_MALFORMED = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RecursionError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
)
"""What reading a file of any content may raise."""


@contextmanager
def reading_of(path: Path) -> Iterator[None]:
    """Say which file it was that could not be read."""
    try:
        yield
    except _MALFORMED as error:
        said = " ".join(str(error).split())[:200]
        raise StorageError(f"{path} is damaged ({type(error).__name__}: {said}).") from error
