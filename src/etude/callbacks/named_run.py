"""What loggers share that keep a run elsewhere: it is begun by the first row, and by a name of its own found again."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from etude.base.errors import ConfigError
from etude.base.files import make_folder, write_text
from etude.callbacks.rows import placed
from etude.train.watch.callback import RunView

RUN_ID = "run-id.txt"


class NamedRun(ABC):
    """Logs every number of a row against its step; nothing is begun before the first row.

    `name` is that of the logger, and of its folder in the run folder, where the name of the run elsewhere is kept.
    """

    def __init__(self, folder: Path | None, name: str) -> None:
        """Raises ConfigError where there is no folder to keep the name of the run in."""
        if folder is None:
            raise ConfigError(
                f'The logger "{name}" needs a run folder, where the name of its run is kept: give run_dir.'
            )
        self.folder = folder
        """The run folder."""
        self.place = folder / name
        """The logger's own folder."""
        self._begun = False
        self._error: BaseException | None = None

    def log(self, row: Mapping[str, object]) -> None:
        """Log one row."""
        if not self._begun:
            make_folder(self.place)
            self._begin()
            self._begun = True
        self._send(*placed(row))

    def on_exception(self, run: RunView, error: BaseException) -> None:
        """Remember that the run did not end well."""
        del run
        self._error = error

    def close(self) -> None:
        """End the run."""
        if self._begun:
            self._begun = False
            self._end(self._error)

    @property
    def run_id(self) -> str:
        """The name that this or an earlier process of this run wrote down; empty where there was none."""
        try:
            return (self.place / RUN_ID).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return ""

    @run_id.setter
    def run_id(self, name: str) -> None:
        write_text(self.place / RUN_ID, f"{name}\n")

    def title(self, given: str | None) -> str:
        """What the run is called elsewhere: what was given, or the name of the run folder."""
        return given or self.folder.absolute().name

    @abstractmethod
    def _begin(self) -> None:
        """Begin the run elsewhere, or go on with the one that `run_id` names."""

    @abstractmethod
    def _send(self, step: int, values: Mapping[str, float]) -> None:
        """Log the numbers of a step."""

    @abstractmethod
    def _end(self, error: BaseException | None) -> None:
        """End the run, which `error` ended if there was one."""
