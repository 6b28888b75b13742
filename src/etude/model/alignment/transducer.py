"""The best way through the lattice of a transducer: with any number of labels in a frame, or with one at most.

Legend: B sequences, T frames, L labels, U labels and one, D diagonals.
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from etude.model.alignment.result import NOWHERE, Alignment, beyond, within
from etude.model.exact import exact


@final
@dataclass(frozen=True, eq=False)
class LabelFrames:
    """In which frame each label is said: several may be in one."""

    frames: Tensor
    """[B, L]: never decreasing; NOWHERE beyond a sequence's labels, and where there is no path."""
    scores: Tensor
    """[B]: the log-probability of the path, -inf where there is none."""

    def apart(self, frames: int, lengths_B: Tensor, targets_BL: Tensor, *, blank: int) -> Alignment:
        """The labels in frames of their own, as near to theirs as the order allows, and blanks in all others.

        A label whose frame is taken goes to the next free one; where those behind it would not fit, it goes back.
        `frames` are those of the longest sequence; one with fewer frames than labels has no path.
        """
        place_L = torch.arange(self.frames.size(1), device=lengths_B.device)
        count_B1 = (self.frames != NOWHERE).sum(1, keepdim=True)
        later_BL = (self.frames - place_L).cummax(1).values.minimum(lengths_B[:, None] - count_B1) + place_L
        scores_B = self.scores.masked_fill(count_B1[:, 0] > lengths_B, -math.inf)
        said_BL = (self.frames != NOWHERE) & (scores_B > -math.inf)[:, None]
        indices_BT = _put(later_BL, said_BL, place_L.expand_as(later_BL), frames)
        return _labelled(indices_BT, targets_BL, lengths_B, scores_B, blank)


@torch.no_grad()
def transducer_alignment(
    blank_BTU: Tensor, label_BTU: Tensor, lengths_B: Tensor, target_lengths_B: Tensor
) -> LabelFrames:
    """The most probable way of the lattice that `Transducer` sums over (Graves 2012): a blank ends each frame.

    `blank_BTU` and `label_BTU` are the log-probabilities of the blank and of the next label at each node; those out of
    a lattice are not looked at. The way is found on their device, in float32 (float64 stays), one diagonal after
    another. Of ways that are equal it takes the one whose labels come sooner. A sequence without frames has no path.
    """
    lattice = _Lattice(exact(blank_BTU), exact(label_BTU), lengths_B, target_lengths_B)
    score_BU, choices = lattice.best()
    frames_BL = lattice.traced(choices)
    score_B = score_BU.gather(1, target_lengths_B[:, None])[:, 0] + lattice.last_blank()
    score_B = score_B.masked_fill(lengths_B == 0, -math.inf)
    return LabelFrames(frames_BL.masked_fill(~(score_B > -math.inf)[:, None], NOWHERE), score_B)


@torch.no_grad()
def rna_alignment(
    blank_BTU: Tensor,
    label_BTU: Tensor,
    lengths_B: Tensor,
    targets_BL: Tensor,
    target_lengths_B: Tensor,
    *,
    blank: int = 0,
) -> Alignment:
    """The most probable way on which each frame has a blank or one label (RNA: Sak et al. 2017).

    A label takes its frame, as the blank does: at frame t with u labels said before, the way goes on to t + 1. Takes
    what `transducer_alignment` takes, and the labels themselves. Of ways that are equal it takes the one whose labels
    come sooner. A sequence with fewer frames than labels has no path.
    """
    blank_BTU, label_BTU = exact(blank_BTU), exact(label_BTU)
    score_BU = _started(blank_BTU)
    choices = []
    for frame, (blank_BU, label_BU) in enumerate(zip(blank_BTU.unbind(1), label_BTU.unbind(1), strict=True)):
        going_B1 = (frame < lengths_B)[:, None]
        said_BU = torch.full_like(score_BU, -math.inf)
        said_BU[:, 1:] = (score_BU + label_BU)[:, :-1]
        stayed_BU = score_BU + blank_BU
        choice_BU = (said_BU > stayed_BU) & going_B1
        score_BU = torch.where(going_B1, stayed_BU.where(~choice_BU, said_BU), score_BU)
        choices.append(choice_BU)
    score_B = score_BU.gather(1, target_lengths_B[:, None])[:, 0]
    indices_BT = _traced(target_lengths_B, choices)
    return _labelled(indices_BT, targets_BL, lengths_B, score_B, blank)


def _started(like_BTU: Tensor) -> Tensor:
    """The score of each number of labels before the first frame [B, U]."""
    score_BU = like_BTU.new_full((like_BTU.size(0), like_BTU.size(2)), -math.inf)
    score_BU[:, 0] = 0.0
    return score_BU


