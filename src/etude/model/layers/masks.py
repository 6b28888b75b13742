"""Which keys a query may look at.

Legend: B batch, T queries, S keys, H heads.
"""

from typing import NamedTuple

import torch
from torch import Tensor

HIDDEN = -30_000.0
"""Far below every score, yet not infinite, even in float16: a sentence of padding alone must not become NaN."""


class Mask(NamedTuple):
    """What may be seen, made once for each batch and shared by all layers.

    `added` may as well hold numbers of another kind that are added to the scores of each head, such as a bias for
    each distance.
    """

    added: Tensor | None
    """0 where a query may look and a very negative number elsewhere, broadcast to [B, H, T, S]; None: everywhere."""
    causal: bool = False
    """Whether it says: no key after the query's own position. Then `added` says the same for plain attention."""


EVERYWHERE = Mask(None)


def padding_mask(padding_BS: Tensor, dtype: torch.dtype) -> Mask:
    """Hide the keys where `padding_BS` is true."""
    return Mask(_hiding(padding_BS, dtype)[:, None, None, :])


def causal_mask(length: int, like: Tensor) -> Mask:
    """Hide the keys that come after the query."""
    hidden = torch.full((length, length), HIDDEN, dtype=like.dtype, device=like.device)
    return Mask(hidden.triu_(1), causal=True)


def document_mask(documents_BT: Tensor, dtype: torch.dtype) -> Mask:
    """Hide what comes after the query, and what belongs to another document than it."""
    length = documents_BT.size(1)
    earlier = torch.ones(length, length, dtype=torch.bool, device=documents_BT.device).tril_()
    seen = (documents_BT[:, :, None] == documents_BT[:, None, :]) & earlier
    return Mask(_hiding(~seen, dtype)[:, None])


def sides_mask(padding_BT: Tensor, documents_BT: Tensor | None, dtype: torch.dtype) -> Mask:
    """Hide padding and, where documents are numbered, what belongs to another one than the query."""
    if documents_BT is None:
        return padding_mask(padding_BT, dtype)
    apart = documents_BT[:, :, None] != documents_BT[:, None, :]
    return Mask(_hiding(apart, dtype)[:, None])


def window_mask(length: int, window: int, like: Tensor) -> Mask:
    """Hide what comes after the query, and what lies `window` tokens before it or more."""
    places = torch.arange(length, device=like.device)
    distance = places[:, None] - places
    return Mask(_hiding((distance < 0) | (distance >= window), like.dtype))


def _hiding(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, HIDDEN)
