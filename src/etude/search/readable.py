"""Which sequences of encoded frames can be searched.

Legend: B sequences, T frames, E width of the encoder.
"""

import torch
from torch import Tensor


def readable(encoded_BTE: Tensor, lengths_B: Tensor) -> Tensor:
    """The lengths [B]: 0 for a sequence with a frame that is not a number."""
    inside_BT = torch.arange(encoded_BTE.size(1), device=encoded_BTE.device) < lengths_B[:, None]
    return lengths_B.masked_fill((encoded_BTE.isnan().any(2) & inside_BT).any(1), 0)
