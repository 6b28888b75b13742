"""Multi-head attention, with a cache of keys and values for decoding.

Legend: B batch, T queries, S keys, H heads, D width of a head, M width of the model, R rows (sentences x beam),
W beam width.
"""

import math
from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from etude.model.cache import LayerCache
from etude.model.dropout import Dropout
from etude.model.linear import Linear

PLAIN_LIMIT = 1 << 15
"""Queries x keys up to which plain attention is the faster on the processor."""
PLAIN_LIMIT_WITH_GRADIENT = 1 << 20
"""The same where a backward follows: that of torch's flash kernel is slow. Beyond, the scores fill the memory."""

HIDDEN = -30_000.0
"""Far below every score, yet not infinite, even in float16: a sentence of padding alone must not become NaN."""


class Mask(NamedTuple):
    """What may be seen, made once for each batch and shared by all layers."""

    added: Tensor | None
    """0 where a query may look and a very negative number elsewhere, broadcast to [B, H, T, S]; None: everywhere."""
    causal: bool = False
    """Whether it says: no key after the query's own position. Then `added` says the same for plain attention."""


EVERYWHERE = Mask(None)


def padding_mask(padding_BS: Tensor, dtype: torch.dtype) -> Mask:
    """Hide the keys where `padding_BS` is true."""
    added = torch.zeros(padding_BS.shape, dtype=dtype, device=padding_BS.device)
    return Mask(added.masked_fill_(padding_BS, HIDDEN)[:, None, None, :])


def causal_mask(length: int, like: Tensor) -> Mask:
    """Hide the keys that come after the query."""
    hidden = torch.full((length, length), HIDDEN, dtype=like.dtype, device=like.device)
    return Mask(hidden.triu_(1), causal=True)


def prefers_plain(query_BHTD: Tensor, key_BHSD: Tensor) -> bool:
    """Whether plain attention (explicit softmax) is the faster of the two on this device and shape.

    As measured on a processor with bfloat16 products: 1.2 times in a training step of 14 tokens a sentence, 1.9 times
    in evaluation; from about 200 tokens on in evaluation it is the slower one.
    """
    if query_BHTD.device.type != "cpu":
        return False
    trains = torch.is_grad_enabled() and query_BHTD.requires_grad
    limit = PLAIN_LIMIT_WITH_GRADIENT if trains else PLAIN_LIMIT
    return query_BHTD.size(2) * key_BHSD.size(2) <= limit


def attend(query_BHTD: Tensor, key_BHSD: Tensor, value_BHSD: Tensor, mask: Mask, dropout: Dropout) -> Tensor:
    """softmax(Q K' / sqrt(D)) V as [B, H, T, D], by whichever way is faster on this device and shape."""
    if prefers_plain(query_BHTD, key_BHSD):
        return attend_plainly(query_BHTD, key_BHSD, value_BHSD, mask, dropout)
    return attend_fused(query_BHTD, key_BHSD, value_BHSD, mask, dropout)


def attend_plainly(query_BHTD: Tensor, key_BHSD: Tensor, value_BHSD: Tensor, mask: Mask, dropout: Dropout) -> Tensor:
    """Attention in the open: scores, softmax (computed in float32 by torch's kernel), weighted sum."""
    scores_BHTS = (query_BHTD * (1.0 / math.sqrt(query_BHTD.size(-1)))) @ key_BHSD.transpose(-2, -1)
    if mask.added is not None:
        scores_BHTS += mask.added.to(scores_BHTS.dtype)
    weights_BHTS: Tensor = dropout(scores_BHTS.softmax(-1))
    return weights_BHTS @ value_BHSD


def attend_fused(query_BHTD: Tensor, key_BHSD: Tensor, value_BHSD: Tensor, mask: Mask, dropout: Dropout) -> Tensor:
    """Attention by torch's fused kernels."""
    causal = mask.causal and query_BHTD.size(2) == key_BHSD.size(2)
    added = None if causal or mask.added is None else mask.added.to(query_BHTD.dtype)
    rate = dropout.rate if dropout.training else 0.0
    return F.scaled_dot_product_attention(
        query_BHTD, key_BHSD, value_BHSD, attn_mask=added, dropout_p=rate, is_causal=causal
    )


@final
class SelfAttention(nn.Module):
    """Attention of a sequence to itself; query, key and value come from one product."""

    def __init__(self, width: int, heads: int, *, rate: float, bias: bool, turn: nn.Module) -> None:
        super().__init__()
        self.heads = heads
        self.projection = Linear(width, 3 * width, bias=bias, parts=3)
        self.output = Linear(width, width, bias=bias)
        self.dropout = Dropout(rate, "attention_dropout")
        self.turn = turn

    def _split(self, hidden_BTM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        joint = self.projection(hidden_BTM).unflatten(-1, (3, self.heads, -1))
        query, key, value = joint.permute(2, 0, 3, 1, 4).unbind(0)
        return query, key, value

    def forward(self, hidden_BTM: Tensor, mask: Mask) -> Tensor:
        """[B, T, M] to [B, T, M]."""
        query, key, value = self._split(hidden_BTM)
        mixed_BHTD = attend(self.turn(query), self.turn(key), value, mask, self.dropout)
        return self.output(mixed_BHTD.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def step(self, hidden_R1M: Tensor, cache: LayerCache) -> Tensor:
        """The next position alone, which sees itself and all that the cache holds: [R, 1, M]."""
        query, key, value = self._split(hidden_R1M)
        place = cache.length
        keys, values = cache.append(self.turn(key, place), value)
        mixed = attend(self.turn(query, place), keys, values, EVERYWHERE, self.dropout)
        return self.output(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


@final
class CrossAttention(nn.Module):
    """Attention of the target to the encoded source."""

    def __init__(self, width: int, heads: int, *, rate: float, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.query = Linear(width, width, bias=bias)
        self.projection = Linear(width, 2 * width, bias=bias, parts=2)
        self.output = Linear(width, width, bias=bias)
        self.dropout = Dropout(rate, "attention_dropout")

    def keys_values(self, memory_BSM: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, H, S, D] of the encoded source."""
        joint = self.projection(memory_BSM).unflatten(-1, (2, self.heads, -1))
        key, value = joint.permute(2, 0, 3, 1, 4).unbind(0)
        return key, value

    def forward(self, hidden_BTM: Tensor, memory_BSM: Tensor, mask: Mask) -> Tensor:
        """[B, T, M] and [B, S, M] to [B, T, M]."""
        key, value = self.keys_values(memory_BSM)
        return self._mix(hidden_BTM, key, value, mask)

    def _mix(self, hidden_BTM: Tensor, key: Tensor, value: Tensor, mask: Mask) -> Tensor:
        query_BHTD = self.query(hidden_BTM).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        mixed_BHTD = attend(query_BHTD, key, value, mask, self.dropout)
        return self.output(mixed_BHTD.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def step(self, hidden_R1M: Tensor, cache: LayerCache, mask: Mask) -> Tensor:
        """The next position of every row; the beams of a sentence stand side by side as its queries, so that they
        share its keys and values without a copy: [R, 1, M].
        """
        sentences = cache.source_keys.size(0)
        hidden_BWM = hidden_R1M.view(sentences, -1, hidden_R1M.size(-1))
        return self._mix(hidden_BWM, cache.source_keys, cache.source_values, mask).view_as(hidden_R1M)
