"""Alignments of labels with frames: the best path of CTC, and the even division that needs no model.

Legend: B sequences, T frames, L labels, V classes, S places: a blank, then each label and the blank behind it.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor

from etude.model.exact import exact

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


@torch.no_grad()
def ctc_alignment(
    logs_BTV: Tensor, lengths_B: Tensor, targets_BL: Tensor, target_lengths_B: Tensor, *, blank: int = 0
) -> Alignment:
    """The most probable path of CTC that becomes the labels (Viterbi; Graves et al. 2006), of a whole batch at once.

    `logs_BTV` are log-probabilities; the path is found on their device, in float32 (float64 stays), in T steps over
    all places of all sequences. Of paths that are equal it takes, from the last frame back, the later place. A
    sequence whose labels do not fit has no path. CTC's labels are spikes: where a sound ends they do not tell.
    """
    places_BS = _places(targets_BL, target_lengths_B, blank)
    score_BS, choices = _best(exact(logs_BTV), lengths_B, places_BS, _may_skip(places_BS))
    last_B1 = 2 * target_lengths_B[:, None]
    ends_B2 = score_BS.gather(1, torch.cat((last_B1, (last_B1 - 1).clamp(min=0)), 1))
    by_label_B1 = (ends_B2[:, 1:] > ends_B2[:, :1]).long()
    path_BT = _traced(last_B1 - by_label_B1, choices)
    score_B = ends_B2.gather(1, by_label_B1)[:, 0]
    outside_BT = _beyond(logs_BTV.size(1), lengths_B) | ~(score_B > -math.inf)[:, None]
    indices_BT = torch.where(path_BT % 2 == 1, path_BT // 2, NOWHERE)
    classes_BT = places_BS.gather(1, path_BT)
    return Alignment(
        classes_BT.masked_fill_(outside_BT, NOWHERE), indices_BT.masked_fill_(outside_BT, NOWHERE), score_B
    )


def linear_alignment(frames: int, lengths_B: Tensor, targets_BL: Tensor, target_lengths_B: Tensor) -> Alignment:
    """The frames of each sequence divided evenly among its labels, without blanks: for a start without a model.

    Frame t of T is of label floor(t L / T); `frames` are those of the longest. A sequence with fewer frames than
    labels has no path, and one without labels is of no label.

    >>> linear_alignment(5, torch.tensor([5]), torch.tensor([[7, 8]]), torch.tensor([2])).classes.tolist()
    [[7, 7, 7, 8, 8]]
    """
    fits_B = target_lengths_B <= lengths_B
    outside_BT = _beyond(frames, lengths_B) | ~(fits_B & (target_lengths_B > 0))[:, None]
    time_T = torch.arange(frames, device=lengths_B.device)
    indices_BT = time_T * target_lengths_B[:, None] // lengths_B.clamp(min=1)[:, None]
    labels_BT = _padded(targets_BL).gather(1, indices_BT.masked_fill_(outside_BT, 0))
    scores_B = torch.zeros_like(lengths_B, dtype=torch.float32).masked_fill_(~fits_B, -math.inf)
    return Alignment(
        labels_BT.masked_fill_(outside_BT, NOWHERE), indices_BT.masked_fill_(outside_BT, NOWHERE), scores_B
    )


def _beyond(frames: int, lengths_B: Tensor) -> Tensor:
    """Which frames are beyond the end of their sequence [B, T]."""
    return torch.arange(frames, device=lengths_B.device) >= lengths_B[:, None]


def _padded(targets_BL: Tensor) -> Tensor:
    """The same with one more place, so that there is one."""
    return torch.cat((targets_BL, targets_BL.new_zeros(len(targets_BL), 1)), 1)


def _places(targets_BL: Tensor, target_lengths_B: Tensor, blank: int) -> Tensor:
    """The class of each place [B, S]; blanks beyond a sequence's labels."""
    places_BS = targets_BL.new_full((len(targets_BL), 2 * targets_BL.size(1) + 1), blank)
    places_BS[:, 1::2] = targets_BL.masked_fill(_beyond(targets_BL.size(1), target_lengths_B), blank)
    return places_BS


def _may_skip(places_BS: Tensor) -> Tensor:
    """Which places can be come to over a blank that is left out [B, S]: labels that differ from the one before."""
    differs_BS = torch.zeros_like(places_BS, dtype=torch.bool)
    differs_BS[:, 3::2] = places_BS[:, 3::2] != places_BS[:, 1:-2:2]
    return differs_BS


def _best(logs_BTV: Tensor, lengths_B: Tensor, places_BS: Tensor, may_skip_BS: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The best score at each place after the last frame [B, S], and how many places each frame went on [B, S]."""
    score_BS = logs_BTV.new_full(places_BS.shape, -math.inf)
    score_BS[:, 0] = 0.0
    ways_3BS = score_BS.new_full((3, *score_BS.shape), -math.inf)
    choices: list[Tensor] = []
    for frame, log_BV in enumerate(logs_BTV.unbind(1)):
        ways_3BS[0] = score_BS
        ways_3BS[1, :, 1:] = score_BS[:, :-1]
        ways_3BS[2, :, 2:] = score_BS[:, :-2].masked_fill(~may_skip_BS[:, 2:], -math.inf)
        choice_BS = ways_3BS.argmax(0)  # argmax promises the first of equal ones
        going_B1 = (frame < lengths_B)[:, None]
        best_BS = ways_3BS.gather(0, choice_BS[None])[0] + log_BV.gather(1, places_BS)
        score_BS = torch.where(going_B1, best_BS, score_BS)
        choices.append((choice_BS * going_B1).to(torch.uint8))
    return score_BS, choices


def _traced(place_B1: Tensor, choices: list[Tensor]) -> Tensor:
    """The place of each frame [B, T], from the last one back."""
    path = []
    for choice_BS in reversed(choices):
        path.append(place_B1)
        place_B1 = place_B1 - choice_BS.gather(1, place_B1)
    return torch.cat([place_B1[:, :0], *reversed(path)], 1)
