"""The transducer loss (Graves 2012, "Sequence Transduction with Recurrent Neural Networks"), in log space.

Logits are of the joint network: a distribution over the labels and the blank for each frame and each number of labels
already said. Values and gradients are those of warp-transducer. Softmax and gradient are computed in pieces, so that
beside logits and their gradient only the lattice is held, a few numbers for each of its nodes. Forward and backward of
logits [16, 100, 26, 30] take three times as long as torch's CTC of that size on one thread of a CPU.

Legend: B sequences, T frames, L labels, U labels and one, V classes, E width, C frames of a piece, N nodes, R rows.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol, final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from etude.model.exact import exact, exact_dtype
from etude.model.loss import Loss
from etude.model.losses.lattice import lattice_costs

PIECE_ELEMENTS = {"cpu": 1 << 17}
"""Logits at a time: what the processor's cache holds; other devices take `PIECE_ELSEWHERE`."""
PIECE_ELSEWHERE = 1 << 26

Joint = Callable[[Tensor, Tensor], Tensor]
"""From encoded frames [B, C, E] and what was said [B, U, E] to logits [B, C, U, V]."""


def joint_bytes(sequences: int, frames: int, labels: int, classes: int, each: int = 4) -> int:
    """What the logits of the joint network take, and their gradient as much again; `each` are the bytes of a number.

    >>> joint_bytes(16, 100, 25, 30)
    4992000
    """
    return sequences * frames * (labels + 1) * classes * each


