"""Multi-head attention: whole sequences at a time, or step by step over keys and values that are kept.

Relative positions enter as a `Turn` of queries and keys, or as what a `Mask` adds to the scores; what depends on the
query too is an attention of its own over `attend`.

Legend: B batch, T queries, S keys, H heads, K heads of keys, D width of a head, M width of the model, R rows
(sentences x beam, or rows that generate), W beam width.
"""

import math
from typing import Protocol, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from etude.model.layers.beam_cache import LayerCache
from etude.model.layers.dropout import Dropout
from etude.model.layers.growing import GrowthParts, gives, head, heads, of_linear, takes
from etude.model.layers.linear import Linear
from etude.model.layers.masks import Mask
from etude.model.layers.norms import make_norm
from etude.model.layers.positions import Turn
from etude.model.layers.spec import LayerSpec

PLAIN_LIMIT = 1 << 15
"""Queries x keys up to which plain attention is the faster on the processor."""
PLAIN_LIMIT_WITH_GRADIENT = 1 << 20
"""The same where a backward follows: that of torch's flash kernel is slow. Beyond, the scores fill the memory."""


def prefers_plain(query_BHTD: Tensor, key_BHSD: Tensor) -> bool:
    """Whether plain attention (explicit softmax) is the faster of the two on this device and shape.

    As measured on a processor with bfloat16 products: 1.2 times in a training step of 14 tokens a sentence, 1.9 times
    in evaluation; from about 200 tokens on in evaluation it is the slower one. An exported program has one way for
    every shape, and it is the other.
    """
    if query_BHTD.device.type != "cpu" or torch.compiler.is_exporting():
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
    weights_BHTS: Tensor = dropout(attention_weights(query_BHTD, key_BHSD, mask))
    return weights_BHTS @ value_BHSD


def attention_weights(query_BHTD: Tensor, key_BHSD: Tensor, mask: Mask) -> Tensor:
    """softmax(Q K' / sqrt(D)) as [B, H, T, S]: how much each query takes of each key, before dropout."""
    scores_BHTS = (query_BHTD * (1.0 / math.sqrt(query_BHTD.size(-1)))) @ key_BHSD.transpose(-2, -1)
    if mask.added is not None:
        scores_BHTS += mask.added.to(scores_BHTS.dtype)
    return scores_BHTS.softmax(-1)


def attend_fused(query_BHTD: Tensor, key_BHSD: Tensor, value_BHSD: Tensor, mask: Mask, dropout: Dropout) -> Tensor:
    """Attention by torch's fused kernels."""
    causal = mask.causal and query_BHTD.size(2) == key_BHSD.size(2)
    added = None if causal or mask.added is None else mask.added.to(query_BHTD.dtype)
    rate = dropout.rate if dropout.training else 0.0
    return F.scaled_dot_product_attention(
        query_BHTD, key_BHSD, value_BHSD, attn_mask=added, dropout_p=rate, is_causal=causal
    )


class Past(Protocol):
    """Keys and values of one layer for the positions so far."""

    @property
    def mask(self) -> Mask:
        """What of them may be seen."""
        ...

    def append(self, key_RK1D: Tensor, value_RK1D: Tensor) -> tuple[Tensor, Tensor]:
        """Store the next position; returns all keys and values [R, K, S, D]."""
        ...


class Fillable(Protocol):
    """What takes in keys and values of the beginning of rows."""

    def fill(self, keys_RKTD: Tensor, values_RKTD: Tensor) -> None:
        """Store them."""


