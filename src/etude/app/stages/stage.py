"""A stage of a run: it takes what earlier stages left and leaves an artifact itself."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Protocol, TypeVar

from etude.base.says import Say


@dataclass(frozen=True)
class Artifact:
    """What a stage leaves."""

    stage: str
    """The name of the stage."""
    path: Path
    """Where it lies."""
    identity: str
    """What it was made from, as a hash; in a pipeline, a hash of what it holds."""
    metrics: Mapping[str, float] = field(default_factory=dict, kw_only=True)
    """What the stage has measured."""


A = TypeVar("A", bound=Artifact)
A_co = TypeVar("A_co", bound=Artifact, covariant=True)
Artifacts = Mapping[str, Artifact]
"""Artifacts by the names of their stages."""


class Stage(Protocol[A_co]):
    """A part of a run with an end of its own.

    Interrupted and run again it goes on, and leaves to the bit what it would have left; run again at its end it does
    nothing.
    """

    @property
    def name(self) -> str:
        """What other stages call it."""

    def inputs(self) -> Sequence[str]:
        """The names of the stages whose artifacts it takes."""

    def identity(self, inputs: Artifacts) -> str:
        """A hash of all that its artifact depends on: its inputs, and its config but for keys that change no number."""

    def run(self, folder: Path, inputs: Artifacts, say: Say) -> A_co:
        """Do what is left to do in `folder`, and give what lies there then."""


def run_stages(stages: Sequence[Stage[Artifact]], where: Callable[[str], Path], say: Say) -> Artifacts:
    """Run stages in their order, each in the folder that its name has; what each of them has left."""
    artifacts: dict[str, Artifact] = {}
    for stage in stages:
        artifacts[stage.name] = run_stage(stage, where(stage.name), artifacts, say)
    return artifacts


def run_stage(stage: Stage[A], folder: Path, artifacts: Artifacts, say: Say) -> A:
    """Run a stage after those that left `artifacts`."""
    return stage.run(folder, {name: artifacts[name] for name in stage.inputs()}, say)


def hashed(kind: str, config: Mapping[str, object], inputs: Artifacts) -> str:
    """An identity: of a kind of stage, of what it was told, and of what it takes.

    >>> hashed("train", {"a": 1, "b": 2}, {}) == hashed("train", {"b": 2, "a": 1}, {})
    True
    """
    told = {"stage": kind, "config": config, "inputs": {name: one.identity for name, one in inputs.items()}}
    return sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()
