"""The stage that trains: what `etude train` does with a config, and all of it where the config names no stages."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from etude.app.build import imported_files
from etude.app.fork.way import Build
from etude.app.runs.changes import machine_notes
from etude.app.runs.environment import environment
from etude.app.runs.folder import ENVIRONMENT, compare, copy_code, describe, has_checkpoint
from etude.app.stages.stage import Artifact, Artifacts, hashed
from etude.base.config.meaning import meaning_of
from etude.base.says import Say
from etude.tasks.config import LoadedConfig
from etude.train.fit import Result, fit

Begin = Callable[[Path, Path, Say], None]
"""Makes the first checkpoint of the run in a folder from what lies at a path."""


@dataclass(frozen=True)
class Trained(Artifact):
    """A run that has been trained: its folder."""

    result: Result


@dataclass(frozen=True)
class Train:
    """Trains a config, from its first step or from what an earlier stage left."""

    name: str
    loaded: LoadedConfig
    build: Build
    begins: Mapping[str, Begin] = field(default_factory=dict)
    """By the name of a stage: how the run begins from its artifact."""

    def inputs(self) -> Sequence[str]:
        """The stages that the run begins from."""
        return tuple(self.begins)

    def identity(self, inputs: Artifacts) -> str:
        """A hash of the keys that change numbers, and of what the run begins from."""
        root = type(self.loaded.config)
        told = {key: value for key, value, _ in self.loaded.values() if meaning_of(root, key).identity != "none"}
        return hashed("train", told, inputs)

    def begin(self, folder: Path, inputs: Artifacts, say: Say) -> None:
        """Make the run's first checkpoint, where it begins from an artifact and has none yet."""
        for name, begin in self.begins.items():
            if not has_checkpoint(folder):
                begin(folder, inputs[name].path, say)

    def run(self, folder: Path, inputs: Artifacts, say: Say) -> Trained:
        """Train, go on, or find the run finished."""
        self.begin(folder, inputs, say)
        loaded = self.loaded
        for note in (*loaded.notes, *compare(loaded, folder)):
            say(note)
        copy_code(imported_files(loaded.config), folder)
        job = self.build(loaded, folder, say)
        now = environment()
        for note in machine_notes(folder / ENVIRONMENT, now):
            say(note)
        describe(loaded, folder, now)
        result = fit(job)
        return Trained(self.name, folder, self.identity(inputs), result)
