"""Connectionist temporal classification (Graves et al. 2006): the loss of labels that are not aligned with their input.

Legend: B sequences, T frames, L labels, V classes.
"""

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from etude.model.exact import exact
from etude.model.loss import Loss


def least_frames(targets_BL: Tensor, target_lengths_B: Tensor) -> Tensor:
    """The fewest frames that labels fit in [B]: one for each, and a blank between two that are equal.

    >>> least_frames(torch.tensor([[1, 2, 2], [3, 3, 0]]), torch.tensor([3, 1]))
    tensor([4, 1])
    """
    places = torch.arange(targets_BL.size(1), device=targets_BL.device)[1:]
    repeats_BL = (targets_BL[:, 1:] == targets_BL[:, :-1]) & (places < target_lengths_B[:, None])
    return target_lengths_B + repeats_BL.sum(1)


def infeasible(lengths_B: Tensor, targets_BL: Tensor, target_lengths_B: Tensor) -> Tensor:
    """Which sequences have too few frames for their labels [B]: the loss leaves them out, its caller may name them.

    `lengths_B` are in frames of the logits, after all subsampling.
    """
    return least_frames(targets_BL, target_lengths_B) > lengths_B


def ctc_costs(
    logs_BTV: Tensor, lengths_B: Tensor, targets_BL: Tensor, target_lengths_B: Tensor, *, blank: int
) -> Tensor:
    """The negative log-probability in nats of each sequence's labels [B], by torch; infinite where they do not fit."""
    if not len(logs_BTV):
        return logs_BTV.sum((1, 2))  # torch refuses to have no sequence
    logs_BTV = F.pad(logs_BTV, (0, 0, 0, max(0, 1 - logs_BTV.size(1))))  # or no frame at all
    return F.ctc_loss(logs_BTV.transpose(0, 1), targets_BL, lengths_B, target_lengths_B, blank, reduction="none")


@final
class Ctc:
    """The negative log-probability of the labels in nats, summed over the sequences that are feasible.

    For frames of log-probabilities x it is -log sum_p exp(sum_t x[t, p_t]), over all paths p of one class a frame that
    become the labels when repeats are merged and then blanks are dropped. It is computed by torch, in float32 whatever
    autocast says (float64 stays). A sequence with too few frames for its labels contributes nothing, to the sum, the
    count or the gradient; one without labels is that many blanks, and of no frames and no labels it is certain.

    >>> loss = Ctc()(torch.zeros(1, 2, 3), torch.tensor([2]), torch.tensor([[1]]), torch.tensor([1]))
    >>> round(float(loss.value), 4), int(loss.count)
    (1.0986, 1)
    """

    def __init__(self, blank: int = 0) -> None:
        self.blank = blank

    def __call__(self, logits_BTV: Tensor, lengths_B: Tensor, targets_BL: Tensor, target_lengths_B: Tensor) -> Loss:
        """Logits of any scale, labels padded with anything; both lengths [B], those of the logits after subsampling."""
        left_out_B = infeasible(lengths_B, targets_BL, target_lengths_B)
        with torch.autocast(logits_BTV.device.type, enabled=False):
            logs_BTV = exact(logits_BTV).log_softmax(-1)
            target_lengths_B = target_lengths_B.masked_fill(left_out_B, 0)
            costs_B = ctc_costs(logs_BTV, lengths_B, targets_BL, target_lengths_B, blank=self.blank)
        return Loss(costs_B.masked_fill(left_out_B, 0.0).sum(), (~left_out_B).sum())
