"""The best paths that the heads of a trained network find for the labels of recordings.

Legend: B sequences, T frames after subsampling, U labels and one, M width of the encoder, V classes.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import NamedTuple, Protocol, TypeVar, final

import torch
from torch import Tensor, nn

from etude.data.feeds.recorded import SpeechBatch
from etude.data.order.plan import Ints
from etude.model.alignment import Alignment, ctc_alignment
from etude.model.alignment.hmm import hmm_alignment, scaled
from etude.model.alignment.priors import LabelCounts
from etude.model.alignment.transducer import rna_alignment, transducer_alignment
from etude.model.losses.transducer import Transducer
from etude.tasks.speech_recognition.aligned import Sequences
from etude.tasks.speech_recognition.framewise import FramewiseHead, PathHead
from etude.tasks.speech_recognition.heads import CtcHead, TransductionHead
from etude.tasks.speech_recognition.processor import BLANK
from etude.tasks.speech_recognition.task import SpeechTask

NODES = 1 << 15
"""Nodes of lattices whose logits are made at a time."""
S = TypeVar("S", Ints, Sequence[str])
Alignable = CtcHead | FramewiseHead | TransductionHead | PathHead


class BestPaths(Protocol):
    """Aligns rows of a split."""

    def __call__(self, rows: Ints) -> Alignment:
        """The best path of each."""

    def identity(self) -> str:
        """A hash of the weights, and of all else that decides it."""


class _Encoded(NamedTuple):
    """What the encoder makes of some recordings, and their labels."""

    frames: Tensor
    """[B, T, M]."""
    lengths: Tensor
    """[B]."""
    batch: SpeechBatch

    @classmethod
    def of(cls, task: SpeechTask, sequences: Sequences, rows: Ints) -> "_Encoded":
        """Those of rows."""
        batch = sequences.samples.batch(rows)
        assert isinstance(batch, SpeechBatch)
        batch = batch.to(next(task.model.parameters()).device)
        encoded_BTM, lengths_B = task.model(batch.features, batch.lengths)
        return cls(encoded_BTM, lengths_B, batch)


@final
@dataclass(frozen=True, eq=False)
class FramePaths(BestPaths):
    """By what a head says of each frame; `prior_scale` of the log-priors [V] is taken off."""

    task: SpeechTask
    head: CtcHead | FramewiseHead
    sequences: Sequences
    priors: Tensor | None = None
    prior_scale: float = 0.0

    def without(self, priors_V: Tensor, prior_scale: float) -> "FramePaths":
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
    def averaged(self, batch_size: int) -> LabelCounts:
        """The sum of what the head says of each class, over all frames."""
        return self._sum(LabelCounts.averaged(*self._said(rows)[:2]) for rows in self._blocks(batch_size))

    def counted(self, batch_size: int) -> LabelCounts:
        """How many frames each class has on the best paths."""
        classes = self.task.tokenizer.size
        return self._sum(LabelCounts.of(self(rows), classes) for rows in self._blocks(batch_size))

    def identity(self) -> str:
        """A hash of the weights, and of what is taken off."""
        if self.priors is None:
            return _hash_of(self.task.model)
        scale = torch.tensor(self.prior_scale, dtype=torch.float64)
        return _hash_of(self.task.model, priors=self.priors, prior_scale=scale)

    def _blocks(self, batch_size: int) -> Iterator[Ints]:
        return blocks(self.sequences.by_length(), batch_size)

    def _sum(self, counts: Iterator[LabelCounts]) -> LabelCounts:
        return reduce(add, counts, LabelCounts(torch.zeros(self.task.tokenizer.size, dtype=torch.float64)))

    def _said(self, rows: Ints) -> _Encoded:
        encoded = _Encoded.of(self.task, self.sequences, rows)
        return encoded._replace(frames=self.head.logs(encoded.frames))


@final
@dataclass(frozen=True, eq=False)
class LatticePaths(BestPaths):
    """By what a transducer says of each frame after each number of labels: a blank or one label in each frame.

    One that was trained on all ways may say several labels in a frame: its best way is found, and labels whose frame
    is taken go to the next free one. Its score is that of the way as it was found.
    """

    task: SpeechTask
    head: TransductionHead | PathHead
    sequences: Sequences

    @torch.no_grad()
    def __call__(self, rows: Ints) -> Alignment:
        """The best path of each."""
        encoded_BTM, lengths_B, batch = _Encoded.of(self.task, self.sequences, rows)
        labels_BL, counts_B = batch.targets, batch.target_lengths
        blank_BTU, label_BTU = self._moves(encoded_BTM, labels_BL, counts_B)
        match self.head:
            case PathHead():
                return rna_alignment(blank_BTU, label_BTU, lengths_B, labels_BL, counts_B, blank=BLANK)
        found = transducer_alignment(blank_BTU, label_BTU, lengths_B, counts_B)
        return found.apart(encoded_BTM.size(1), lengths_B, labels_BL, blank=BLANK)

    def identity(self) -> str:
        """A hash of the weights."""
        return _hash_of(self.task.model)

    def _moves(self, encoded_BTM: Tensor, labels_BL: Tensor, counts_B: Tensor) -> tuple[Tensor, Tensor]:
        """The log-probabilities of the blank and of the next label at each node [B, T, U]."""
        network = self.head.network
        said_BUE = network.predictor(labels_BL)
        frames = max(1, NODES // max(1, said_BUE.size(0) * said_BUE.size(1)))
        return Transducer(BLANK).moves(network.joint, encoded_BTM, said_BUE, labels_BL, counts_B, frames=frames)


def _hash_of(model: nn.Module, **further: Tensor) -> str:
    """A hash of a model's weights and of further tensors."""
    digest = hashlib.sha256()
    for name, value in sorted({**model.state_dict(), **further}.items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def blocks(values: S, size: int) -> Iterator[S]:
    """So many at a time."""
    for first in range(0, len(values), size):
        yield values[first : first + size]
