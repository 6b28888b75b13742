"""The even division of frames among labels, for a start without a model.

Legend: B sequences, T frames, L labels.
"""

import math

import torch
from torch import Tensor

from etude.model.alignment.result import NOWHERE, Alignment, beyond


def linear_alignment(frames: int, lengths_B: Tensor, targets_BL: Tensor, target_lengths_B: Tensor) -> Alignment:
    """The frames of each sequence divided evenly among its labels, without blanks: for a start without a model.

    Frame t of T is of label floor(t L / T); `frames` are those of the longest. A sequence with fewer frames than
    labels has no path, and one without labels is of no label.

    >>> linear_alignment(5, torch.tensor([5]), torch.tensor([[7, 8]]), torch.tensor([2])).classes.tolist()
    [[7, 7, 7, 8, 8]]
    """
    fits_B = target_lengths_B <= lengths_B
    outside_BT = beyond(frames, lengths_B) | ~(fits_B & (target_lengths_B > 0))[:, None]
    time_T = torch.arange(frames, device=lengths_B.device)
    indices_BT = time_T * target_lengths_B[:, None] // lengths_B.clamp(min=1)[:, None]
    labels_BT = _padded(targets_BL).gather(1, indices_BT.masked_fill_(outside_BT, 0))
    scores_B = torch.zeros_like(lengths_B, dtype=torch.float32).masked_fill_(~fits_B, -math.inf)
    return Alignment(
        labels_BT.masked_fill_(outside_BT, NOWHERE), indices_BT.masked_fill_(outside_BT, NOWHERE), scores_B
    )


def _padded(targets_BL: Tensor) -> Tensor:
    """The same with one more place, so that there is one."""
    return torch.cat((targets_BL, targets_BL.new_zeros(len(targets_BL), 1)), 1)
