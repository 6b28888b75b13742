"""The encoder-decoder transformer (Vaswani et al. 2017), with the choices that later work added.

Legend: B batch, S source time, T target time, M width of the model, V vocabulary, R rows (sentences x beam), L layers
of the decoder, H heads.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Literal, Self, cast, final

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from etude.base.config.fields import Switch
from etude.base.config.section import Section
from etude.base.errors import ConfigError
from etude.base.schedules.values import ScheduledValue
from etude.model.layers.beam_cache import Cache, Memory
from etude.model.layers.blocks import DecoderLayer, EncoderLayer
from etude.model.layers.decoding import begun, stepped
from etude.model.layers.dropout import LayerDrop, dropout_of, scheduled_rates, set_dropout
from etude.model.layers.growing import SINUSOIDS, GrowthParts, classes, embedded, of_linear
from etude.model.layers.linear import Linear, ScaledEmbedding
from etude.model.layers.masks import Mask, causal_mask, padding_mask
from etude.model.layers.norms import EPSILON, final_norm
from etude.model.layers.positions import Positions, added, check_width, turning
from etude.model.layers.spec import LayerSpec, Normalisation
from etude.model.rates import Rate, initial

RATES = ("dropout", "attention_dropout", "activation_dropout", "embedding_dropout", "layer_drop")
"""Kinds of dropout; what `set_dropout` takes."""


class TransformerConfig(Section):
    """`[model] type = "transformer"`: encoder and decoder of equal width."""

    type: Literal["transformer"] = "transformer"
    d_model: int = Field(256, ge=1)
    """Width of the residual stream."""
    heads: int = Field(4, ge=1)
    """Attention heads; they divide `d_model`."""
    encoder_layers: int = Field(3, ge=0)
    """Layers of the encoder."""
    decoder_layers: int = Field(3, ge=1)
    """Layers of the decoder."""
    feedforward: int = Field(1024, ge=1)
    """Width inside the feed-forward layers."""
    dropout: Rate = 0.1
    """Dropout on embeddings and on the output of every sublayer."""
    attention_dropout: Rate = 0.0
    """Dropout on attention weights."""
    activation_dropout: Rate = 0.0
    """Dropout inside the feed-forward layers."""
    embedding_dropout: Switch[Rate] = None
    """Dropout on embeddings; default: `dropout`."""
    layer_drop: Rate = 0.0
    """Probability of leaving out each whole layer of encoder and decoder, per batch (Fan et al. 2020)."""
    activation: Literal["relu", "gelu", "swiglu"] = "relu"
    """Activation of the feed-forward layers; swiglu is gated (Shazeer 2020)."""
    norm: Literal["pre", "post"] = "pre"
    """Normalise before each sublayer, or after each sum as in 2017."""
    normalisation: Normalisation = "layer"
    """Layer norm, or rms, its form without mean and bias (Zhang and Sennrich 2019)."""
    positions: Positions = "sinusoidal"
    """Position encoding: added sinusoids, added learned vectors, or rotated queries and keys (Su et al. 2021)."""
    max_positions: int = Field(512, ge=1)
    """Longest sequence of `learned` positions; the others have no limit."""
    bias: bool = True
    """Whether linear layers and layer norms have biases."""
    share_embeddings: bool = False
    """One embedding for source and target; needs one tokenizer for both."""
    tie_output: bool = True
    """The output layer is the target embedding."""

    @model_validator(mode="after")
    def _width_fits(self) -> Self:
        check_width(self.positions, self.d_model, self.heads)
        return self


@final
class Transformer(nn.Module):
    """Encoder and decoder over tokens, for training (`forward`) and decoding (`encode`, `start`, `step`).

    Keys that are `pad` in the source are never seen; the target is padded on the right, where causality hides it.
    Rates of dropout may be changed between steps by `set_dropout`.
    """

    compiled_methods = ("hidden",)
    """What of it `train.compile` compiles: training calls no more, and decoding would compile every length anew."""

    def __init__(self, config: TransformerConfig, source_vocabulary: int, target_vocabulary: int, pad: int = 0) -> None:
        super().__init__()
        if config.share_embeddings and source_vocabulary != target_vocabulary:
            raise ConfigError(
                "model.share_embeddings needs one tokenizer for source and target, but theirs have "
                f"{source_vocabulary} and {target_vocabulary} tokens; give one [tokenizer], or set it to false."
            )
        self.config = config
        self.pad = pad
        spec = _spec(config)
        self.source_embedding = ScaledEmbedding(source_vocabulary, config.d_model)
        if not config.share_embeddings:
            self.target_embedding = ScaledEmbedding(target_vocabulary, config.d_model)
        self.source_positions = added(config.positions, config.d_model, config.max_positions)
        self.target_positions = added(config.positions, config.d_model, config.max_positions)
        self.rotary = turning(config.positions, spec.head_width)
        self.embedding_dropout = dropout_of("embedding_dropout", config.embedding_dropout, config.dropout)
        self.layer_drop = LayerDrop(initial(config.layer_drop))
        self.encoder = nn.ModuleList(EncoderLayer(spec) for _ in range(config.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(spec) for _ in range(config.decoder_layers))
        self.encoder_norm = final_norm(spec)
        self.decoder_norm = final_norm(spec)
        if not config.tie_output:
            self.output = Linear(config.d_model, target_vocabulary, bias=False)

    @property
    def longest(self) -> int:
        """Most tokens that a target may have besides bos; as good as no limit but with learned positions."""
        return self.config.max_positions - 1 if self.config.positions == "learned" else sys.maxsize

    @property
    def output_weight(self) -> Tensor:
        """The matrix [V, M] whose product with `hidden` gives the logits."""
        return self._target.weight if self.config.tie_output else self.output.weight

    @property
    def _target(self) -> ScaledEmbedding:
        return self.source_embedding if self.config.share_embeddings else self.target_embedding

    def growth_parts(self) -> GrowthParts:
        """What embeddings and output are."""
        config, scale = self.config, self.source_embedding.scale
        obstacle = SINUSOIDS if config.positions == "sinusoidal" else ""
        parts = {"source_embedding.weight": (None, embedded(config.d_model, obstacle=obstacle, gain=scale))}
        target = "source_embedding" if config.share_embeddings else "target_embedding"
        width = embedded(config.d_model, is_output=config.tie_output, obstacle=obstacle, gain=scale)
        parts[f"{target}.weight"] = (None, width)
        if config.tie_output:
            return parts
        return {**parts, **of_linear("output", self.output, classes(self.output.out_features), None)}

    def set_dropout(self, kind: str, rate: float) -> int:
        """Set the rate that the config calls `kind`, such as "dropout"; returns on how many places it works."""
        return set_dropout(self, kind, rate)

    def scheduled_values(self) -> list[ScheduledValue]:
        """The rates of dropout that the config gives as schedules."""
        return scheduled_rates(self, self.config, RATES)

    def forward(self, source_BS: Tensor, decoder_input_BT: Tensor) -> Tensor:
        """Logits [B, T, V] of the token that follows each of `decoder_input_BT`."""
        return F.linear(self.hidden(source_BS, decoder_input_BT), self.output_weight)

    def hidden(self, source_BS: Tensor, decoder_input_BT: Tensor) -> Tensor:
        """What `forward` makes its logits of, [B, T, M]; for a loss that never holds all logits."""
        memory = self.encode(source_BS)
        hidden_BTM = self._embed(self._target, self.target_positions, decoder_input_BT, 0)
        length = decoder_input_BT.size(1)
        mask, turn = causal_mask(length, hidden_BTM), self.rotary.turn(0, length, hidden_BTM)
        source_mask = Mask(memory.mask)
        for layer in self.decoder:
            if not self.layer_drop.leaves_out():
                hidden_BTM = layer(hidden_BTM, mask, turn, memory.hidden, source_mask)
        return self.decoder_norm(hidden_BTM)  # type: ignore[no-any-return]

    def cross_attention(self, source_BS: Tensor, decoder_input_BT: Tensor) -> Tensor:
        """How much each place of the decoder takes of each source token, [B, L, H, T, S]; for a model in `eval` mode.

        `hidden` runs as ever, and while it does each layer's attention to the source is asked for its weights as well.
        """
        found: list[Tensor] = []
        with ExitStack() as stack:
            for layer in self._decoder_layers():
                hook = layer.cross.register_forward_pre_hook(lambda cross, given: found.append(cross.weights(*given)))
                stack.callback(hook.remove)
            # The method of the class: a compiled one (`compiled_methods`) would not see the hooks.
            Transformer.hidden(self, source_BS, decoder_input_BT)
        return torch.stack(found, dim=1)

    def encode(self, source_BS: Tensor) -> Memory:
        """The encoded source."""
        hidden_BSM = self._embed(self.source_embedding, self.source_positions, source_BS, 0)
        mask = padding_mask(source_BS == self.pad, hidden_BSM.dtype)
        turn = self.rotary.turn(0, source_BS.size(1), hidden_BSM)
        for layer in self.encoder:
            if not self.layer_drop.leaves_out():
                hidden_BSM = layer(hidden_BSM, mask, turn)
        return Memory(self.encoder_norm(hidden_BSM), mask.added)

    def start(self, memory: Memory, width: int = 1) -> Cache:
        """An empty cache for `width` beams a sentence; keys and values of the source are computed here, once."""
        return begun(self.decoder, memory, width)

    def step(self, tokens_R: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """Logits [R, V] of the token after `tokens_R`, which the cache takes in (in place)."""
        hidden_R1M = self._embed(self._target, self.target_positions, tokens_R[:, None], cache.length)
        hidden_RM = stepped(self.decoder, hidden_R1M, cache, self.rotary)
        return F.linear(self.decoder_norm(hidden_RM), self.output_weight), cache

    def _decoder_layers(self) -> Iterator[DecoderLayer]:
        return cast("Iterator[DecoderLayer]", iter(self.decoder))

    def _embed(self, embedding: ScaledEmbedding, positions: nn.Module, tokens: Tensor, start: int) -> Tensor:
        return self.embedding_dropout(positions(embedding(tokens), start))  # type: ignore[no-any-return]


def _spec(config: TransformerConfig) -> LayerSpec:
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
