"""A stage in a pipeline, with all that the pipeline must know of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from etude.app.stages.names import BUILT_IN, Reference
from etude.app.stages.stage import Artifact, Stage
from etude.app.stages.told import Composed, Told
from etude.base.config.composing import Origin
from etude.tasks.config import LoadedConfig


@dataclass(frozen=True)
class Made:
    """What a kind makes of what it is told."""

    stage: Stage[Artifact]
    references: Mapping[str, Reference] = field(default_factory=dict)
    """The stages that it names, by the key."""
    composed: Composed | None = None
    """The config of a stage that has one of its own."""
    used: LoadedConfig | None = None
    """The config of the run whose weights it uses, with what it changes in it."""
    written: Mapping[str, object] = field(default_factory=dict)
    """Its other keys, as a composed config writes them."""
    own: Sequence[str] = ()
    """The keys that this kind of stage has of its own."""
    splits: Sequence[str] = ()
    """The splits of the data that it reads."""
    code: Sequence[Path] = ()
    """Files of code that it runs, beside those that its config names."""


class Node(NamedTuple):
    """A stage of a pipeline."""

    told: Told
    made: Made

    @property
    def name(self) -> str:
        """What it is called, and its folder."""
        return self.told.name

    @property
    def folder(self) -> Path:
        """Where it writes."""
        return self.told.folder

    @property
    def do(self) -> str:
        """What kind of stage it is."""
        return self.told.entry.do

    @property
    def is_own(self) -> bool:
        """Whether what it does is the user's own."""
        return self.told.entry.made is not None or self.do not in BUILT_IN

    @property
    def loaded(self) -> LoadedConfig | None:
        """Its config, or else that of the run which it uses."""
        return self.made.used if self.made.composed is None else self.made.composed.loaded

    @property
    def stage(self) -> Stage[Artifact]:
        """The stage."""
        return self.made.stage

    def where(self, key: str) -> Origin | None:
        """Where one of its keys stands."""
        return self.told.where(key.partition(".")[0])