def _traced(said_B: Tensor, choices: list[Tensor]) -> Tensor:
    """The label of each frame [B, T], NOWHERE in blanks, from the last frame back."""
    said_B1, path = said_B[:, None], []
    for choice_BU in reversed(choices):
        takes_B1 = choice_BU.gather(1, said_B1)
        said_B1 = said_B1 - takes_B1.long()
        path.append(said_B1.where(takes_B1, NOWHERE))
    return torch.cat([said_B1[:, :0], *reversed(path)], 1)


def _labelled(indices_BT: Tensor, targets_BL: Tensor, lengths_B: Tensor, scores_B: Tensor, blank: int) -> Alignment:
    """The alignment whose frames have these labels, and blanks."""
    padded_BU = torch.cat((targets_BL, targets_BL.new_zeros(len(targets_BL), 1)), 1)
    classes_BT = padded_BU.gather(1, indices_BT.clamp(min=0)).where(indices_BT != NOWHERE, blank)
    return within(classes_BT, indices_BT, scores_B, lengths_B)


def _put(places_BL: Tensor, chosen_BL: Tensor, values_BL: Tensor, size: int) -> Tensor:
    """These values at their places [B, size], NOWHERE at others."""
    found_BT = torch.full((len(places_BL), size + 1), NOWHERE, dtype=torch.int64, device=places_BL.device)
    return found_BT.scatter(1, places_BL.where(chosen_BL, size), values_BL.where(chosen_BL, NOWHERE))[:, :size]


@final
@dataclass(frozen=True, eq=False)
class _Lattice:
    """The nodes of a batch, walked by diagonals: on each, frames and labels said add up to the same."""

    blank: Tensor
    """[B, T, U]."""
    label: Tensor
    """[B, T, U]."""
    lengths: Tensor
    target_lengths: Tensor

    def best(self) -> tuple[Tensor, list[Tensor]]:
        """The score of the last node, in the column of its labels [B, U], and which nodes a label leads to [B, U]."""
        score_BU = _started(self.blank)
        kept_BU, choices = score_BU, [torch.zeros_like(score_BU, dtype=torch.bool)]
        _, frames, columns = self.blank.shape
        for diagonal in range(1, (frames + columns - 1) * (frames > 0)):
            by_blank_BU, by_label_BU = self._moves(score_BU, diagonal)
            choices.append(by_label_BU > by_blank_BU)
            score_BU = by_blank_BU.maximum(by_label_BU)
            kept_BU = kept_BU.where(diagonal > self._ends()[:, None], score_BU)
        return kept_BU, choices

    def _moves(self, score_BU: Tensor, diagonal: int) -> tuple[Tensor, Tensor]:
        """What it scores to come to each node of a diagonal, from the frame before, and from the label before."""
        said_U = torch.arange(score_BU.size(1), device=score_BU.device)
        frame_U = diagonal - said_U
        inside_BU = (frame_U >= 0) & (frame_U < self.lengths[:, None]) & (said_U <= self.target_lengths[:, None])
        by_blank_BU = score_BU + self._at(self.blank, frame_U - 1, said_U)
        by_label_BU = score_BU.roll(1, 1) + self._at(self.label, frame_U, said_U - 1)
        return (
            by_blank_BU.masked_fill(~inside_BU | (frame_U < 1), -math.inf),
            by_label_BU.masked_fill(~inside_BU | (said_U < 1), -math.inf),
        )

    @staticmethod
    def _at(values_BTU: Tensor, frame_U: Tensor, said_U: Tensor) -> Tensor:
        """The values of these nodes [B, U]; any where there is no such node."""
        return values_BTU[:, frame_U.clamp(0, values_BTU.size(1) - 1), said_U.clamp(min=0)]

    def _ends(self) -> Tensor:
        """The diagonal of each sequence's last node [B]."""
        return self.lengths - 1 + self.target_lengths

    def last_blank(self) -> Tensor:
        """The log-probability of the blank at each sequence's last node [B]."""
        if not self.blank.size(1):
            return self.blank.sum((1, 2))
        rows_B = torch.arange(len(self.blank), device=self.blank.device)
        return self.blank[rows_B, (self.lengths - 1).clamp(min=0), self.target_lengths]

    def traced(self, choices: list[Tensor]) -> Tensor:
        """The frame of each label [B, L], from the last node back; NOWHERE beyond a sequence's labels."""
        said_B1 = self.target_lengths[:, None]
        frames_BU = torch.full_like(_started(self.blank), NOWHERE, dtype=torch.int64)
        for diagonal in range(len(choices) - 1, 0, -1):
            takes_B1 = choices[diagonal].gather(1, said_B1) & (diagonal <= self._ends()[:, None])
            said_B1 = said_B1 - takes_B1.long()
            frame_B1 = diagonal - 1 - said_B1
            frames_BU.scatter_(1, said_B1, frame_B1.where(takes_B1, frames_BU.gather(1, said_B1)))
        beyond_BU = beyond(frames_BU.size(1), self.target_lengths)
        return frames_BU.masked_fill(beyond_BU, NOWHERE)[:, :-1]
