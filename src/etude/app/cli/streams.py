"""The shell's three streams: UTF-8 in any locale, closed ones harmless, messages on stderr, results on stdout."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import IO, Any, TextIO

from etude.base.errors import StorageError

CLOSED_PIPE = 141
"""What a Unix tool ends with whose reader has gone: 128 + SIGPIPE."""
INTERRUPTED = 130
"""What one ends with after Ctrl-C: 128 + SIGINT."""


def open_streams() -> None:
    """Make the standard streams usable: fill closed ones with the null device, and write UTF-8 in every locale.

    Bytes of file names that are no UTF-8 leave on stdout as they came; on stderr they are escaped.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: a file opened later must not get it
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115, PTH123 - lives as long as the process
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - as above
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - as above
    _write_utf8(sys.stdout, "surrogateescape")
    _write_utf8(sys.stderr, "backslashreplace")


def _write_utf8(stream: TextIO, errors: str) -> None:
    """Let a stream write UTF-8; one that a caller has put in the place of the shell's may be left as it is."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8", errors=errors)


def say(text: str) -> None:
    """Tell the user something, on stderr; where nobody listens any more, silently nothing."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{printable(text)}\n")
        sys.stderr.flush()


def put(text: str) -> None:
    """Give a line of the result, on stdout. Raises BrokenPipeError where the reader has gone."""
    with writing_stdout():
        sys.stdout.write(f"{text}\n")


def printable(text: str) -> str:
    r"""The text with control characters (line breaks aside) escaped, safe for a terminal.

    >>> print(printable("a" + chr(27) + "[31mb"))
    a\x1b[31mb
    """
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign == "\n" else escaped(sign) for sign in text)


def escaped(sign: str) -> str:
    """One character as its escape."""
    return sign.encode("unicode_escape", "surrogatepass").decode("ascii")


def is_terminal(stream: IO[Any]) -> bool:
    """Whether a person sits at the other end of this stream."""
    try:
        return stream.isatty()
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def flushed() -> Iterator[None]:
    """Flush stdout at the end of the block, so that a reader that has gone is noticed inside and not at exit."""
    yield
    sys.stdout.flush()


def finish_stdout() -> None:
    """Write what is left in stdout's buffer. Raises BrokenPipeError for a reader that has gone, else StorageError."""
    with writing_stdout():
        sys.stdout.flush()


@contextlib.contextmanager
def writing_stdout() -> Iterator[None]:
    """Say in one sentence why stdout cannot be written. Raises StorageError, or BrokenPipeError as it comes."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        abandon_stdout()
        raise StorageError(f"Standard output cannot be written: {error.strerror}.") from error


def abandon_stdout() -> None:
    """Let what is still in stdout's buffer go nowhere, so that the interpreter's last flush does not fail."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
