"""The layers of a transformer: sublayers, each added to the residual stream.

Legend: B batch, T target time, S source time, M width of the model, R rows (sentences x beam, or rows that generate).
"""

from collections.abc import Callable
from typing import Protocol, final, runtime_checkable

from torch import Tensor, nn

from etude.model.layers.attention import CrossAttention, Fillable, Past, SelfAttention
from etude.model.layers.beam_cache import LayerCache
from etude.model.layers.dropout import Dropout
from etude.model.layers.feedforward import FeedForward
from etude.model.layers.masks import Mask
from etude.model.layers.norms import make_norm
from etude.model.layers.positions import Turn
from etude.model.layers.spec import LayerSpec


@runtime_checkable
class AddsToStream(Protocol):
    """A layer that tells which of its matrices have products that are added to the residual stream."""

    def residual_weights(self) -> list[Tensor]:
        """These matrices."""
        ...


@runtime_checkable
class EndsNormalised(Protocol):
    """A layer that tells which norms lie on its residual stream itself, not on what a sublayer takes of it."""

    def ending_norms(self) -> list[nn.Module]:
        """These norms, in order; the last is the last that happens. None where norms stand before sublayers."""
        ...


def around(
    hidden: Tensor, sublayer: Callable[[Tensor], Tensor], norm: nn.Module, dropout: nn.Module, *, norm_first: bool
) -> Tensor:
    """The way around a sublayer: normalised before it (pre-norm) or behind the sum (post-norm)."""
    if norm_first:
        return hidden + dropout(sublayer(norm(hidden)))  # type: ignore[no-any-return]
    return norm(hidden + dropout(sublayer(hidden)))  # type: ignore[no-any-return]


@final
class Residual(nn.Module):
    """The way around a sublayer, with a norm and a dropout of its own."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__()
        self.norm = make_norm(spec)
        self.norm_first = spec.norm_first
        self.dropout = Dropout(spec.dropout)

    def forward(self, hidden_BTM: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """[B, T, M] to [B, T, M]."""
        return around(hidden_BTM, sublayer, self.norm, self.dropout, norm_first=self.norm_first)


def _ending(*residuals: Residual) -> list[nn.Module]:
    return [residual.norm for residual in residuals if not residual.norm_first]


@final
class EncoderLayer(nn.Module):
    """Self-attention and feed-forward."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__()
        self.attention = SelfAttention(spec)
        self.attention_residual = Residual(spec)
        self.feedforward = FeedForward(spec)
        self.feedforward_residual = Residual(spec)

    def forward(self, hidden_BSM: Tensor, mask: Mask, turn: Turn | None) -> Tensor:
        """[B, S, M] to [B, S, M]."""
        hidden_BSM = self.attention_residual(hidden_BSM, lambda x: self.attention(x, mask, turn))
        return self.feedforward_residual(hidden_BSM, self.feedforward)  # type: ignore[no-any-return]

    def residual_weights(self) -> list[Tensor]:
        """Those of attention and feed-forward."""
        return [self.attention.output.weight, self.feedforward.outer.weight]

    def ending_norms(self) -> list[nn.Module]:
        """Those of post-norm sublayers."""
        return _ending(self.attention_residual, self.feedforward_residual)


@final
class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the source, and feed-forward."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__()
        self.attention = SelfAttention(spec)
        self.attention_residual = Residual(spec)
        self.cross = CrossAttention(spec)
        self.cross_residual = Residual(spec)
        self.feedforward = FeedForward(spec)
        self.feedforward_residual = Residual(spec)

    def forward(
        self, hidden_BTM: Tensor, mask: Mask, turn: Turn | None, memory_BSM: Tensor, source_mask: Mask
    ) -> Tensor:
        """[B, T, M] to [B, T, M]."""
        hidden_BTM = self.attention_residual(hidden_BTM, lambda x: self.attention(x, mask, turn))
        hidden_BTM = self.cross_residual(hidden_BTM, lambda x: self.cross(x, memory_BSM, source_mask))
        return self.feedforward_residual(hidden_BTM, self.feedforward)  # type: ignore[no-any-return]

    def step(self, hidden_R1M: Tensor, cache: LayerCache, turn: Turn | None, source_mask: Mask) -> Tensor:
        """The next position alone: [R, 1, M] to [R, 1, M]."""
        hidden_R1M = self.attention_residual(hidden_R1M, lambda x: self.attention.step(x, cache, turn))
        hidden_R1M = self.cross_residual(hidden_R1M, lambda x: self.cross.step(x, cache, source_mask))
        return self.feedforward_residual(hidden_R1M, self.feedforward)  # type: ignore[no-any-return]

    def residual_weights(self) -> list[Tensor]:
        """Those of both attentions and the feed-forward."""
        return [self.attention.output.weight, self.feedforward.outer.weight, self.cross.output.weight]

    def ending_norms(self) -> list[nn.Module]:
        """Those of post-norm sublayers."""
        return _ending(self.attention_residual, self.cross_residual, self.feedforward_residual)


@final
class CausalLayer(nn.Module):
    """Causal self-attention and feed-forward, of a decoder that has no source.

    An `EncoderLayer` whose norms stand before their sublayers: first values and optimizers follow names and order of
    the parameters.
    """

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__()
        self.norm_first = spec.norm_first
        self.attention_norm = make_norm(spec)
        self.attention = SelfAttention(spec)
        self.feedforward_norm = make_norm(spec)
        self.feedforward = FeedForward(spec)
        self.dropout = Dropout(spec.dropout)

    def forward(self, hidden_BTM: Tensor, mask: Mask, turn: Turn | None) -> Tensor:
        """[B, T, M] to [B, T, M]."""
        return self._around(hidden_BTM, lambda x: self.attention(x, mask, turn))

    def fill(self, hidden_RTM: Tensor, mask: Mask, turn: Turn | None, past: Fillable) -> Tensor:
        """The same; `past` takes in keys and values."""
        return self._around(hidden_RTM, lambda x: self.attention.fill(x, mask, turn, past))

    def step(self, hidden_R1M: Tensor, past: Past, turn: Turn | None) -> Tensor:
        """The next position alone: [R, 1, M] to [R, 1, M]."""
        return self._around(hidden_R1M, lambda x: self.attention.step(x, past, turn))

    def _around(self, hidden: Tensor, attention: Callable[[Tensor], Tensor]) -> Tensor:
        first = self.norm_first
        hidden = around(hidden, attention, self.attention_norm, self.dropout, norm_first=first)
        return around(hidden, self.feedforward, self.feedforward_norm, self.dropout, norm_first=first)

    def ending_norms(self) -> list[nn.Module]:
        """Those of post-norm sublayers."""
        return [] if self.norm_first else [self.attention_norm, self.feedforward_norm]
