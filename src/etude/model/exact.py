"""The precision that losses and angles are computed in."""

import torch
from torch import Tensor


def exact_dtype(like: Tensor) -> torch.dtype:
    """float32, or float64 where `like` is that."""
    return torch.float64 if like.dtype == torch.float64 else torch.float32


def exact(value: Tensor) -> Tensor:
    """`value` in float32, or in float64 where it is that."""
    return value if value.dtype == torch.float64 else value.float()
