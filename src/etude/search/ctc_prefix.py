"""The probability that CTC gives to all texts that begin with a prefix, label after label, for many rows at once.

Watanabe et al. 2017 ("Hybrid CTC/Attention Architecture for End-to-End Speech Recognition", algorithm 2; Graves 2008,
section 7.5.2). All frames are computed at once: what leads to a frame is a running sum, in float64.

Legend: B sequences, T frames, F frames and the place before the first, V classes, W rows of a sequence, R rows = B x W.
"""

import math
from typing import final

import torch
from torch import Tensor

FLOOR = -1e4
"""Stands for the log-probability of what cannot be, where sums of it are subtracted."""


@final
class PrefixScores:
    """The log-probabilities of the prefixes of each row; frames beyond a sequence's length are certain blanks.

    Classes are labels by their ids; at `end` stands that no label follows. `logs_BTV` are log-probabilities.
    """

    def __init__(self, logs_BTV: Tensor, lengths_B: Tensor, *, width: int, blank: int, end: int) -> None:
        beyond_BT = torch.arange(logs_BTV.size(1), device=logs_BTV.device) >= lengths_B[:, None]
        logs_BTV = logs_BTV.double().masked_fill(beyond_BT[..., None], -math.inf)
        self._blank_BT = logs_BTV[..., blank].masked_fill(beyond_BT, 0.0)
        logs_BTV[..., blank] = -math.inf  # no label is the blank
        self._logs_BTV, self._shares_BTV = logs_BTV, logs_BTV.exp()
        self._width, self._end = width, end
        self.by_blank_RF = _after_start(self._blank_BT.cumsum(1), 0.0).repeat_interleave(width, 0)
        """Of the paths that become the prefix up to each frame, and end with a blank there."""
        self.by_label_RF = torch.full_like(self.by_blank_RF, -math.inf)
        """Those that end with its last label."""
        self.prefix_R = self.by_blank_RF.new_zeros(len(self.by_blank_RF))
        """Of all texts that begin with the prefix."""
        self._last_R = torch.full_like(self.prefix_R, -1, dtype=torch.int64)

    def longer(self) -> Tensor:
        """What each label adds to the log-probability of the prefix that it makes longer, and the end [R, V]."""
        come_RF = torch.logaddexp(self.by_blank_RF, self.by_label_RF)
        scores_RV = self._summed(come_RF[:, :-1])
        self._mend_repeats(scores_RV)
        scores_RV[:, self._end] = come_RF[:, -1]
        possible_R1 = self.prefix_R[:, None] > -math.inf
        return torch.where(possible_R1, scores_RV - self.prefix_R[:, None], -math.inf)

    def _summed(self, come_RT: Tensor) -> Tensor:
        """The log of the sum over frames of coming to a frame and saying each label there [R, V], as a product."""
        if not come_RT.size(1):
            return come_RT.new_full((len(come_RT), self._logs_BTV.size(2)), -math.inf)
        most_R1 = come_RT.amax(1, keepdim=True).clamp(min=-1e300)
        come_BWT = (come_RT - most_R1).exp().view(-1, self._width, come_RT.size(1))
        return (come_BWT @ self._shares_BTV).flatten(0, 1).log() + most_R1

    def _mend_repeats(self, scores_RV: Tensor) -> None:
        """A label after itself comes only behind a blank."""
        rows = (self._last_R >= 0).nonzero()[:, 0]
        own_RT = self._own(rows, self._last_R[rows])
        scores_RV[rows, self._last_R[rows]] = (self.by_blank_RF[rows, :-1] + own_RT).logsumexp(1)

    def _own(self, rows: Tensor, labels: Tensor) -> Tensor:
        """The log-probabilities of a label of each row in all frames."""
        return self._logs_BTV[rows // self._width, :, labels]

    def say(self, labels_R: Tensor) -> None:
        """Make each row's prefix longer by a label."""
        rows = torch.arange(len(labels_R), device=labels_R.device)
        own_RT, blank_RT = self._own(rows, labels_R), self._blank_BT[rows // self._width]
        repeats_R1 = (labels_R == self._last_R)[:, None]
        both_RF = torch.logaddexp(self.by_blank_RF, self.by_label_RF)
        said_RT = torch.where(repeats_R1, self.by_blank_RF, both_RF)[:, :-1] + own_RT
        self.prefix_R = said_RT.logsumexp(1)
        self.by_label_RF = _after_start(_running(said_RT, own_RT), -math.inf)
        self.by_blank_RF = _after_start(_running(self.by_label_RF[:, :-1] + blank_RT, blank_RT), -math.inf)
        self._last_R = labels_R

    def reorder(self, rows: Tensor) -> None:
        """Let row i go on from what was row `rows[i]`; rows stay within their sequence."""
        self.by_blank_RF, self.by_label_RF = self.by_blank_RF[rows], self.by_label_RF[rows]
        self.prefix_R, self._last_R = self.prefix_R[rows], self._last_R[rows]

    def keep(self, sequences: Tensor) -> None:
        """Go on with these sequences alone."""
        offsets = torch.arange(self._width, device=sequences.device)
        self.reorder((sequences[:, None] * self._width + offsets).flatten())
        self._blank_BT, self._logs_BTV = self._blank_BT[sequences], self._logs_BTV[sequences]
        self._shares_BTV = self._shares_BTV[sequences]


def _running(come: Tensor, stay: Tensor) -> Tensor:
    """At each frame the log of all that has come so far and has stayed since, by these log-probabilities [R, T]."""
    stayed = stay.clamp(min=FLOOR).cumsum(1)
    return (come - stayed).logcumsumexp(1) + stayed


def _after_start(values_RT: Tensor, start: float) -> Tensor:
    return torch.cat((values_RT.new_full((len(values_RT), 1), start), values_RT), 1)
