"""How many targets are the likeliest token, with few logits at a time.

Legend: B batch, T time, N targets, M width of the model, V vocabulary.
"""

import torch
from torch import Tensor, nn

LOGITS_AT_A_TIME = 1 << 22
"""Where only the likeliest token is asked for."""


def count_right(hidden: Tensor, weight_VM: Tensor | None, targets: Tensor) -> Tensor:
    """How many targets [B, T] are the likeliest token; `hidden` [B, T, M], or logits [B, T, V] without a matrix."""
    targets_N = targets.flatten()
    if weight_VM is None:
        return (hidden.flatten(0, 1).argmax(-1) == targets_N).sum()
    rows = max(1, LOGITS_AT_A_TIME // weight_VM.size(0))
    right = targets_N.new_zeros(())
    parts = zip(torch.split(hidden.flatten(0, 1), rows), torch.split(targets_N, rows), strict=True)
    for part_NM, some_N in parts:
        right += (nn.functional.linear(part_NM, weight_VM).argmax(-1) == some_N).sum()
    return right
