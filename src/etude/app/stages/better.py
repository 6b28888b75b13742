"""Of two alignments of the same recordings, the better one of each: that whose path has the higher score."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

from etude.base.says import Say
from etude.data.store.alignment_writer import Aligned, write_alignments
from etude.data.store.alignments import AlignmentFacts, Alignments, open_alignments
from etude.data.store.folders import manifest_of

ALIKE = ("topology", "blank", "labels", "frame_seconds", "subsampling", "data")
"""What alignments must share to stand side by side."""


def write_better(folder: Path, new: Path, old: Path, shard_size: int, say: Say) -> None:
    """Write the better of each into `folder`; those that are not of the same frames and labels are the new ones.

    Scores are log-probabilities, each of its own network. An alignment without a network has none, and is never kept.
    """
    facts, others = (AlignmentFacts(**manifest_of(place)["facts"]) for place in (new, old))
    found, known = open_alignments(new, facts), open_alignments(old, others)
    kept = set[str]()
    if _are_comparable(facts, others):
        kept.update(_kept(found, known))
    else:
        say(f"{old} holds alignments of another kind, or without scores: none of them is kept.")
    names = list(found)
    shards = [names[first : first + shard_size] for first in range(0, len(names), shard_size)]

    def rows(sequences: Sequence[str]) -> Iterator[Aligned]:
        for name in sequences:
            whose = known if name in kept else found
            yield Aligned(name, whose[name].tolist(), whose.score(name))

    model = hashlib.sha256(f"{facts.model} {others.model} {sorted(kept)}".encode()).hexdigest()
    write_alignments(folder, replace(facts, model=model), shards, rows, say=say)
    say(f"{len(kept):,} of {len(names):,} alignments are kept from before, since their scores are higher.")


def _are_comparable(facts: AlignmentFacts, others: AlignmentFacts) -> bool:
    """Whether alignments of before have scores, and are of the same frames and labels."""
    what = attrgetter(*ALIKE)
    return bool(others.model) and bool(what(facts) == what(others))


def _kept(found: Alignments, known: Alignments) -> Iterator[str]:
    """The sequences whose alignment of before is better."""
    for name in found:
        if name in known and known.score(name) > found.score(name):
            yield name
