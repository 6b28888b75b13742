"""The layers of a decoder-only transformer: causal attention with grouped heads, feed-forward, positions.

Legend: B batch, T time, S keys, H heads, K heads of keys, D width of a head, M width of the model, R rows.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from etude.model.attention import EVERYWHERE, HIDDEN, Mask, attend
from etude.model.dropout import Dropout
from etude.model.kv_cache import KeyValueCache
from etude.model.layers import Normalisation

DecoderActivation = Literal["relu", "gelu", "gelu_tanh", "swiglu"]
EPSILON = 1e-5
"""Of both normalisations, as in GPT-2 and Llama."""

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
}


@dataclass(frozen=True)
class DecoderShape:
    """What all layers of a decoder have in common, with rates as they are at the start."""

    width: int
    heads: int
    kv_heads: int
    feedforward: int
    activation: DecoderActivation
    normalisation: Normalisation
    norm_first: bool
    bias: bool
    qk_norm: bool
    score_scale: float
    """Factor of attention scores beside 1 / sqrt(D)."""
    deviation: float
    """Of the normal distribution that matrices begin with."""
    residual_deviation: float
    """Of the matrices whose products are added to the residual stream."""
    dropout: float
    attention_dropout: float
    activation_dropout: float

    @property
    def head_width(self) -> int:
        """D."""
        return self.width // self.heads


class Turn(NamedTuple):
    """By how much queries and keys are turned, made once for each batch: [B or 1, 1, T, D / 2] each."""

    sine: Tensor
    cosine: Tensor

    def __call__(self, value_BHTD: Tensor) -> Tensor:
        """Turn in float32 or better (Su et al. 2021, RoFormer; halves as in GPT-NeoX and Llama)."""
        wide = value_BHTD if value_BHTD.dtype == torch.float64 else value_BHTD.float()
        first, second = wide.chunk(2, dim=-1)
        turned = torch.cat((first * self.cosine - second * self.sine, second * self.cosine + first * self.sine), dim=-1)
        return turned.to(value_BHTD.dtype)


def turn_by(positions: Tensor, head_width: int, base: float, like: Tensor) -> Turn:
    """The turn of each of `positions` ([T] or [B, T]); angles are computed in float64."""
    pairs = head_width // 2
    frequencies = base ** (-torch.arange(pairs, dtype=torch.float64, device=positions.device) / pairs)
    angles = (positions.double()[..., None] * frequencies).unsqueeze(-3)
    kind = torch.float64 if like.dtype == torch.float64 else torch.float32
    return Turn(angles.sin().to(kind), angles.cos().to(kind))


def sinusoids(positions: Tensor, width: int, deviation: float, like: Tensor) -> Tensor:
    """Sines and cosines of each of `positions` ([T] or [B, T]), as large as embeddings of that deviation.

    Vaswani et al. 2017, section 3.5, with halves instead of interleaved.
    """
    sine, cosine = turn_by(positions, width, 10_000.0, like)
    return torch.cat((sine, cosine), dim=-1).squeeze(-3) * (deviation * math.sqrt(2.0))


def document_mask(documents_BT: Tensor, dtype: torch.dtype) -> Mask:
    """Hide what comes after the query, and what belongs to another document than it."""
    length = documents_BT.size(1)
    earlier = torch.ones(length, length, dtype=torch.bool, device=documents_BT.device).tril_()
    seen = (documents_BT[:, :, None] == documents_BT[:, None, :]) & earlier
    added = torch.zeros(seen.shape, dtype=dtype, device=documents_BT.device)
    return Mask(added.masked_fill_(~seen, HIDDEN)[:, None])


def window_mask(length: int, window: int, like: Tensor) -> Mask:
    """Hide what comes after the query, and what lies `window` tokens before it or more."""
    places = torch.arange(length, device=like.device)
    distance = places[:, None] - places
    added = torch.zeros(length, length, dtype=like.dtype, device=like.device)
    return Mask(added.masked_fill_((distance < 0) | (distance >= window), HIDDEN))


@final
class Projection(nn.Linear):
    """`nn.Linear` whose weights begin normal with a given deviation, and biases at zero."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool, deviation: float) -> None:
        self.deviation = deviation
        super().__init__(inputs, outputs, bias=bias)

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        nn.init.normal_(self.weight, std=self.deviation)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


@final
class TokenEmbedding(nn.Embedding):
    """`nn.Embedding` whose vectors begin normal with a given deviation; of tokens, or of positions."""

    def __init__(self, size: int, width: int, *, deviation: float) -> None:
        self.deviation = deviation
        super().__init__(size, width)

    def reset_parameters(self) -> None:
        """Draw the vectors anew."""
        nn.init.normal_(self.weight, std=self.deviation)


def norm_of(shape: DecoderShape, width: int | None = None) -> nn.Module:
    """The normalisation that `shape` names, of the model's width unless given."""
    if shape.normalisation == "rms":
        return nn.RMSNorm(width or shape.width, eps=EPSILON)
    return nn.LayerNorm(width or shape.width, eps=EPSILON, bias=shape.bias)


