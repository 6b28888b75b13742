"""Aligns transcripts with their recordings: by the best path of a trained network, or evenly, without one.

Legend: B sequences, T frames after subsampling.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray

from etude.base.config.components import Imported
from etude.base.errors import ConfigError, DataError
from etude.base.files import sha256_of
from etude.base.says import Say
from etude.data.files.skipped import BadSampleError
from etude.data.order.plan import Ints
from etude.data.store.alignment_writer import Aligned, write_alignments
from etude.data.store.alignments import AlignmentFacts, Alignments, open_alignments, parquet
from etude.data.store.folders import MANIFEST, manifest_of
from etude.model.alignment import Alignment, linear_alignment
from etude.model.alignment.priors import LabelCounts
from etude.tasks.aligners import PRIORS, TOPOLOGIES, Aligner, AlignmentAsked
from etude.tasks.speech_recognition.aligned import AlignedSpeech, Sequences
from etude.tasks.speech_recognition.aligned_data import counted_labels, facts_of
from etude.tasks.speech_recognition.best_paths import Alignable, BestPaths, FramePaths, LatticePaths, blocks
from etude.tasks.speech_recognition.config import SpeechDataConfig, SpeechRun
from etude.tasks.speech_recognition.data import Speech, prepare
from etude.tasks.speech_recognition.framewise import FramewiseHead, PathHead
from etude.tasks.speech_recognition.heads import CtcHead, TransductionHead
from etude.tasks.speech_recognition.processor import BLANK, SpeechProcessor
from etude.tasks.speech_recognition.task import SpeechTask

BATCH_SIZE = 16
"""Recordings computed together unless the shell says otherwise."""
SPIKES = (
    "CTC's labels are spikes: 20 to 60 ms off, and where a sound ends they do not tell. --prior-scale 1 spreads them."
)
LINEAR = "linear"

Align = Callable[[Ints], Alignment]
"""Aligns some rows of a split."""


class _Each(Protocol):
    """Aligns the sequences of a shard."""

    def __call__(self, names: Sequence[str]) -> Iterator[Aligned]:
        """Their alignments, in order."""


@final
class SpeechAligner(Aligner):
    """Aligns the recordings of a run's splits, as they are: neither changed nor joined."""

    def __init__(self, task: SpeechTask, config: SpeechRun, processor: SpeechProcessor) -> None:
        self._task, self._config, self._processor = task, config, processor

    def check(self, asked: AlignmentAsked) -> None:
        """Refuse what this run cannot align. Raises ConfigError."""
        parquet()
        if isinstance(self._config.model, Imported):
            raise ConfigError("etude align must know how many frames a model makes, but one of your own does not tell.")
        if not math.isfinite(asked.prior_scale):
            raise ConfigError(f"--prior-scale must be a finite number, but is {asked.prior_scale}.")
        if asked.priors not in {None, *PRIORS}:
            raise ConfigError(f"--priors must be {' or '.join(PRIORS)}, but is {asked.priors}.")
        if asked.priors and not asked.prior_scale:
            raise ConfigError("--priors says which ones --prior-scale takes off: give that too.")
        if asked.topology != LINEAR:
            self._check_priors(self._head(asked), asked)
        elif asked.prior_scale or asked.better_of:
            flag = "--prior-scale" if asked.prior_scale else "--better-of"
            raise ConfigError(f"{flag} is for a network, but --topology linear asks none: leave one of them out.")

    def align(self, split: str, folder: Path, asked: AlignmentAsked, say: Say) -> AlignedSpeech:
        """Align a split into `folder`; its bad recordings are left out."""
        self.check(asked)
        sequences = Sequences.of(self._opened(split, say), split)
        facts, align = self._way(sequences, asked, say)
        shards = list(blocks(sequences.ids, asked.shard_size))
        each: _Each = partial(_aligned, sequences, align, asked.batch_size or BATCH_SIZE)
        old = None if asked.better_of is None else _old(asked.better_of, folder, facts, asked, say)
        if old is not None:
            facts, each = _better(old, facts, each)
        write_alignments(folder, facts, shards, each, say=say)
        found = open_alignments(folder, facts)
        if old is not None:
            say(f"{_count_kept(old, found):,} of {len(found):,} alignments are those of before.")
        return AlignedSpeech(folder, sequences, found, facts)

    def _way(self, sequences: Sequences, asked: AlignmentAsked, say: Say) -> tuple[AlignmentFacts, Align]:
        """How recordings are aligned, and what their alignments are of."""
        if asked.topology == LINEAR:
            facts = facts_of(self._config, self._processor, "hmm", None, data=sequences.fingerprint)
            return facts, partial(_evenly, sequences)
        head = self._head(asked)
        topology = _topology(head)
        network = self._network(head, sequences, asked)
        if topology == "ctc" and not asked.prior_scale:
            say(SPIKES)
        model = network.identity()
        facts = facts_of(self._config, self._processor, topology, BLANK, model=model, data=sequences.fingerprint)
        return facts, network

    def _network(self, head: Alignable, sequences: Sequences, asked: AlignmentAsked) -> BestPaths:
        match head:
            case TransductionHead() | PathHead():
                return LatticePaths(self._task, head, sequences)
        paths = FramePaths(self._task, head, sequences)
        if not asked.prior_scale:
            return paths
        return paths.without(self._priors(paths, asked).logs(), asked.prior_scale)

    def _check_priors(self, head: Alignable, asked: AlignmentAsked) -> None:
        """Refuse to take priors off what a transducer says, which depends on what was said before."""
        if asked.prior_scale and _topology(head) == "transducer":
            raise ConfigError("--prior-scale is for --topology ctc and hmm: classes of a transducer have no priors.")

    def _head(self, asked: AlignmentAsked) -> Alignable:
        """The first head whose classes have the topology. Raises ConfigError where the network has none."""
        if asked.topology not in {None, *TOPOLOGIES}:
            raise ConfigError(f"--topology must be {', '.join(TOPOLOGIES)}, but is {asked.topology}.")
        for head in self._task.heads.values():
            if isinstance(head, Alignable) and asked.topology in {None, _topology(head)}:
                return head
        raise ConfigError(
            "--topology ctc needs a network trained with loss.type ctc, hmm one trained with loss.type framewise, and "
            f"transducer one trained with loss.type transducer, or framewise with the head of one, but this run's "
            f"loss.type is {self._config.loss.type}; --topology linear needs none."
        )

    def _opened(self, split: str, say: Say) -> Speech:
        """The recordings of a split; where one is bad and the config ends there, without the bad ones."""
        data = self._config.data.model_copy(update={"join": None, "max_skipped": "100%"})
        try:
            return prepare(self._with(data), [split], say, self._processor)
        except BadSampleError:
            skipping = data.model_copy(update={"on_bad_sample": "skip"})
            return prepare(self._with(skipping), [split], say, self._processor)

    def _with(self, data: SpeechDataConfig) -> SpeechRun:
        return self._config.model_copy(update={"data": data})

    def _priors(self, paths: FramePaths, asked: AlignmentAsked) -> LabelCounts:
        """How often each class is.

        Counted, unless averages are asked for, in what a frame-wise network was trained on; averaged, unless counts on
        the best paths are asked for, from what CTC says here.
        """
        size = asked.batch_size or BATCH_SIZE
        match paths.head, asked.priors:
            case FramewiseHead(), "counted" | None:
                return counted_labels(self._config, self._processor)
            case CtcHead(), "counted":
                return paths.counted(size)
        return paths.averaged(size)