def frames_within(limit: int, sequences: int, labels: int, classes: int, each: int = 4) -> int:
    """How many frames at a time keep logits and gradient of the joint network within `limit` bytes; at least one.

    >>> frames_within(1_000_000, 16, 25, 30)
    10
    """
    return max(1, limit // (2 * joint_bytes(sequences, 1, labels, classes, each)))


@final
class Transducer:
    """The negative log-probability of the labels in nats, summed over the sequences that have a frame.

    It is -log sum_w p(w), over all ways w of one blank a frame and the labels between them, of which the last blank is
    the end. Values are computed in float32 (float64 stays), the lattice in float64, whatever autocast says. A
    sequence without frames contributes nothing, to the sum, the count or the gradient.

    >>> lengths, labels = torch.tensor([3]), torch.tensor([[1]])
    >>> loss = Transducer()(torch.zeros(1, 3, 2, 4), lengths, labels, torch.tensor([1]))
    >>> round(float(loss.value), 4), int(loss.count)
    (4.4466, 1)
    """

    def __init__(self, blank: int = 0) -> None:
        self.blank = blank

    def __call__(self, logits_BTUV: Tensor, lengths_B: Tensor, targets_BL: Tensor, target_lengths_B: Tensor) -> Loss:
        """Logits of any scale, labels padded with anything; both lengths [B], those of the logits after subsampling."""
        labels_BU = _said(targets_BL, target_lengths_B, self.blank)
        moves = self._moves(logits_BTUV, labels_BU)
        return _loss(moves, lengths_B, target_lengths_B, exact_dtype(logits_BTUV))

    def over(
        self,
        joint: Joint,
        encoded_BTE: Tensor,
        said_BUE: Tensor,
        lengths_B: Tensor,
        targets_BL: Tensor,
        target_lengths_B: Tensor,
        *,
        frames: int,
    ) -> Loss:
        """The same of the logits that `joint` makes, of which no more than `frames` frames are held at a time.

        The backward makes each piece a second time, dropout included (Chen et al. 2016).
        """
        moves = self.moves(joint, encoded_BTE, said_BUE, targets_BL, target_lengths_B, frames=frames)
        return _loss(moves, lengths_B, target_lengths_B, exact_dtype(encoded_BTE))

    def moves(
        self,
        joint: Joint,
        encoded_BTE: Tensor,
        said_BUE: Tensor,
        targets_BL: Tensor,
        target_lengths_B: Tensor,
        *,
        frames: int,
    ) -> tuple[Tensor, Tensor]:
        """The log-probabilities of the blank and of the next label, at each node [B, T, U], in float64; in pieces."""
        labels_BU = _said(targets_BL, target_lengths_B, self.blank)

        def of_piece(piece_BCE: Tensor, said_BUE: Tensor) -> tuple[Tensor, Tensor]:
            return self._moves(joint(piece_BCE, said_BUE), labels_BU)

        made = partial(checkpoint, of_piece, use_reentrant=False) if torch.is_grad_enabled() else of_piece
        pieces = [made(piece, said_BUE) for piece in torch.split(encoded_BTE, frames, 1)]
        blank, label = (torch.cat(parts, 1) for parts in zip(*pieces, strict=True))
        return blank, label

    def _moves(self, logits_BTUV: Tensor, labels_BU: Tensor) -> tuple[Tensor, Tensor]:
        """The log-probabilities of the blank and of the next label, at each node [B, T, U], in float64."""
        blank_BTU, label_BTU = _Moves.apply(logits_BTUV, labels_BU, self.blank)  # type: ignore[no-untyped-call]
        return blank_BTU, label_BTU


def _said(targets_BL: Tensor, target_lengths_B: Tensor, blank: int) -> Tensor:
    """The next label [B, U]; the blank where there is none."""
    padded_BU = torch.cat((targets_BL, targets_BL.new_zeros(len(targets_BL), 1)), 1)
    beyond_BU = torch.arange(padded_BU.size(1), device=padded_BU.device) >= target_lengths_B[:, None]
    return padded_BU.masked_fill_(beyond_BU, blank)


def _loss(moves: tuple[Tensor, Tensor], lengths_B: Tensor, target_lengths_B: Tensor, dtype: torch.dtype) -> Loss:
    """The loss of the sequences that have a frame."""
    return Loss(transducer_costs(*moves, lengths_B, target_lengths_B).sum().to(dtype), (lengths_B > 0).sum())


def transducer_costs(blank_BTU: Tensor, label_BTU: Tensor, lengths_B: Tensor, target_lengths_B: Tensor) -> Tensor:
    """The negative log-probability of each sequence's labels [B] by `Transducer.moves`: 0 where there is no frame."""
    if not blank_BTU.size(1):
        return blank_BTU.sum((1, 2))
    costs_B = lattice_costs(blank_BTU, label_BTU, lengths_B.clamp(min=1), target_lengths_B)
    return costs_B.masked_fill(lengths_B <= 0, 0.0)


def rna_costs(blank_BTU: Tensor, label_BTU: Tensor, lengths_B: Tensor, target_lengths_B: Tensor) -> Tensor:
    """The same over the ways on which each frame has a blank or one label (RNA: Sak et al. 2017); without a gradient.

    It is infinite for a sequence with fewer frames than labels.
    """
    score_BU = torch.full_like(blank_BTU[:, :1].sum(1), -math.inf)
    score_BU[:, 0] = 0.0
    for frame, (blank_BU, label_BU) in enumerate(zip(blank_BTU.unbind(1), label_BTU.unbind(1), strict=True)):
        said_BU = (score_BU + label_BU).roll(1, 1)
        said_BU[:, 0] = -math.inf
        going_B1 = (frame < lengths_B)[:, None]
        score_BU = torch.where(going_B1, torch.logaddexp(score_BU + blank_BU, said_BU), score_BU)
    return -score_BU.gather(1, target_lengths_B[:, None])[:, 0].masked_fill(lengths_B <= 0, 0.0)


class _Context(Protocol):
    """What autograd keeps between forward and backward."""

    blank: int
    saved_tensors: Sequence[Tensor]

    def save_for_backward(self, *tensors: Tensor) -> None: ...


class _Moves(torch.autograd.Function):
    """The log-softmax at the blank and at the next label, without the log-softmax of the others."""

    @staticmethod
    def forward(ctx: _Context, logits_BTUV: Tensor, labels_BU: Tensor, blank: int) -> tuple[Tensor, Tensor]:
        logits_NV = logits_BTUV.reshape(-1, logits_BTUV.size(-1))
        label_N1 = labels_BU[:, None].expand(logits_BTUV.shape[:-1]).reshape(-1, 1)
        moves_2N = logits_NV.new_empty(2, len(logits_NV), dtype=torch.float64)
        for rows in _pieces(logits_NV):
            logs_RV = exact(logits_NV[rows]).log_softmax(1)
            moves_2N[0, rows] = logs_RV[:, blank]
            moves_2N[1, rows] = logs_RV.gather(1, label_N1[rows])[:, 0]
        ctx.blank = blank
        ctx.save_for_backward(logits_BTUV, label_N1)
        return moves_2N[0].view(logits_BTUV.shape[:-1]), moves_2N[1].view(logits_BTUV.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, of_blank_BTU: Tensor, of_label_BTU: Tensor) -> tuple[Tensor, None, None]:
        logits_BTUV, label_N1 = ctx.saved_tensors
        logits_NV = logits_BTUV.reshape(-1, logits_BTUV.size(-1))
        dtype = exact_dtype(logits_NV)
        of_blank_N1, of_label_N1 = of_blank_BTU.reshape(-1, 1).to(dtype), of_label_BTU.reshape(-1, 1).to(dtype)
        both_N1 = -(of_blank_N1 + of_label_N1)
        gradient_NV = torch.empty_like(logits_NV)
        for rows in _pieces(logits_NV):
            share_RV = exact(logits_NV[rows]).softmax(1).mul_(both_N1[rows])
            share_RV[:, ctx.blank] += of_blank_N1[rows, 0]
            gradient_NV[rows] = share_RV.scatter_add_(1, label_N1[rows], of_label_N1[rows])
        return gradient_NV.view(logits_BTUV.shape), None, None


def _pieces(logits_NV: Tensor) -> Iterator[slice]:
    rows = max(1, PIECE_ELEMENTS.get(logits_NV.device.type, PIECE_ELSEWHERE) // logits_NV.size(1))
    return (slice(first, first + rows) for first in range(0, len(logits_NV), rows))