@final
class CausalAttention(nn.Module):
    """Attention to oneself and what came before; several heads of queries may share one head of keys and values.

    Grouped heads follow Ainslie et al. 2023. Query, key and value come from one product, in this order.
    """

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_width = shape.heads, shape.kv_heads, shape.head_width
        outputs = (shape.heads + 2 * shape.kv_heads) * shape.head_width
        self.projection = Projection(shape.width, outputs, bias=shape.bias, deviation=shape.deviation)
        self.output = Projection(shape.width, shape.width, bias=shape.bias, deviation=shape.residual_deviation)
        self.qk_norm = shape.qk_norm
        if shape.qk_norm:
            self.query_norm = norm_of(shape, shape.head_width)
            self.key_norm = norm_of(shape, shape.head_width)
        self.score_scale = shape.score_scale
        self.dropout = Dropout(shape.attention_dropout, "attention_dropout")

    def _split(self, hidden_BTM: Tensor, turn: Turn | None) -> tuple[Tensor, Tensor, Tensor]:
        """Query [B, H, T, D], key and value [B, K, T, D], turned and scaled."""
        joint = self.projection(hidden_BTM).unflatten(-1, (-1, self.head_width)).transpose(1, 2)
        both, value = joint.split((self.heads + self.kv_heads, self.kv_heads), dim=1)
        if self.qk_norm:
            query, key = both.split((self.heads, self.kv_heads), dim=1)
            both = torch.cat((self.query_norm(query), self.key_norm(key)), dim=1)
        query, key = (both if turn is None else turn(both)).split((self.heads, self.kv_heads), dim=1)
        return (query if self.score_scale == 1.0 else query * self.score_scale), key, value

    def _joined(self, mixed_BHTD: Tensor) -> Tensor:
        return self.output(mixed_BHTD.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def forward(self, hidden_BTM: Tensor, mask: Mask, turn: Turn | None) -> Tensor:
        """[B, T, M] to [B, T, M]."""
        return self.remember(hidden_BTM, mask, turn)[0]

    def remember(self, hidden_BTM: Tensor, mask: Mask, turn: Turn | None) -> tuple[Tensor, Tensor, Tensor]:
        """The same, and the keys and values [B, K, T, D] that a later token will look at."""
        query, key, value = self._split(hidden_BTM, turn)
        group = self.heads // self.kv_heads
        # Repeated rather than left to the kernel: only some of torch's know grouped heads.
        keys, values = (
            (key, value) if group == 1 else (key.repeat_interleave(group, 1), value.repeat_interleave(group, 1))
        )
        return self._joined(attend(query, keys, values, mask, self.dropout)), key, value

    def step(self, hidden_R1M: Tensor, turn: Turn | None, layer: int, cache: KeyValueCache) -> Tensor:
        """The next position alone, which sees itself and all that the cache holds: [R, 1, M].

        The queries of a group stand side by side, so that they share keys and values without a copy.
        """
        query, key, value = self._split(hidden_R1M, turn)
        keys_RKSD, values_RKSD = cache.append(layer, key, value)
        grouped = query.view(query.size(0), self.kv_heads, -1, self.head_width)
        mask = EVERYWHERE if cache.mask is None else Mask(cache.mask)
        mixed = attend(grouped, keys_RKSD, values_RKSD, mask, self.dropout)
        return self._joined(mixed.reshape(query.shape))


@final
class GatedOrNot(nn.Module):
    """The feed-forward sublayer: two products with an activation between; `swiglu` gates it (Shazeer 2020)."""

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.gated = shape.activation == "swiglu"
        inner = (2 if self.gated else 1) * shape.feedforward
        self.inner = Projection(shape.width, inner, bias=shape.bias, deviation=shape.deviation)
        # The deviation of the second product follows the width alone, as in GPT-2, though its inputs are more.
        self.outer = Projection(shape.feedforward, shape.width, bias=shape.bias, deviation=shape.residual_deviation)
        self.activation = _ACTIVATIONS.get(shape.activation, F.silu)
        self.dropout = Dropout(shape.activation_dropout, "activation_dropout")

    def forward(self, hidden_BTM: Tensor) -> Tensor:
        """[B, T, M] to [B, T, M]."""
        inner = self.inner(hidden_BTM)
        if self.gated:
            gate, value = inner.chunk(2, dim=-1)
            inner = self.activation(gate) * value
        else:
            inner = self.activation(inner)
        return self.outer(self.dropout(inner))  # type: ignore[no-any-return]


@final
class CausalLayer(nn.Module):
    """Causal attention and feed-forward, each added to the residual stream."""

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.norm_first = shape.norm_first
        self.attention_norm = norm_of(shape)
        self.attention = CausalAttention(shape)
        self.feedforward_norm = norm_of(shape)
        self.feedforward = GatedOrNot(shape)
        self.dropout = Dropout(shape.dropout)

    def forward(self, hidden_BTM: Tensor, mask: Mask, turn: Turn | None) -> Tensor:
        """[B, T, M] to [B, T, M]."""
        return self._around(hidden_BTM, lambda x: self.attention(x, mask, turn))

    def remember(
        self, hidden_RTM: Tensor, mask: Mask, turn: Turn | None, keep: Callable[[Tensor, Tensor], None]
    ) -> Tensor:
        """The same; `keep` is handed keys and values."""

        def attended(normed_RTM: Tensor) -> Tensor:
            mixed, key, value = self.attention.remember(normed_RTM, mask, turn)
            keep(key, value)
            return mixed

        return self._around(hidden_RTM, attended)

    def step(self, hidden_R1M: Tensor, turn: Turn | None, layer: int, cache: KeyValueCache) -> Tensor:
        """The next position alone: [R, 1, M] to [R, 1, M]."""
        return self._around(hidden_R1M, lambda x: self.attention.step(x, turn, layer, cache))

    def _around(self, hidden: Tensor, attention: Callable[[Tensor], Tensor]) -> Tensor:
        """Both sublayers with their ways around: normalised before (pre-norm) or behind the sums (post-norm)."""
        if self.norm_first:
            hidden = hidden + self.dropout(attention(self.attention_norm(hidden)))
            return hidden + self.dropout(self.feedforward(self.feedforward_norm(hidden)))  # type: ignore[no-any-return]
        hidden = self.attention_norm(hidden + self.dropout(attention(hidden)))
        return self.feedforward_norm(hidden + self.dropout(self.feedforward(hidden)))  # type: ignore[no-any-return]
