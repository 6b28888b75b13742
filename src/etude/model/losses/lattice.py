"""The lattice of a transducer (Graves 2012): the log-probability of all ways through it, and how often each is taken.

A way goes from frame 0 and no label to the last frame and all labels, by moves of one frame (a blank) or one label, and
ends with a blank. It is summed in float64: in float32, what comes and what is to come cancel to three digits. Both
are summed at once, one diagonal after another, so that a step is one operation over all sequences and labels.

Legend: B sequences, T frames, U labels and one, D diagonals, W two ways (forward, then backward) for each sequence.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def lattice_costs(blank_BTU: Tensor, label_BTU: Tensor, lengths_B: Tensor, target_lengths_B: Tensor) -> Tensor:
    """The negative log-probability of all ways through each lattice [B].

    `blank_BTU` and `label_BTU` are log-probabilities of the moves from each node, float64; lengths are of frames, at
    least one, and of labels. Moves out of the lattice are not looked at. The gradient cannot be differentiated again.
    """
    costs_B: Tensor = _Lattice.apply(blank_BTU, label_BTU, lengths_B, target_lengths_B)  # type: ignore[no-untyped-call]
    return costs_B


class _Context(Protocol):
    """What autograd keeps between forward and backward."""

    needs_input_grad: Sequence[bool]
    saved_tensors: Sequence[Tensor]

    def save_for_backward(self, *tensors: Tensor) -> None: ...


class _Lattice(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _Context, blank_BTU: Tensor, label_BTU: Tensor, lengths_B: Tensor, target_lengths_B: Tensor
    ) -> Tensor:
        nodes = _Nodes(blank_BTU, label_BTU, lengths_B, target_lengths_B)
        if not any(ctx.needs_input_grad):
            return nodes.costs(_summed(*nodes.forward_moves()))
        joined = map(_joined, nodes.forward_moves(), nodes.backward_moves())
        reached_DUW = _summed(*joined)
        costs_B = nodes.costs(reached_DUW)
        ctx.save_for_backward(*nodes.shares(reached_DUW, costs_B))
        return costs_B

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, gradient_B: Tensor) -> tuple[Tensor, Tensor, None, None]:
        blank_BTU, label_BTU = ctx.saved_tensors
        factor_B11 = -gradient_B[:, None, None]
        return blank_BTU * factor_B11, label_BTU * factor_B11, None, None


def _joined(forward: Tensor, backward: Tensor) -> Tensor:
    return torch.cat((forward, backward), -1)


def _summed(start_W: Tensor, blank_DUW: Tensor, label_DUW: Tensor) -> Tensor:
    """The log of the sum over ways to each node [D, U, W]; moves are those that lead to it."""
    reached = blank_DUW.new_full((len(blank_DUW), blank_DUW.size(1) + 1, blank_DUW.size(2)), -math.inf)
    reached[0, 1] = start_W  # row 0 stands for a label before the first, which nothing reaches
    before_DUW, here_DUW = reached[:-1, :-1].unbind(), reached[1:, 1:].unbind()
    same_DUW = reached[:-1, 1:].unbind()
    for by_label, by_blank, here, blank, label in zip(
        before_DUW, same_DUW, here_DUW, blank_DUW[1:].unbind(), label_DUW[1:].unbind(), strict=True
    ):
        torch.logaddexp(by_blank + blank, by_label + label, out=here)
    return reached[:, 1:]


@final
@dataclass(frozen=True, eq=False)
class _Nodes:
    """The nodes of all lattices of a batch, and the log-probabilities of the moves from them."""

    blank: Tensor
    """[B, T, U]."""
    label: Tensor
    """[B, T, U]."""
    lengths: Tensor
    target_lengths: Tensor

    def _along(self, dimension: int) -> Tensor:
        return torch.arange(self.blank.size(dimension), device=self.blank.device)

    def _diagonals(self) -> tuple[Tensor, Tensor]:
        """Frame [D, U, 1] and label [U, 1] of each place; the last diagonal holds the end behind the last blank."""
        label_U1 = self._along(2)[:, None]
        diagonals = torch.arange(self.blank.size(1) + self.blank.size(2), device=self.blank.device)
        return diagonals[:, None, None] - label_U1, label_U1

    def forward_moves(self) -> tuple[Tensor, Tensor, Tensor]:
        """The start [B], and the moves [D, U, B] to each node from those before it."""
        frame, label = self._diagonals()
        blank_DUB, label_DUB = self._moves(self.blank, frame - 1, label), self._moves(self.label, frame, label - 1)
        return self.blank.new_zeros(len(self.blank)), blank_DUB, label_DUB

    def backward_moves(self) -> tuple[Tensor, Tensor, Tensor]:
        """The same seen from the last node of each lattice, where a move leads to the node that it is from."""
        frame, label = self._diagonals()
        frame, label = self.lengths - 1 - frame, self.target_lengths - label
        blank_DUB = self._moves(self.blank, frame, label)
        return blank_DUB[0, 0], blank_DUB, self._moves(self.label, frame, label)

    def _moves(self, values_BTU: Tensor, frame: Tensor, label: Tensor) -> Tensor:
        """The moves from these nodes [D, U, B]; none from what is outside of a lattice."""
        inside = (frame >= 0) & (frame < self.lengths) & (label >= 0) & (label <= self.target_lengths)
        place = (self._along(0) * values_BTU.size(1) + frame) * values_BTU.size(2) + label
        return values_BTU.take(place.where(inside, 0)).masked_fill_(~inside, -math.inf)

    def costs(self, reached_DUW: Tensor) -> Tensor:
        """What the end behind the last blank costs [B]."""
        return -reached_DUW[self.lengths + self.target_lengths, self.target_lengths, self._along(0)]

    def shares(self, reached_DUW: Tensor, costs_B: Tensor) -> tuple[Tensor, Tensor]:
        """The probability that a way takes the blank, and the label, of each node [B, T, U]: 0 outside of a lattice."""
        come, left = self._come_and_left(reached_DUW)
        come += costs_B[:, None, None]
        after_blank, after_label = torch.full_like(left, -math.inf), torch.full_like(left, -math.inf)
        after_blank[:, :-1], after_label[..., :-1] = left[:, 1:], left[..., 1:]
        after_blank[self._along(0), self.lengths - 1, self.target_lengths] = 0.0
        return (after_blank + come + self.blank).exp_(), (after_label + come + self.label).exp_()

    def _come_and_left(self, reached_DUW: Tensor) -> tuple[Tensor, Tensor]:
        """The log of the sum over ways to each node, and over those from it to the end [B, T, U]; none outside."""
        sequence, frame, label = self._along(0)[:, None, None], self._along(1)[:, None], self._along(2)
        frames_left = (self.lengths[:, None, None] - 1 - frame).clamp(min=-1)
        labels_left = (self.target_lengths[:, None, None] - label).clamp(min=-1)
        outside = (frames_left < 0) | (labels_left < 0)
        come = reached_DUW[frame + label, label, sequence]
        labels_left = labels_left.clamp_(min=0)
        left = reached_DUW[frames_left.clamp_(min=0) + labels_left, labels_left, sequence + len(self.blank)]
        return come.masked_fill_(outside, -math.inf), left.masked_fill_(outside, -math.inf)
