"""Which frames of a padded batch are real, and what is kept of frames that come in pieces.

Legend: B batch, T time, M width.
"""

from typing import TypeAlias

import torch
from torch import Tensor

BodyState: TypeAlias = tuple[tuple[Tensor, ...], ...]
"""What is kept of the frames so far, where they come in pieces: for each layer, and for what waits before them."""


def real_frames(lengths_B: Tensor, time: int, device: torch.device) -> Tensor:
    """Whether a frame of `time` is one of the sequence's own, [B, T]."""
    return torch.arange(time, device=device) < lengths_B.to(device)[:, None]


def zeroed(hidden_BTM: Tensor, real_BT: Tensor) -> Tensor:
    """Zeros where padding is, whatever stood there: a NaN as well."""
    return hidden_BTM.masked_fill(~real_BT[:, :, None], 0.0)
