"""One vector of many.

Legend: B batch, S time, M width.
"""

from torch import Tensor

from etude.model.exact import exact


def masked_mean(hidden_BSM: Tensor, real_BS: Tensor) -> Tensor:
    """The mean over the places that are real, [B, M]: padding never changes it, and no place at all gives zeros."""
    real_BS1 = exact(real_BS.to(hidden_BSM.device))[:, :, None]
    total_BM = (exact(hidden_BSM) * real_BS1).sum(1)
    return total_BM / real_BS1.sum(1).clamp(min=1)
