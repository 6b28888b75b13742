"""Pictures that a verb draws into a file: which files they may be, and the one of `etude predict --attention`."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import final

from etude.app.cli.streams import say
from etude.base.errors import ConfigError, DataError
from etude.base.named_files import check_named, is_stream, write_named
from etude.base.paths import user_path
from etude.tasks.attention import Attention
from etude.tasks.task_type import Attends, NoAttention

ATTENTION = "attention"


def check_picture(name: str, flag: str) -> None:
    """Refuse, before anything is computed, a picture of another kind, or one that could not be written.

    Raises ConfigError, or StorageError.
    """
    path = user_path(name)
    if path.suffix.lower() != ".svg" and not is_stream(path):
        raise ConfigError(
            f"--{flag} draws SVG, so it must end in .svg, but is {name}; a browser shows SVG and converts it."
        )
    check_named(path, flag)


def write_file(name: str, content: str) -> None:
    """Write a file that the user has named, and say so."""
    write_named(user_path(name), content)
    say(f"Written: {name}")


def check_attention(given: Mapping[str, object]) -> None:
    """Check the file that --attention names, where it does."""
    match given:
        case {"attention": str() as name}:
            check_picture(name, ATTENTION)


@contextmanager
def attention_picture(given: Mapping[str, object]) -> Iterator[Attends]:
    """Give what draws the first attention that it is handed into the file that --attention names, where it does.

    Raises DataError where that was handed none.
    """
    match given:
        case {"attention": str() as name}:
            picture = _Picture(name)
            yield picture
            if picture.is_wanted:
                raise DataError(f"--attention {name} is not written: no line has a translation.")
        case _:
            yield NoAttention()


@final
class _Picture(Attends):
    """Draws the first attention that it takes."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._is_drawn = False

    @property
    def is_wanted(self) -> bool:
        """Whether nothing is drawn yet."""
        return not self._is_drawn

    def take(self, attention: Attention) -> None:
        """Draw it."""
        write_file(self._name, attention.svg())
        self._is_drawn = True