@final
class SelfAttention(nn.Module):
    """Attention of a sequence to itself; several heads of queries may share one head of keys and values.

    Grouped heads follow Ainslie et al. 2023. Query, key and value come from one product, in this order.
    """

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_width = spec.heads, spec.kv_heads, spec.head_width
        self.group = spec.heads // spec.kv_heads
        """Heads of queries for each head of keys and values."""
        outputs = (spec.heads + 2 * spec.kv_heads) * spec.head_width
        self.projection = Linear(spec.width, outputs, spec.matrix, bias=spec.bias, parts=3)
        self.output = Linear(spec.width, spec.width, spec.residual_matrix, bias=spec.bias)
        self.turned = spec.turned
        self.qk_norm = spec.qk_norm
        if spec.qk_norm:
            self.query_norm = make_norm(spec, spec.head_width)
            self.key_norm = make_norm(spec, spec.head_width)
        self.score_scale = spec.score_scale
        self.dropout = Dropout(spec.attention_dropout, "attention_dropout")

    def forward(self, hidden_BTM: Tensor, mask: Mask, turn: Turn | None) -> Tensor:
        """[B, T, M] to [B, T, M]."""
        query, key, value = self._split(hidden_BTM, turn)
        return self._mixed(query, key, value, mask)

    def fill(self, hidden_RTM: Tensor, mask: Mask, turn: Turn | None, past: Fillable) -> Tensor:
        """The same; `past` takes in the keys and values [R, K, T, D] that a later token will look at."""
        query, key, value = self._split(hidden_RTM, turn)
        past.fill(key, value)
        return self._mixed(query, key, value, mask)

    def step(self, hidden_R1M: Tensor, past: Past, turn: Turn | None) -> Tensor:
        """The next position alone, which sees itself and all that `past` holds: [R, 1, M].

        The queries of a group stand side by side, so that they share keys and values without a copy.
        """
        query, key, value = self._split(hidden_R1M, turn)
        keys_RKSD, values_RKSD = past.append(key, value)
        if self.group == 1:
            return self._joined(attend(query, keys_RKSD, values_RKSD, past.mask, self.dropout))
        grouped = query.view(query.size(0), self.kv_heads, -1, self.head_width)
        mixed = attend(grouped, keys_RKSD, values_RKSD, past.mask, self.dropout)
        return self._joined(mixed.reshape(query.shape))

    def growth_parts(self) -> GrowthParts:
        """Queries, keys and values by heads; heads of queries by the head of keys that they share."""
        turned, plain = head(self.head_width, turned=self.turned), head(self.head_width)
        grouped = [heads(self.kv_heads, heads(self.group, one)) for one in (turned, plain)]
        fused = gives(grouped[0], heads(self.kv_heads, turned), heads(self.kv_heads, plain))
        return {
            **of_linear("projection", self.projection, fused, None),
            **of_linear("output", self.output, None, takes(grouped[1])),
        }

    def _split(self, hidden_BTM: Tensor, turn: Turn | None) -> tuple[Tensor, Tensor, Tensor]:
        """Query [B, H, T, D], key and value [B, K, T, D], turned and scaled."""
        joint = self.projection(hidden_BTM).unflatten(-1, (-1, self.head_width)).transpose(1, 2)
        both, value = joint.split((self.heads + self.kv_heads, self.kv_heads), dim=1)
        if self.qk_norm:
            query, key = both.split((self.heads, self.kv_heads), dim=1)
            both = torch.cat((self.query_norm(query), self.key_norm(key)), dim=1)
        query, key = (both if turn is None else turn(both)).split((self.heads, self.kv_heads), dim=1)
        return (query if self.score_scale == 1.0 else query * self.score_scale), key, value

    def _mixed(self, query: Tensor, key: Tensor, value: Tensor, mask: Mask) -> Tensor:
        if self.group > 1:  # repeated rather than left to the kernel: only some of torch's know grouped heads
            key, value = key.repeat_interleave(self.group, 1), value.repeat_interleave(self.group, 1)
        return self._joined(attend(query, key, value, mask, self.dropout))

    def _joined(self, mixed_BHTD: Tensor) -> Tensor:
        return self.output(mixed_BHTD.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


@final
class CrossAttention(nn.Module):
    """Attention of the target to the encoded source."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__()
        self.heads = spec.heads
        self.query = Linear(spec.width, spec.width, spec.matrix, bias=spec.bias)
        self.projection = Linear(spec.width, 2 * spec.width, spec.matrix, bias=spec.bias, parts=2)
        self.output = Linear(spec.width, spec.width, spec.residual_matrix, bias=spec.bias)
        self.dropout = Dropout(spec.attention_dropout, "attention_dropout")

    def growth_parts(self) -> GrowthParts:
        """Queries, keys and values by heads."""
        of_heads = heads(self.heads, head(self.query.out_features // self.heads))
        return {
            **of_linear("query", self.query, gives(of_heads), None),
            **of_linear("projection", self.projection, gives(of_heads, of_heads), None),
            **of_linear("output", self.output, None, takes(of_heads)),
        }

    def keys_values(self, memory_BSM: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, H, S, D] of the encoded source."""
        joint = self.projection(memory_BSM).unflatten(-1, (2, self.heads, -1))
        key, value = joint.permute(2, 0, 3, 1, 4).unbind(0)
        return key, value

    def forward(self, hidden_BTM: Tensor, memory_BSM: Tensor, mask: Mask) -> Tensor:
        """[B, T, M] and [B, S, M] to [B, T, M]."""
        key, value = self.keys_values(memory_BSM)
        return self._mix(hidden_BTM, key, value, mask)

    def weights(self, hidden_BTM: Tensor, memory_BSM: Tensor, mask: Mask) -> Tensor:
        """The weights [B, H, T, S] by which `forward` mixes the values, before dropout; each row sums to 1."""
        return attention_weights(self._queries(hidden_BTM), self.keys_values(memory_BSM)[0], mask)

    def _queries(self, hidden_BTM: Tensor) -> Tensor:
        return self.query(hidden_BTM).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # type: ignore[no-any-return]

    def _mix(self, hidden_BTM: Tensor, key: Tensor, value: Tensor, mask: Mask) -> Tensor:
        mixed_BHTD = attend(self._queries(hidden_BTM), key, value, mask, self.dropout)
        return self.output(mixed_BHTD.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def step(self, hidden_R1M: Tensor, cache: LayerCache, mask: Mask) -> Tensor:
        """The next position of every row; the beams of a sentence stand side by side as its queries, so that they
        share its keys and values without a copy: [R, 1, M].
        """
        sentences = cache.source_keys.size(0)
        hidden_BWM = hidden_R1M.view(sentences, -1, hidden_R1M.size(-1))
        return self._mix(hidden_BWM, cache.source_keys, cache.source_values, mask).view_as(hidden_R1M)
