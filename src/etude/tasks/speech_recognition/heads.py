"""Heads of a recogniser: what each makes of encoded frames, how wrong it is, and what it finds.

Legend: B sequences, T frames after subsampling, M width of the encoder, L labels, V classes, the blank included.
"""

from collections.abc import Sequence
from typing import Protocol, final

import torch
from torch import Tensor, nn

from etude.model.exact import exact
from etude.model.layers.linear import Linear
from etude.model.loss import Loss
from etude.model.losses.ctc import Ctc, infeasible
from etude.search import ctc
from etude.search.ctc import Transcript


class Labels(Protocol):
    """What a loss needs of a batch."""

    @property
    def targets(self) -> Tensor:
        """[B, L], padded at the end."""

    @property
    def target_lengths(self) -> Tensor:
        """[B]."""

    @property
    def frame_targets(self) -> Tensor | None:
        """[B, T]: the class of each encoded frame, -1 where there is none; None where nothing is aligned."""


class Head(Protocol):
    """A part of the model that has a loss and a search of its own."""

    def loss(self, encoded_BTM: Tensor, lengths_B: Tensor, labels: Labels) -> Loss:
        """How improbable the labels are, in nats, summed over the sequences that count."""

    def left_out(self, lengths_B: Tensor, labels: Labels) -> Tensor:
        """Which sequences the loss cannot count [B]."""

    def search(self, encoded_BTM: Tensor, lengths_B: Tensor, width: int) -> list[list[Transcript]]:
        """The best transcripts of each sequence, best first; with a width of 1 the greedy one."""


@final
class CtcHead(nn.Module):
    """A linear layer over frames, and connectionist temporal classification."""

    def __init__(self, width: int | None, classes: int, blank: int) -> None:
        super().__init__()
        self.blank = blank
        self.output: nn.Module = nn.Identity() if width is None else Linear(width, classes)
        self._loss = Ctc(blank)

    def loss(self, encoded_BTM: Tensor, lengths_B: Tensor, labels: Labels) -> Loss:
        """The negative log-probability of the labels; those that do not fit contribute nothing."""
        return self._loss(self.output(encoded_BTM), lengths_B, labels.targets, labels.target_lengths)

    def left_out(self, lengths_B: Tensor, labels: Labels) -> Tensor:
        """Which sequences have too few frames for their labels."""
        return infeasible(lengths_B, labels.targets, labels.target_lengths)

    def logs(self, encoded_BTM: Tensor) -> Tensor:
        """Log-probabilities [B, T, V] in float32."""
        return exact(self.output(encoded_BTM)).log_softmax(-1)

    def search(self, encoded_BTM: Tensor, lengths_B: Tensor, width: int) -> list[list[Transcript]]:
        """Greedy, or prefix search with a beam."""
        logs_BTV = self.logs(encoded_BTM)
        if width == 1:
            return [[one] for one in ctc.greedy(logs_BTV, lengths_B, blank=self.blank)]
        return ctc.beam(logs_BTV, lengths_B, width=width, blank=self.blank)


Heads = Sequence[tuple[str, Head]]


def nothing_there(lengths_B: Tensor) -> Tensor:
    """Which sequences have no frame [B]."""
    return torch.as_tensor(lengths_B == 0)
