"""What loggers share that keep a run elsewhere: it is begun by the first row, and by a name of its own found again."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from etude.base.errors import ConfigError
from etude.base.files import make_folder, write_text
from etude.callbacks.rows import parameters, placed
from etude.train.watch.callback import RunView

RUN_ID = "run-id.txt"


def _inside(patterns: list[str]) -> list[str]:
    """Refuse patterns that lead out of the run folder."""
    for pattern in patterns:
        if not pattern or Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise ValueError(f'must name files in the run folder, as in "outputs/*", but has {pattern!r}')
    return patterns


Artifacts = Annotated[list[str], AfterValidator(_inside), Field(default_factory=lambda: ["config.toml"])]
"""Patterns of files in a run folder."""


class NamedRun(ABC):
    """Logs the config as parameters and every number of a row against its step; nothing is begun before the first row.

    `artifacts` are patterns of files in the run folder that are handed over at the end. `name` is that of the logger,
    and of its folder in the run folder, where the name of the run elsewhere is kept.
    """

    def __init__(self, folder: Path | None, name: str, artifacts: Sequence[str] = ()) -> None:
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
        self._artifacts = artifacts
        self._untold: dict[str, bool | float | str] = {}
        """Parameters that were not handed over yet."""

    def on_fit_start(self, run: RunView) -> None:
        """Remember the config."""
        self._untold = parameters(run.config)

    def log(self, row: Mapping[str, object]) -> None:
        """Log one row."""
        if not self._begun:
            make_folder(self.place)
            self._begin()
            self._begun = True
        if self._untold:
            told, self._untold = self._untold, {}
            self._describe(told)
        self._send(*placed(row))

    def on_exception(self, run: RunView, error: BaseException) -> None:
        """Remember that the run did not end well."""
        del run
        self._error = error

    def close(self) -> None:
        """End the run."""
        if self._begun:
            self._begun = False
            for path in dict.fromkeys(chain.from_iterable(map(self._matching, self._artifacts))):
                self._keep(path)
            self._end(self._error)

    def _matching(self, pattern: str) -> list[Path]:
        """The files of the run folder that a pattern means, but for the logger's own."""
        found = sorted(self.folder.glob(pattern))
        return [path for path in found if path.is_file() and not path.is_relative_to(self.place)]

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
    def _describe(self, told: Mapping[str, bool | float | str]) -> None:
        """Log parameters."""

    @abstractmethod
    def _keep(self, path: Path) -> None:
        """Hand over a file of the run folder."""

    @abstractmethod
    def _send(self, step: int, values: Mapping[str, float]) -> None:
        """Log the numbers of a step."""

    @abstractmethod
    def _end(self, error: BaseException | None) -> None:
        """End the run, which `error` ended if there was one."""
