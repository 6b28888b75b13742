"""Aligns transcripts with their recordings: by the best path of a trained network, or evenly, without one.

Legend: B sequences, T frames after subsampling, V classes.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import NamedTuple, TypeVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from etude.base.config.components import Imported
from etude.base.errors import ConfigError
from etude.base.says import Say
from etude.data.feeds.recorded import SpeechBatch
from etude.data.files.skipped import BadSampleError
from etude.data.order.plan import Ints
from etude.data.store.alignment_writer import Aligned, write_alignments
from etude.data.store.alignments import AlignmentFacts, open_alignments, parquet
from etude.model.alignment import Alignment, ctc_alignment, linear_alignment
from etude.model.alignment.hmm import hmm_alignment, scaled
from etude.model.alignment.priors import LabelCounts
from etude.tasks.aligners import TOPOLOGIES, Aligner, AlignmentAsked
from etude.tasks.speech_recognition.aligned import AlignedSpeech, Sequences
from etude.tasks.speech_recognition.aligned_data import counted_labels, facts_of
from etude.tasks.speech_recognition.config import SpeechDataConfig, SpeechRun
from etude.tasks.speech_recognition.data import Speech, prepare
from etude.tasks.speech_recognition.framewise import FramewiseHead
from etude.tasks.speech_recognition.heads import CtcHead
from etude.tasks.speech_recognition.processor import BLANK, SpeechProcessor
from etude.tasks.speech_recognition.task import SpeechTask

BATCH_SIZE = 16
"""Recordings computed together unless the shell says otherwise."""
SPIKES = (
    "CTC's labels are spikes: 20 to 60 ms off, and where a sound ends they do not tell. --prior-scale 1 spreads them."
)
LINEAR = "linear"
S = TypeVar("S", Ints, Sequence[str])

Align = Callable[[Ints], Alignment]
"""Aligns some rows of a split."""


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
        if asked.topology != LINEAR:
            self._head(asked)
        elif asked.prior_scale:
            raise ConfigError("--prior-scale is for a network, but --topology linear asks none: leave one of them out.")

    def align(self, split: str, folder: Path, asked: AlignmentAsked, say: Say) -> AlignedSpeech:
        """Align a split into `folder`; its bad recordings are left out."""
        self.check(asked)
        sequences = Sequences.of(self._opened(split, say), split)
        facts, align = self._way(sequences, asked, say)
        shards = list(_blocks(sequences.ids, asked.shard_size))
        each = partial(_aligned, sequences, align, asked.batch_size or BATCH_SIZE)
        write_alignments(folder, facts, shards, each, say=say)
        return AlignedSpeech(folder.name, sequences, open_alignments(folder, facts), facts)

    def _way(self, sequences: Sequences, asked: AlignmentAsked, say: Say) -> tuple[AlignmentFacts, Align]:
        """How recordings are aligned, and what their alignments are of."""
        if asked.topology == LINEAR:
            facts = facts_of(self._config, self._processor, "hmm", None, data=sequences.fingerprint)
            return facts, partial(_evenly, sequences)
        head = self._head(asked)
        topology = _topology(head)
        network = Network(self._task, head, sequences)
        if asked.prior_scale:
            network = network.without(self._priors(network, asked).logs(), asked.prior_scale)
        elif topology == "ctc":
            say(SPIKES)
        model = network.identity()
        facts = facts_of(self._config, self._processor, topology, BLANK, model=model, data=sequences.fingerprint)
        return facts, network

    def _head(self, asked: AlignmentAsked) -> CtcHead | FramewiseHead:
        """The first head whose classes have the topology. Raises ConfigError where the network has none."""
        if asked.topology not in {None, *TOPOLOGIES}:
            raise ConfigError(f"--topology must be {', '.join(TOPOLOGIES)}, but is {asked.topology}.")
        for head in self._task.heads.values():
            if isinstance(head, CtcHead | FramewiseHead) and asked.topology in {None, _topology(head)}:
                return head
        raise ConfigError(
            "--topology ctc needs a network trained with loss.type ctc, and hmm one trained with loss.type framewise, "
            f"but this run's loss.type is {self._config.loss.type}; --topology linear needs none."
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

    def _priors(self, network: "Network", asked: AlignmentAsked) -> LabelCounts:
        """How often each class is: of a frame-wise network in what it was trained on, of CTC in what it says here."""
        match network.head:
            case FramewiseHead():
                return counted_labels(self._config, self._processor)
        return network.counted(asked.batch_size or BATCH_SIZE)


def _topology(head: CtcHead | FramewiseHead) -> str:
    return "ctc" if isinstance(head, CtcHead) else "hmm"


class _Said(NamedTuple):
    """What a network says of the frames of some recordings, and their labels."""

    logs: Tensor
    """[B, T, V]: log-probabilities."""
    lengths: Tensor
    """[B]: frames of each."""
    batch: SpeechBatch


@final
@dataclass(frozen=True, eq=False)
class Network:
    """Aligns rows by the best path over what a head says; `prior_scale` of the log-priors [V] is taken off."""

    task: SpeechTask
    head: CtcHead | FramewiseHead
    sequences: Sequences
    priors: Tensor | None = None
    prior_scale: float = 0.0

    def without(self, priors_V: Tensor, prior_scale: float) -> "Network":
        """The same without priors."""
        return replace(self, priors=priors_V, prior_scale=prior_scale)

    @torch.no_grad()
    def __call__(self, rows: Ints) -> Alignment:
        """The best path of each."""
        logs_BTV, lengths_B, batch = self._said(rows)
        if self.priors is not None:
            logs_BTV = scaled(logs_BTV, self.priors, self.prior_scale)
        labels_BL, label_lengths_B = batch.targets, batch.target_lengths
        match self.head:
            case CtcHead():
                return ctc_alignment(logs_BTV, lengths_B, labels_BL, label_lengths_B, blank=BLANK)
        return hmm_alignment(logs_BTV, lengths_B, labels_BL, label_lengths_B, silence=BLANK)

    @torch.no_grad()
    def counted(self, batch_size: int) -> LabelCounts:
        """The sum of what the head says of each class, over all frames."""
        counts = [
            LabelCounts.averaged(*self._said(rows)[:2]) for rows in _blocks(self.sequences.by_length(), batch_size)
        ]
        return reduce(add, counts, LabelCounts(torch.zeros(self.task.tokenizer.size, dtype=torch.float64)))

    def identity(self) -> str:
        """A hash of the weights, and of what is taken off."""
        digest = hashlib.sha256()
        parts = dict(self.task.model.state_dict())
        if self.priors is not None:
            parts |= {"priors": self.priors, "prior_scale": torch.tensor(self.prior_scale, dtype=torch.float64)}
        for name, value in sorted(parts.items()):
            digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
            digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def _said(self, rows: Ints) -> _Said:
        batch = self.sequences.samples.batch(rows)
        assert isinstance(batch, SpeechBatch)
        batch = batch.to(next(self.task.model.parameters()).device)
        encoded_BTM, lengths_B = self.task.model(batch.features, batch.lengths)
        return _Said(self.head.logs(encoded_BTM), lengths_B, batch)


def _evenly(sequences: Sequences, rows: Ints) -> Alignment:
    """The frames of each divided among its labels."""
    frames, (labels_BL, label_lengths_B) = sequences.frames[rows], sequences.labels(rows)
    return linear_alignment(int(frames.max(initial=0)), torch.from_numpy(frames), labels_BL, label_lengths_B)


def _aligned(sequences: Sequences, align: Align, batch_size: int, names: Sequence[str]) -> Iterator[Aligned]:
    """The alignments of a shard, in order; recordings of similar lengths are aligned together."""
    found: dict[int, Aligned] = {}
    rows = [sequences.rows[name] for name in names]
    for block in _blocks(sequences.by_length(rows), batch_size):
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


def _blocks(values: S, size: int) -> Iterator[S]:
    """So many at a time."""
    for first in range(0, len(values), size):
        yield values[first : first + size]
