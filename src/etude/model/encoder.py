"""Encoders of tokens: a transformer, and vectors of tokens alone.

Legend: B batch, S time, M width of the model.
"""

from collections.abc import Sequence
from typing import Literal, Self, final

from pydantic import Field, model_validator
from torch import Tensor, nn

from etude.base.config.section import Section
from etude.model.layers.blocks import EncoderLayer
from etude.model.layers.dropout import Dropout
from etude.model.layers.growing import SINUSOIDS, GrowthParts, Nested, embedded
from etude.model.layers.linear import ScaledEmbedding
from etude.model.layers.masks import Mask, padding_mask
from etude.model.layers.norms import EPSILON, final_norm
from etude.model.layers.positions import Positions, added, check_width, turning
from etude.model.layers.spec import LayerSpec
from etude.model.rates import Rate, initial


class EncoderConfig(Section):
    """`[model] type = "encoder"`: a transformer encoder."""

    type: Literal["encoder"] = "encoder"
    d_model: int = Field(128, ge=1)
    """Width of the residual stream."""
    heads: int = Field(4, ge=1)
    """Attention heads; they divide `d_model`."""
    layers: int = Field(2, ge=1)
    """Layers of the encoder."""
    feedforward: int = Field(512, ge=1)
    """Width inside the feed-forward layers."""
    dropout: Rate = 0.1
    """Dropout on embeddings, on the output of every sublayer, and on what is pooled."""
    attention_dropout: Rate = 0.0
    """Dropout on attention weights."""
    activation: Literal["relu", "gelu", "swiglu"] = "relu"
    """Activation of the feed-forward layers; swiglu is gated (Shazeer 2020)."""
    norm: Literal["pre", "post"] = "pre"
    """Normalise before each sublayer, or after each sum as in 2017."""
    positions: Positions = "sinusoidal"
    """Position encoding: added sinusoids, added learned vectors, or rotated queries and keys (Su et al. 2021)."""
    max_positions: int = Field(512, ge=1)
    """Longest sequence of `learned` positions; the others have no limit."""

    @model_validator(mode="after")
    def _width_fits(self) -> Self:
        check_width(self.positions, self.d_model, self.heads)
        return self


class EmbeddingConfig(Section):
    """`[model] type = "embedding"`: a vector for each token, whatever stands beside it."""

    type: Literal["embedding"] = "embedding"
    d_model: int = Field(128, ge=1)
    """Width of the vectors."""
    dropout: Rate = 0.1
    """Dropout on the vectors, and on what is pooled."""


@final
class TokenEncoder(nn.Module):
    """A transformer encoder over tokens; keys that are `pad` are never seen."""

    rates = ("dropout", "attention_dropout")
    """Keys of its config that a schedule may drive."""

    def __init__(self, config: EncoderConfig, vocabulary: int, pad: int = 0) -> None:
        super().__init__()
        self.pad, self.width = pad, config.d_model
        self._obstacle = SINUSOIDS if config.positions == "sinusoidal" else ""
        spec = _spec(config)
        self.embedding = ScaledEmbedding(vocabulary, config.d_model)
        self.positions = added(config.positions, config.d_model, config.max_positions)
        self.rotary = turning(config.positions, spec.head_width)
        self.dropout = Dropout(spec.dropout)
        self.layers = nn.ModuleList(EncoderLayer(spec) for _ in range(config.layers))
        self.norm = final_norm(spec)

    def growth_parts(self) -> GrowthParts:
        """What the vectors of tokens are."""
        width = embedded(self.width, obstacle=self._obstacle, gain=self.embedding.scale)
        return {"embedding.weight": (None, width)}

    def growth_outputs(self) -> Sequence[Nested]:
        """The width."""
        return (self.width,)

    def forward(self, tokens_BS: Tensor, mask: Mask | None = None) -> Tensor:
        """[B, S] to [B, S, M]; what stands where padding does means nothing.

        `mask` says what else is hidden, and what padding is.
        """
        hidden_BSM = self.dropout(self.positions(self.embedding(tokens_BS), 0))
        mask = padding_mask(tokens_BS == self.pad, hidden_BSM.dtype) if mask is None else mask
        turn = self.rotary.turn(0, tokens_BS.size(1), hidden_BSM)
        for layer in self.layers:
            hidden_BSM = layer(hidden_BSM, mask, turn)
        return self.norm(hidden_BSM)  # type: ignore[no-any-return]


@final
class TokenVectors(nn.Module):
    """A vector for each token."""

    rates = ("dropout",)
    """Keys of its config that a schedule may drive."""

    def __init__(self, config: EmbeddingConfig, vocabulary: int) -> None:
        super().__init__()
        self.width = config.d_model
        self.embedding = ScaledEmbedding(vocabulary, config.d_model)
        self.dropout = Dropout(initial(config.dropout))

    def growth_parts(self) -> GrowthParts:
        """What the vectors of tokens are."""
        return {"embedding.weight": (None, embedded(self.width, gain=self.embedding.scale))}

    def growth_outputs(self) -> Sequence[Nested]:
        """The width."""
        return (self.width,)

    def forward(self, tokens_BS: Tensor) -> Tensor:
        """[B, S] to [B, S, M]."""
        return self.dropout(self.embedding(tokens_BS))  # type: ignore[no-any-return]


def _spec(config: EncoderConfig) -> LayerSpec:
    return LayerSpec(
        width=config.d_model,
        heads=config.heads,
        kv_heads=config.heads,
        feedforward=config.feedforward,
        activation=config.activation,
        normalisation="layer",
        epsilon=EPSILON,
        norm_first=config.norm == "pre",
        turned=config.positions == "rotary",
        bias=True,
        dropout=initial(config.dropout),
        attention_dropout=initial(config.attention_dropout),
    )
