"""The stage that trains: what `etude train` does with a config, and all of it where the config names no stages."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from etude.app.build import imported_files
from etude.app.fork.way import Build
from etude.app.results.summary import REMOVED
from etude.app.runs.changes import machine_notes
from etude.app.runs.environment import environment
from etude.app.runs.folder import ENVIRONMENT, compare, copy_code, describe, has_checkpoint
from etude.app.runs.identity import note_identity, numbers_of
from etude.app.stages.continuing import continue_from_longest, remove_continued
from etude.app.stages.shorter import answered
from etude.app.stages.stage import Artifact, Artifacts, hashed
from etude.base.files import json_or_empty
from etude.base.says import Say
from etude.tasks.config import LoadedConfig
from etude.train.fit import Result, fit
from etude.train.memory.checkpoint.content import MANIFEST

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
    takes: Sequence[str] = ()
    """The stages that its config names."""
    named: Mapping[str, object] | None = None
    """Its config with names of stages in the place of their paths, where it names any."""

    def inputs(self) -> Sequence[str]:
        """The stages that the run begins from, or is told of by its config."""
        return (*self.begins, *self.takes)

    def identity(self, inputs: Artifacts) -> str:
        """A hash of the keys that change numbers, and of what the run takes."""
        return hashed(
            "train",
            numbers_of(type(self.loaded.config), self.loaded.data if self.named is None else self.named),
            inputs,
        )

    def begin(self, folder: Path, inputs: Artifacts, say: Say) -> None:
        """Make the run's first checkpoint, where it begins from an artifact and has none yet."""
        for name, begin in self.begins.items():
            if not has_checkpoint(folder):
                begin(folder, inputs[name].path, say)

    def run(self, folder: Path, inputs: Artifacts, say: Say) -> Trained:
        """Train, go on, or find the run finished."""
        self.begin(folder, inputs, say)
        loaded = self.loaded
        # A pipeline has compared what its stages are made of, whatever place they have been moved to since.
        changes = compare(loaded, folder) if self.named is None else ()
        for note in (*loaded.notes, *changes):
            say(note)
        copy_code(imported_files(loaded.config), folder)
        job = self.build(loaded, folder, say)
        now = environment()
        for note in machine_notes(folder / ENVIRONMENT, now):
            say(note)
        describe(loaded, folder, now)
        note_identity(folder)
        (folder / REMOVED).unlink(missing_ok=True)
        continue_from_longest(loaded, folder, say)
        result = answered(fit(job), loaded, folder, say)
        remove_continued(loaded, folder, say)
        return Trained(
            self.name, folder, self.identity(inputs), result, metrics=_measured(result, loaded.config.train.monitor)
        )


def _measured(result: Result, monitor: str) -> dict[str, float]:
    """What validation has measured at the best checkpoint, or else at the end; what it is judged by stands first."""
    found = {} if result.best is None else json_or_empty(result.best / MANIFEST).get("metrics")
    measured = {**result.metrics, **(found or {})}
    return {name: measured[name] for name in [monitor, *measured] if name in measured}
