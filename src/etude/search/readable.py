"""Which sequences of frames can be searched.

Legend: B sequences, T frames, E width of the encoder, V classes.
"""

import torch
from torch import Tensor

UNNORMALISED = 0.05
"""How far the log of a frame's sum of probabilities may be from 0: more than bfloat16 loses, less than logits have."""


def readable(encoded_BTE: Tensor, lengths_B: Tensor) -> Tensor:
    """The lengths [B]: 0 for a sequence with a frame that is not a number."""
    inside_BT = torch.arange(encoded_BTE.size(1), device=encoded_BTE.device) < lengths_B[:, None]
    return lengths_B.masked_fill((encoded_BTE.isnan().any(2) & inside_BT).any(1), 0)


def readable_logs(logs_BTV: Tensor, lengths_B: Tensor) -> Tensor:
    """The same of log-probabilities. Raises ValueError where a frame's do not add up to 1."""
    partition_BT = logs_BTV.logsumexp(-1)
    inside_BT = torch.arange(logs_BTV.size(1), device=logs_BTV.device) < lengths_B[:, None]
    if ((partition_BT.abs() > UNNORMALISED) & inside_BT).any():
        raise ValueError("The search needs log-probabilities, but frames do not add up to 1: take log_softmax of them.")
    return lengths_B.masked_fill((partition_BT.isnan() & inside_BT).any(1), 0)
