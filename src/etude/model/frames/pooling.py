"""One vector for a sequence of hidden frames, over its real frames alone; a sequence without any gives zeros.

Legend: B batch, T time, M width of the frames, A width of the attention.
"""

from typing import Literal, TypeAlias, assert_never, final

import torch
from torch import Tensor, nn

from etude.model.exact import exact
from etude.model.frames.extent import real_frames, zeroed
from etude.model.layers.linear import Linear
from etude.model.layers.masks import HIDDEN
from etude.model.layers.pooling import masked_mean

PoolingKind: TypeAlias = Literal["mean", "attention", "last"]
ATTENTION_WIDTH = 128
"""Width inside the attention of `AttentivePooling`."""
LEAST_VARIANCE = 1e-8
"""Below it a variance counts as this much, for the root has no slope at 0."""


@final
class MeanPooling(nn.Module):
    """The mean of the frames."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        """Of what it gives."""

    def forward(self, hidden_BTM: Tensor, lengths_B: Tensor) -> Tensor:
        """[B, T, M] to [B, M]."""
        real_BT = real_frames(lengths_B, hidden_BTM.size(1), hidden_BTM.device)
        return masked_mean(zeroed(hidden_BTM, real_BT), real_BT)


@final
class LastPooling(nn.Module):
    """The last frame."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        """Of what it gives."""

    def forward(self, hidden_BTM: Tensor, lengths_B: Tensor) -> Tensor:
        """[B, T, M] to [B, M]."""
        # a frame of zeros first, which is the last of a sequence that has no other
        padded_BTM = nn.functional.pad(hidden_BTM, (0, 0, 1, 0))
        places_B11 = lengths_B.to(hidden_BTM.device)[:, None, None]
        return padded_BTM.gather(1, places_B11.expand(-1, 1, hidden_BTM.size(2)))[:, 0]


@final
class AttentivePooling(nn.Module):
    """Mean and deviation of the frames, weighted by an attention to each (Okabe et al. 2018, equations 2 to 6)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = 2 * width
        """Of what it gives: the means, then the deviations."""
        self.inner = Linear(width, ATTENTION_WIDTH)
        self.score = Linear(ATTENTION_WIDTH, 1, bias=False)  # the softmax takes a bias off again

    def forward(self, hidden_BTM: Tensor, lengths_B: Tensor) -> Tensor:
        """[B, T, M] to [B, 2 M]; a deviation is at least 1e-4, where a sequence has any frame."""
        real_BT = real_frames(lengths_B, hidden_BTM.size(1), hidden_BTM.device)
        real_BT1 = real_BT[:, :, None]
        hidden_BTM = zeroed(hidden_BTM, real_BT)
        scores_BT1 = exact(self.score(self.inner(hidden_BTM).tanh()))
        weights_BT1 = scores_BT1.masked_fill(~real_BT1, HIDDEN).softmax(1).masked_fill(~real_BT1, 0.0)
        frames_BTM = exact(hidden_BTM)
        mean_B1M = (weights_BT1 * frames_BTM).sum(1, keepdim=True)
        variance_BM = (weights_BT1 * (frames_BTM - mean_B1M).square()).sum(1)
        deviation_BM = variance_BM.clamp(min=LEAST_VARIANCE).sqrt() * real_BT.any(1, keepdim=True)
        return torch.cat((mean_B1M[:, 0], deviation_BM), dim=-1)


Pooling: TypeAlias = MeanPooling | LastPooling | AttentivePooling


def build_pooling(kind: PoolingKind, width: int) -> Pooling:
    """The pooling of that name, over frames of that width."""
    match kind:
        case "mean":
            return MeanPooling(width)
        case "attention":
            return AttentivePooling(width)
        case "last":
            return LastPooling(width)
        case _:
            assert_never(kind)
