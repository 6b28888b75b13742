"""The head of attention over frames: a transformer decoder (Vaswani et al. 2017) whose source are encoded frames.

Legend: B sequences, T frames, L labels, M width of the decoder, E of the encoder, V vocabulary, R rows (sequences x
beam).
"""

import sys
from functools import partial
from typing import Literal, Self, final

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from etude.base.config.section import Section
from etude.base.schedules.values import ScheduledValue
from etude.model.layers.beam_cache import Cache, Memory
from etude.model.layers.blocks import DecoderLayer
from etude.model.layers.decoding import begun, stepped
from etude.model.layers.dropout import Dropout, set_dropout
from etude.model.layers.growing import SINUSOIDS, GrowthParts, classes, embedded, of_linear
from etude.model.layers.linear import Linear, ScaledEmbedding
from etude.model.layers.masks import Mask, causal_mask, padding_mask
from etude.model.layers.norms import EPSILON, final_norm
from etude.model.layers.positions import Positions, added, check_width, turning
from etude.model.layers.spec import LayerSpec, Normalisation
from etude.model.rates import Rate, initial, is_constant

RATES = ("dropout", "attention_dropout", "activation_dropout")
"""Kinds of dropout; what `set_dropout` takes."""


class AttentionConfig(Section):
    """`[model.attention]`: a transformer decoder over the encoded frames."""

    d_model: int = Field(256, ge=1)
    """Width of the residual stream; encoded frames of another width are brought to it by a linear layer."""
    heads: int = Field(4, ge=1)
    """Attention heads; they divide `d_model`."""
    layers: int = Field(3, ge=1)
    """Layers of self-attention, attention to the frames, and feed-forward."""
    feedforward: int = Field(1024, ge=1)
    """Width inside the feed-forward layers."""
    dropout: Rate = 0.1
    """Dropout on embeddings and on the output of every sublayer."""
    attention_dropout: Rate = 0.0
    """Dropout on attention weights."""
    activation_dropout: Rate = 0.0
    """Dropout inside the feed-forward layers."""
    activation: Literal["relu", "gelu", "swiglu"] = "relu"
    """Activation of the feed-forward layers; swiglu is gated (Shazeer 2020)."""
    norm: Literal["pre", "post"] = "pre"
    """Normalise before each sublayer, or after each sum as in 2017."""
    normalisation: Normalisation = "layer"
    """Layer norm, or rms, its form without mean and bias (Zhang and Sennrich 2019)."""
    positions: Positions = "sinusoidal"
    """Position encoding of labels: added sinusoids, added learned vectors, or rotated queries and keys."""
    max_positions: int = Field(512, ge=1)
    """Most labels, bos counted, of `learned` positions; the others have no limit."""
    bias: bool = True
    """Whether linear layers and layer norms have biases."""
    tie_output: bool = True
    """The output layer is the embedding of labels."""

    @model_validator(mode="after")
    def _width_fits(self) -> Self:
        check_width(self.positions, self.d_model, self.heads)
        return self


