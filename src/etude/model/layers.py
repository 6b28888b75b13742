"""The layers of a transformer: feed-forward, encoder layer, decoder layer.

Legend: B batch, T target time, S source time, M width of the model, R rows (sentences x beam).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, final

import torch.nn.functional as F
from torch import Tensor, nn

from etude.model.attention import CrossAttention, Mask, SelfAttention
from etude.model.cache import LayerCache
from etude.model.dropout import Dropout
from etude.model.linear import Linear

Activation = Literal["relu", "gelu", "swiglu"]
Normalisation = Literal["layer", "rms"]
EPSILON = 1e-6


@dataclass(frozen=True)
class Shape:
    """What all layers of a transformer have in common, with rates as they are at the start."""

    width: int
    heads: int
    feedforward: int
    activation: Activation
    normalisation: Normalisation
    norm_first: bool
    bias: bool
    dropout: float
    attention_dropout: float
    activation_dropout: float


def make_norm(shape: Shape) -> nn.Module:
    """The normalisation that `shape` names."""
    if shape.normalisation == "rms":
        return nn.RMSNorm(shape.width, eps=EPSILON)
    return nn.LayerNorm(shape.width, eps=EPSILON, bias=shape.bias)


@final
class FeedForward(nn.Module):
    """Two products with an activation between; `swiglu` gates it (Shazeer 2020) and has half as many weights more."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gated = shape.activation == "swiglu"
        parts = 2 if self.gated else 1
        self.inner = Linear(shape.width, parts * shape.feedforward, bias=shape.bias, parts=parts)
        self.outer = Linear(shape.feedforward, shape.width, bias=shape.bias)
        self.activation: Callable[[Tensor], Tensor] = F.relu if shape.activation == "relu" else F.gelu
        self.dropout = Dropout(shape.activation_dropout, "activation_dropout")

    def forward(self, hidden_BTM: Tensor) -> Tensor:
        """[B, T, M] to [B, T, M]."""
        inner = self.inner(hidden_BTM)
        if self.gated:
            gate, value = inner.chunk(2, dim=-1)
            inner = F.silu(gate) * value
        else:
            inner = self.activation(inner)
        return self.outer(self.dropout(inner))  # type: ignore[no-any-return]


@final
class Residual(nn.Module):
    """The way around a sublayer: normalised before it (pre-norm) or behind the sum (post-norm)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.norm = make_norm(shape)
        self.norm_first = shape.norm_first
        self.dropout = Dropout(shape.dropout)

    def forward(self, hidden_BTM: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """[B, T, M] to [B, T, M]."""
        if self.norm_first:
            return hidden_BTM + self.dropout(sublayer(self.norm(hidden_BTM)))  # type: ignore[no-any-return]
        return self.norm(hidden_BTM + self.dropout(sublayer(hidden_BTM)))  # type: ignore[no-any-return]


@final
class EncoderLayer(nn.Module):
    """Self-attention and feed-forward."""

    def __init__(self, shape: Shape, turn: nn.Module) -> None:
        super().__init__()
        rate = shape.attention_dropout
        self.attention = SelfAttention(shape.width, shape.heads, rate=rate, bias=shape.bias, turn=turn)
        self.attention_residual = Residual(shape)
        self.feedforward = FeedForward(shape)
        self.feedforward_residual = Residual(shape)

    def forward(self, hidden_BSM: Tensor, mask: Mask) -> Tensor:
        """[B, S, M] to [B, S, M]."""
        hidden_BSM = self.attention_residual(hidden_BSM, lambda x: self.attention(x, mask))
        return self.feedforward_residual(hidden_BSM, self.feedforward)  # type: ignore[no-any-return]


@final
class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the source, and feed-forward."""

    def __init__(self, shape: Shape, turn: nn.Module) -> None:
        super().__init__()
        rate = shape.attention_dropout
        self.attention = SelfAttention(shape.width, shape.heads, rate=rate, bias=shape.bias, turn=turn)
        self.attention_residual = Residual(shape)
        self.cross = CrossAttention(shape.width, shape.heads, rate=rate, bias=shape.bias)
        self.cross_residual = Residual(shape)
        self.feedforward = FeedForward(shape)
        self.feedforward_residual = Residual(shape)

    def forward(self, hidden_BTM: Tensor, mask: Mask, memory_BSM: Tensor, source_mask: Mask) -> Tensor:
        """[B, T, M] to [B, T, M]."""
        hidden_BTM = self.attention_residual(hidden_BTM, lambda x: self.attention(x, mask))
        hidden_BTM = self.cross_residual(hidden_BTM, lambda x: self.cross(x, memory_BSM, source_mask))
        return self.feedforward_residual(hidden_BTM, self.feedforward)  # type: ignore[no-any-return]

    def step(self, hidden_R1M: Tensor, cache: LayerCache, source_mask: Mask) -> Tensor:
        """The next position alone: [R, 1, M] to [R, 1, M]."""
        hidden_R1M = self.attention_residual(hidden_R1M, lambda x: self.attention.step(x, cache))
        hidden_R1M = self.cross_residual(hidden_R1M, lambda x: self.cross.step(x, cache, source_mask))
        return self.feedforward_residual(hidden_R1M, self.feedforward)  # type: ignore[no-any-return]
