"""What an alignment is: for each frame its class, and the label that it is of.

Legend: B sequences, T frames.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor

NOWHERE = -1
"""The label and place of a frame beyond a sequence, and of every frame of one whose labels do not fit."""


class Span(NamedTuple):
    """Where a label lies: frames from `start` up to and without `end`."""

    label: int
    start: int
    end: int


@final
@dataclass(frozen=True, eq=False)
class Alignment:
    """For each frame the class, and which label of the sequence it belongs to."""

    classes: Tensor
    """[B, T]: the class of each frame, the blank included; NOWHERE where there is none."""
    indices: Tensor
    """[B, T]: the index in its sequence of the label that a frame is of; NOWHERE in blanks and where there is none."""
    scores: Tensor
    """[B]: the log-probability of the path, -inf where there is none; 0 where no model was asked."""

    def spans(self) -> list[list[Span]]:
        """The labels of each sequence with their frames, in order."""
        pairs = zip(self.classes.tolist(), self.indices.tolist(), strict=True)
        return [_spans(classes, indices) for classes, indices in pairs]


def _spans(classes: list[int], indices: list[int]) -> list[Span]:
    found: dict[int, Span] = {}
    for frame, (label, index) in enumerate(zip(classes, indices, strict=True)):
        if index != NOWHERE:
            start = found[index].start if index in found else frame
            found[index] = Span(label, start, frame + 1)
    return list(found.values())


def within(classes_BT: Tensor, indices_BT: Tensor, scores_B: Tensor, lengths_B: Tensor) -> Alignment:
    """An alignment of these, without what is beyond a sequence's end, and without that of one that has no path."""
    outside_BT = beyond(classes_BT.size(1), lengths_B) | ~(scores_B > -math.inf)[:, None]
    return Alignment(classes_BT.masked_fill(outside_BT, NOWHERE), indices_BT.masked_fill(outside_BT, NOWHERE), scores_B)


def beyond(frames: int, lengths_B: Tensor) -> Tensor:
    """Which frames are beyond the end of their sequence [B, T]."""
    return torch.arange(frames, device=lengths_B.device) >= lengths_B[:, None]