def _topology(head: Alignable) -> str:
    match head:
        case CtcHead():
            return "ctc"
        case FramewiseHead():
            return "hmm"
    return "transducer"


class _Old(NamedTuple):
    """Alignments of before, of the same recordings."""

    folder: Path
    stored: Alignments


def _old(place: Path, folder: Path, facts: AlignmentFacts, asked: AlignmentAsked, say: Say) -> _Old | None:
    """The alignments of before, to be compared with those now; None where they cannot be and that is no mistake.

    Raises ConfigError where both are one folder, DataError where the old paths are of something else or have no score.
    """
    if place.resolve() == folder.resolve():
        raise ConfigError(f"--better-of {place} is the folder that is written: give the new one another --name.")
    alike, said = replace(facts, model=""), manifest_of(place)["facts"]
    if not asked.must_compare and (alike.differences(said) or not said["model"]):
        say(f"{place} holds alignments of another kind, or without scores: none of them is kept.")
        return None
    stored = open_alignments(place, alike)
    if not said["model"]:
        raise DataError(
            f"The alignments in {place} were made without a network, so that they have no score to compare."
        )
    return _Old(place, stored)


def _better(old: _Old, facts: AlignmentFacts, each: _Each) -> tuple[AlignmentFacts, _Each]:
    """What keeps, of an old path and the one found now, that with the higher score; and what its paths are of."""
    both = hashlib.sha256(f"{facts.model} {sha256_of(old.folder / MANIFEST)}".encode()).hexdigest()

    def better(names: Sequence[str]) -> Iterator[Aligned]:
        return (_of_both(old.stored, one) for one in each(names))

    return replace(facts, model=both), better


def _count_kept(old: _Old, found: Alignments) -> int:
    """How many alignments have the score that the old one has."""
    return sum(name in old.stored and old.stored.score(name) == found.score(name) for name in found)


def _of_both(old: Alignments, found: Aligned) -> Aligned:
    """The one with the higher score, of equal ones the new one."""
    name = found.sequence
    if name not in old or old.score(name) <= found.score:
        return found
    return Aligned(name, old[name].tolist(), old.score(name))


def _evenly(sequences: Sequences, rows: Ints) -> Alignment:
    """The frames of each divided among its labels."""
    frames, (labels_BL, label_lengths_B) = sequences.frames[rows], sequences.labels(rows)
    return linear_alignment(int(frames.max(initial=0)), torch.from_numpy(frames), labels_BL, label_lengths_B)


def _aligned(sequences: Sequences, align: Align, batch_size: int, names: Sequence[str]) -> Iterator[Aligned]:
    """The alignments of a shard, in order; recordings of similar lengths are aligned together."""
    found: dict[int, Aligned] = {}
    rows = [sequences.rows[name] for name in names]
    for block in blocks(sequences.by_length(rows), batch_size):
        alignment = align(block)
        classes_BT, scores_B = alignment.classes.cpu().numpy(), alignment.scores.tolist()
        for row, classes_T, score in zip(block.tolist(), classes_BT, scores_B, strict=True):
            found[row] = _row(sequences.ids[row], classes_T[: sequences.frames[row]], score)
    return map(found.__getitem__, rows)


def _row(name: str, classes_T: NDArray[np.int64], score: float) -> Aligned:
    """An alignment as it is stored; one without a class for each frame is none."""
    if score > -math.inf and (classes_T >= 0).all():
        return Aligned(name, classes_T.tolist(), score)
    return Aligned(name, (), -math.inf)
