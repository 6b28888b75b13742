"""The best path over the places of a sequence: what is between labels, then each label and what is behind it.

A path begins before the first place or at the first label. With each frame it stays, goes on to the next place, or
over what is between two labels where that may be left out; it ends at the last label or behind it (Viterbi 1967).

Legend: B sequences, T frames, L labels, V classes, S places: one before the labels, then each label and one behind it.
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
class Places:
    """What the places of each sequence are."""

    classes: Tensor
    """[B, S]: the class of each place; that between labels for those beyond a sequence's last."""
    may_skip: Tensor
    """[B, S]: which labels may follow the one before at once; no other place."""
    closed: bool
    """Whether a frame can only be at a label."""

    @classmethod
    def of(cls, targets_BL: Tensor, target_lengths_B: Tensor, between: int, *, closed: bool = False) -> "Places":
        """Those of labels and the class `between` them; a label may follow another one at once, an equal one too."""
        places_BS = targets_BL.new_full((len(targets_BL), 2 * targets_BL.size(1) + 1), between)
        places_BS[:, 1::2] = targets_BL.masked_fill(beyond(targets_BL.size(1), target_lengths_B), between)
        may_skip_BS = torch.zeros_like(places_BS, dtype=torch.bool)
        may_skip_BS[:, 3::2] = True
        return cls(places_BS, may_skip_BS, closed)

    def without_repeats(self) -> "Places":
        """The same, but for labels that follow an equal one: those come after what is between them."""
        differs_BS = self.may_skip.clone()
        differs_BS[:, 3::2] &= self.classes[:, 3::2] != self.classes[:, 1:-2:2]
        return Places(self.classes, differs_BS, self.closed)

    def scores(self, log_BV: Tensor) -> Tensor:
        """What a frame's classes score at each place [B, S]."""
        score_BS = log_BV.gather(1, self.classes)
        if self.closed:
            score_BS[:, ::2] = -math.inf
        return score_BS


@torch.no_grad()
def best_path(logs_BTV: Tensor, lengths_B: Tensor, places: Places, target_lengths_B: Tensor) -> Alignment:
    """The path of the highest sum of logs, found in float32 (float64 stays), in T steps over all places of a batch.

    Of paths that are equal it takes, from the last frame back, the later place.
    """
    score_BS, choices = _best(exact(logs_BTV), lengths_B, places)
    last_B1 = 2 * target_lengths_B[:, None]
    ends_B2 = score_BS.gather(1, torch.cat((last_B1, (last_B1 - 1).clamp(min=0)), 1))
    by_label_B1 = (ends_B2[:, 1:] > ends_B2[:, :1]).long()
    path_BT = _traced(last_B1 - by_label_B1, choices)
    indices_BT = torch.where(path_BT % 2 == 1, path_BT // 2, NOWHERE)
    scores_B = ends_B2.gather(1, by_label_B1)[:, 0]
    return within(places.classes.gather(1, path_BT), indices_BT, scores_B, lengths_B)


def _best(logs_BTV: Tensor, lengths_B: Tensor, places: Places) -> tuple[Tensor, list[Tensor]]:
    """The best score at each place after the last frame [B, S], and how many places each frame went on [B, S]."""
    score_BS = logs_BTV.new_full(places.classes.shape, -math.inf)
    score_BS[:, 0] = 0.0
    ways_3BS = score_BS.new_full((3, *score_BS.shape), -math.inf)
    choices: list[Tensor] = []
    for frame, log_BV in enumerate(logs_BTV.unbind(1)):
        ways_3BS[0] = score_BS
        ways_3BS[1, :, 1:] = score_BS[:, :-1]
        ways_3BS[2, :, 2:] = score_BS[:, :-2].masked_fill(~places.may_skip[:, 2:], -math.inf)
        choice_BS = ways_3BS.argmax(0)  # argmax promises the first of equal ones
        going_B1 = (frame < lengths_B)[:, None]
        best_BS = ways_3BS.gather(0, choice_BS[None])[0] + places.scores(log_BV)
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