@final
class AttentionHead(nn.Module):
    """A decoder over the frames of an encoder of `width`, for training (`forward`) and decoding.

    Frames beyond a sequence's length are never seen, whatever they are; labels are padded on the right, where
    causality hides it. `start` and `step` are those that `etude.search.beam` drives.
    """

    def __init__(self, config: AttentionConfig, width: int, vocabulary: int) -> None:
        super().__init__()
        self.config = config
        spec = _spec(config)
        self.frames = Linear(width, config.d_model) if width != config.d_model else nn.Identity()
        self.embedding = ScaledEmbedding(vocabulary, config.d_model)
        self.positions = added(config.positions, config.d_model, config.max_positions)
        self.rotary = turning(config.positions, spec.head_width)
        self.dropout = Dropout(initial(config.dropout))
        self.layers = nn.ModuleList(DecoderLayer(spec) for _ in range(config.layers))
        self.norm = final_norm(spec)
        if not config.tie_output:
            self.output = Linear(config.d_model, vocabulary, bias=False)

    @property
    def longest(self) -> int:
        """Most labels that are decoded besides bos; as good as no limit but with learned positions."""
        return self.config.max_positions - 1 if self.config.positions == "learned" else sys.maxsize

    @property
    def output_weight(self) -> Tensor:
        """The matrix [V, M] whose product with `hidden` gives the logits."""
        return self.embedding.weight if self.config.tie_output else self.output.weight

    def growth_parts(self) -> GrowthParts:
        """What embedding and output are."""
        config = self.config
        obstacle = SINUSOIDS if config.positions == "sinusoidal" else ""
        scale = self.embedding.scale
        width = embedded(config.d_model, is_output=config.tie_output, obstacle=obstacle, gain=scale)
        parts = {"embedding.weight": (None, width)}
        if config.tie_output:
            return parts
        return {**parts, **of_linear("output", self.output, classes(self.output.out_features), None)}

    def growth_inputs(self) -> list[str]:
        """What takes frames: the layer that brings them to the decoder's width, or else every attention to them."""
        if isinstance(self.frames, Linear):
            return ["frames.weight"]
        return [f"layers.{index}.cross.projection.weight" for index in range(len(self.layers))]

    def scheduled_values(self) -> list[ScheduledValue]:
        """The rates of dropout that the config gives as schedules."""
        given = dict(self.config)
        return [
            ScheduledValue(f"model.attention.{kind}", given[kind], partial(set_dropout, self, kind))
            for kind in RATES
            if not is_constant(given[kind])
        ]

    def forward(self, encoded_BTE: Tensor, lengths_B: Tensor, decoder_input_BL: Tensor) -> Tensor:
        """Logits [B, L, V] of the label that follows each of `decoder_input_BL`, which begin with bos."""
        return F.linear(self.hidden(encoded_BTE, lengths_B, decoder_input_BL), self.output_weight)

    def hidden(self, encoded_BTE: Tensor, lengths_B: Tensor, decoder_input_BL: Tensor) -> Tensor:
        """What `forward` makes its logits of, [B, L, M]; for a loss that never holds all logits."""
        memory = self.encode(encoded_BTE, lengths_B)
        hidden_BLM = self._embed(decoder_input_BL, 0)
        length = decoder_input_BL.size(1)
        mask, turn = causal_mask(length, hidden_BLM), self.rotary.turn(0, length, hidden_BLM)
        for layer in self.layers:
            hidden_BLM = layer(hidden_BLM, mask, turn, memory.hidden, Mask(memory.mask))
        return self.norm(hidden_BLM)  # type: ignore[no-any-return]

    def encode(self, encoded_BTE: Tensor, lengths_B: Tensor) -> Memory:
        """Frames as attention sees them; a sequence without frames sees zeros."""
        encoded_BTE = F.pad(encoded_BTE, (0, 0, 0, max(0, 1 - encoded_BTE.size(1))))
        beyond_BT = torch.arange(encoded_BTE.size(1), device=encoded_BTE.device) >= lengths_B[:, None]
        # A weight of 0 does not hide what is not a number.
        hidden_BTM = self.frames(encoded_BTE.masked_fill(beyond_BT[..., None], 0.0))
        return Memory(hidden_BTM, padding_mask(beyond_BT, hidden_BTM.dtype).added)

    def start(self, memory: Memory, width: int = 1) -> Cache:
        """An empty cache for `width` beams a sequence; keys and values of the frames are computed here, once."""
        return begun(self.layers, memory, width)

    def step(self, labels_R: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """Logits [R, V] of the label after `labels_R`, which the cache takes in (in place)."""
        hidden_R1M = self._embed(labels_R[:, None], cache.length)
        hidden_RM = stepped(self.layers, hidden_R1M, cache, self.rotary)
        return F.linear(self.norm(hidden_RM), self.output_weight), cache

    def _embed(self, labels: Tensor, start: int) -> Tensor:
        return self.dropout(self.positions(self.embedding(labels), start))  # type: ignore[no-any-return]


def _spec(config: AttentionConfig) -> LayerSpec:
    return LayerSpec(
        width=config.d_model,
        heads=config.heads,
        kv_heads=config.heads,
        feedforward=config.feedforward,
        activation=config.activation,
        normalisation=config.normalisation,
        epsilon=EPSILON,
        norm_first=config.norm == "pre",
        turned=config.positions == "rotary",
        bias=config.bias,
        dropout=initial(config.dropout),
        attention_dropout=initial(config.attention_dropout),
        activation_dropout=initial(config.activation_dropout),
    )
