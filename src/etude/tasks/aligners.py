"""Alignments as they are asked of a run: what a task finds of where labels lie, and what it can write of that."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from etude.base.says import Say

TOPOLOGIES = ("ctc", "hmm", "transducer", "linear")
PRIORS = ("counted", "averaged")
FORMS = ("textgrid", "ctm", "json")
SHARD = 1000
"""Sequences of a shard unless it is said otherwise: what an interruption costs, at most."""


@dataclass(frozen=True)
class AlignmentAsked:
    """How an alignment is asked for."""

    topology: str | None = None
    """One of `TOPOLOGIES`; None for that of the network."""
    prior_scale: float = 0.0
    """How much of the classes' log-priors is taken off their log-probabilities."""
    priors: str | None = None
    """One of `PRIORS`; None for what is usual of the topology."""
    better_of: Path | None = None
    """Alignments of which each path is kept that scores more than the new one."""
    must_compare: bool = True
    """Whether those of another kind, or without scores, are refused; else none of them is kept."""
    batch_size: int | None = None
    shard_size: int = SHARD


class Stored(Protocol):
    """The alignment of a split, as it is stored."""

    folder: Path
    """Where it is stored, as `loss.alignments` names it."""
    missing: Mapping[str, str]
    """Why a sample has none, by its place in its file."""

    @property
    def aligned(self) -> int:
        """How many of its samples have one."""

    def files(self, form: str) -> Iterator[tuple[str, str]]:
        """The names of files, of which folders may be a part, and their texts, in one of `FORMS`."""

    def pictures(self, most: int) -> Iterator[tuple[str, str]]:
        """The names and texts of SVG pictures of the first samples."""


class Aligner(Protocol):
    """Finds where the labels of samples lie."""

    def check(self, asked: AlignmentAsked) -> None:
        """Refuse what cannot be aligned so. Raises ConfigError."""

    def align(self, split: str, folder: Path, asked: AlignmentAsked, say: Say) -> Stored:
        """Align a split and store that in `folder`; where that was begun before, go on.

        Raises DataError where its files cannot be used, ConfigError where the config names none.
        """
