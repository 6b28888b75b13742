"""Every error that Etude raises on purpose: one tree, each a sentence that says what, where, and what to do.

The shell prints the sentence and ends with the error's `exit_code`; `--debug` shows the traceback as well.
"""

from collections.abc import Sequence


class EtudeError(Exception):
    """The root of the tree; catch it to catch all that Etude says on purpose."""

    exit_code = 1


class ConfigError(EtudeError):
    """The config or the command line is wrong; `problems` holds one sentence for each mistake."""

    exit_code = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class DataError(EtudeError):
    """A file of data cannot be read or used; the sentence names file and line."""

    exit_code = 3


class DivergedError(EtudeError):
    """Training produced too many steps in a row that are not finite."""

    exit_code = 4


class StorageError(EtudeError):
    """A folder cannot be written, or a checkpoint cannot be read."""

    exit_code = 5


class DistributedError(EtudeError):
    """A rank died, hung or disagreed."""

    exit_code = 6


class RefusedError(EtudeError):
    """Going on would be unsafe: another process, another config, another tokenizer, or foreign code."""

    exit_code = 7
