"""A fork on its way to the step where it leaves its parent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from etude.app.fork.about import FORK, About, read_about
from etude.app.fork.allowed import judge, judge_weights
from etude.app.fork.plan import changed
from etude.app.fork.start import SHARED
from etude.app.runs.changes import Change, governing
from etude.app.runs.folder import CONFIG, DATA, has_checkpoint
from etude.base.durations import Duration
from etude.base.errors import StorageError
from etude.base.files import read_json
from etude.base.says import Say
from etude.tasks.config import LoadedConfig, load_config
from etude.train.job import Job
from etude.train.memory.checkpoint.store import Store

Build = Callable[[LoadedConfig, Path, Say], Job]
"""Makes the job of a config in a folder."""


def is_fork(folder: Path) -> bool:
    """Whether the run in `folder` shares its first steps with another."""
    return (folder / FORK).is_file()


def is_underway(folder: Path) -> bool:
    """Whether the run in `folder` is a fork that has not come to its step yet."""
    return is_fork(folder) and not has_checkpoint(folder)


@dataclass(frozen=True)
class Way:
    """A fork on its way."""

    loaded: LoadedConfig
    """The fork's config."""
    before: LoadedConfig
    """Its parent's."""
    folder: Path
    about: About
    changes: Sequence[Change]
    build: Build

    @property
    def shared(self) -> Path:
        """Where the parent's steps are taken."""
        return self.folder / SHARED

    @property
    def until(self) -> Duration:
        """When the fork leaves its parent."""
        return self.about.moment

    def newest(self, say: Say) -> Path | None:
        """The newest sound checkpoint of the shared steps."""
        return Store(self.shared / "checkpoints").newest_sound(say)

    def job(self, loaded: LoadedConfig, say: Say = lambda _: None) -> Job:
        """The job of a config in the folder of the shared steps, whatever data were there before."""
        (self.shared / DATA).unlink(missing_ok=True)
        return self.build(loaded, self.shared, say)

    def fingerprints(self) -> dict[str, str]:
        """Those of the data that the last job was made with."""
        return read_json(self.shared / DATA)

    def judge(self) -> None:
        """Find out before the way is gone what cannot be changed. Raises RefusedError."""
        judge(self.changes, at_an_epochs_end=True, at=self.until)
        if governing("weights", self.changes):
            before, after = (self.job(which).task.state_dict() for which in (self.before, self.loaded))
            judge_weights(before, after, self.changes)


def find_way(loaded: LoadedConfig, folder: Path, build: Build) -> Way:
    """The way of the fork in `folder`. Raises StorageError where there is none."""
    about = read_about(folder)
    if not (folder / SHARED / CONFIG).is_file():
        raise StorageError(f"{folder} is an incomplete fork, without a checkpoint; remove it and fork again.")
    before = load_config(folder / SHARED / CONFIG, {"run.dir": str(loaded.config.run.dir)})
    changes = changed(before, LoadedConfig(loaded.config, loaded.data))
    return Way(loaded, before, folder, about, changes, build)
