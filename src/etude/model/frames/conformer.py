"""The Conformer: attention and convolution between two halves of a feed-forward layer (Gulati et al. 2020).

Legend: B batch, T time, S keys, P distances, M width of the model.
"""

from collections.abc import Callable
from typing import Literal, Self, final

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from etude.base.config.fields import Switch
from etude.model.frames.depthwise import Depthwise, FramesGroupNorm
from etude.model.frames.extent import BodyState
from etude.model.frames.relative import RelativeAttention, relations
from etude.model.frames.subsampling import SubsamplingConfig
from etude.model.layers.dropout import Dropout, LayerDrop
from etude.model.layers.feedforward import FeedForward
from etude.model.layers.growing import GrowthParts, gives, of_linear
from etude.model.layers.linear import Linear
from etude.model.layers.norms import EPSILON, make_norm
from etude.model.layers.positions import check_width
from etude.model.layers.spec import LayerSpec
from etude.model.rates import Rate, initial


class ConformerConfig(SubsamplingConfig):
    """`type = "conformer"`: layers of attention and convolution over frames."""

    type: Literal["conformer"] = "conformer"
    d_model: int = Field(144, ge=2)
    """Width of the residual stream; even."""
    heads: int = Field(4, ge=1)
    """Attention heads; they divide `d_model`."""
    layers: int = Field(8, ge=1)
    """Layers, behind the subsampling."""
    feedforward: int = Field(576, ge=1)
    """Width inside the feed-forward layers, of which each layer has two."""
    kernel: int = Field(15, ge=1)
    """Frames that the convolution of a layer looks at; odd unless `causal`."""
    norm: Literal["layer", "group"] = "layer"
    """Norm inside the convolution module: of each frame, or of groups of channels over all frames of a sequence. There
    is no batch norm, for which a sequence would depend on those beside it."""
    groups: int = Field(8, ge=1)
    """Groups of channels of `norm = "group"`; they divide `d_model`."""
    dropout: Rate = 0.1
    """Dropout on what the subsampling gives, and on the output of every module."""
    attention_dropout: Rate = 0.0
    """Dropout on attention weights."""
    activation_dropout: Rate = 0.0
    """Dropout inside the feed-forward layers."""
    layer_drop: Rate = 0.0
    """Probability that a layer is left out of a batch in training (Fan et al. 2020)."""
    causal: bool = False
    """Convolutions look back only, and attention at whole chunks up to its own, so that frames may come in pieces."""
    chunk: Switch[int] = Field(None, ge=1)
    """Frames of a chunk, after the subsampling, which see each other: `causal` waits for a whole one. false: one
    frame, that is attention to itself and earlier frames."""
    left_context: Switch[int] = Field(None, ge=0)
    """Chunks before its own that attention of a `causal` encoder sees; false: all."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_width("sinusoidal", self.d_model, self.heads)
        if self.norm == "group" and self.d_model % self.groups:
            raise ValueError(f"groups must divide d_model = {self.d_model}, but is {self.groups}")
        if self.causal and self.norm == "group":
            raise ValueError('norm must be "layer" with causal = true, for "group" looks at all frames of a sequence')
        if not self.causal and self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd unless causal = true, but is {self.kernel}")
        if not self.causal and (self.chunk is not None or self.left_context is not None):
            raise ValueError("chunk and left_context need causal = true")
        return self


@final
class ConvolutionModule(nn.Module):
    """A gated product, a convolution in time of each channel, a norm, and a product."""

    def __init__(self, config: ConformerConfig, spec: LayerSpec) -> None:
        super().__init__()
        self.inner = Linear(spec.width, 2 * spec.width, parts=2)
        self.depthwise = Depthwise(spec.width, config.kernel, causal=config.causal)
        self.over_time = config.norm == "group"
        self.norm = FramesGroupNorm(config.groups, spec.width, EPSILON) if self.over_time else make_norm(spec)
        self.outer = Linear(spec.width, spec.width)

    def growth_parts(self) -> GrowthParts:
        """Value and gate."""
        width = self.outer.in_features
        return of_linear("inner", self.inner, gives(width, width), None)

    def forward(self, hidden_BTM: Tensor, real_BT: Tensor) -> Tensor:
        """[B, T, M] to [B, T, M]."""
        convolved = self.depthwise(nn.functional.glu(self.inner(hidden_BTM)), real_BT)
        normed = self.norm(convolved, real_BT) if self.over_time else self.norm(convolved)
        return self.outer(nn.functional.silu(normed))  # type: ignore[no-any-return]

    def advance(self, hidden_BTM: Tensor, tail_BtM: Tensor) -> tuple[Tensor, Tensor]:
        """What the next frames give, after the tail, and the new tail."""
        convolved, tail = self.depthwise.advance(nn.functional.glu(self.inner(hidden_BTM)), tail_BtM)
        return self.outer(nn.functional.silu(self.norm(convolved))), tail


@final
class LayerPast:
    """What a layer keeps of the frames so far; `advance` replaces it."""

    def __init__(self, key: Tensor, value: Tensor, tail: Tensor) -> None:
        self.keys_values = (key, value)
        self.tail = tail

    def kept(self, most: int | None) -> tuple[Tensor, ...]:
        """Its tensors, with the last `most` keys and values (None: all)."""
        key, value = self.keys_values
        first = 0 if most is None else max(0, key.size(2) - most)
        return key[:, :, first:], value[:, :, first:], self.tail


@final
class ConformerLayer(nn.Module):
    """Half a feed-forward, attention, convolution, half a feed-forward, each normalised before it; and a norm."""

    def __init__(self, config: ConformerConfig, spec: LayerSpec) -> None:
        super().__init__()
        self.first_norm = make_norm(spec)
        self.first = FeedForward(spec)
        self.attention_norm = make_norm(spec)
        self.attention = RelativeAttention(spec)
        self.convolution_norm = make_norm(spec)
        self.convolution = ConvolutionModule(config, spec)
        self.second_norm = make_norm(spec)
        self.second = FeedForward(spec)
        self.norm = make_norm(spec)
        self.dropout = Dropout(spec.dropout)

    def forward(self, hidden_BTM: Tensor, real_BT: Tensor, relations_PM: Tensor, unseen: Tensor) -> Tensor:
        """[B, T, M] to [B, T, M]; `unseen` is true where attention may not look."""
        return self._around(
            hidden_BTM,
            lambda x: self.attention(x, relations_PM, unseen),
            lambda x: self.convolution(x, real_BT),
        )

    def advance(self, hidden_BTM: Tensor, past: LayerPast, relations_PM: Tensor) -> Tensor:
        """The next frames, after those that `past` holds, which takes them in."""

        def attention(value_BTM: Tensor) -> Tensor:
            output, past.keys_values = self.attention.advance(value_BTM, past.keys_values, relations_PM)
            return output

        def convolution(value_BTM: Tensor) -> Tensor:
            output, past.tail = self.convolution.advance(value_BTM, past.tail)
            return output

        return self._around(hidden_BTM, attention, convolution)

    def residual_weights(self) -> list[Tensor]:
        """The last matrix of each module."""
        return [
            self.first.outer.weight,
            self.attention.output.weight,
            self.convolution.outer.weight,
            self.second.outer.weight,
        ]

    def ending_norms(self) -> list[nn.Module]:
        """The one that it ends with."""
        return [self.norm]

    def _around(
        self, hidden: Tensor, attention: Callable[[Tensor], Tensor], convolution: Callable[[Tensor], Tensor]
    ) -> Tensor:
        hidden = hidden + 0.5 * self.dropout(self.first(self.first_norm(hidden)))
        hidden = hidden + self.dropout(attention(self.attention_norm(hidden)))
        hidden = hidden + self.dropout(convolution(self.convolution_norm(hidden)))
        hidden = hidden + 0.5 * self.dropout(self.second(self.second_norm(hidden)))
        return self.norm(hidden)  # type: ignore[no-any-return]


@final
class Conformer(nn.Module):
    """The layers of a `ConformerConfig`."""

    rates = ("dropout", "attention_dropout", "activation_dropout", "layer_drop")
    """Keys of its config that a schedule may drive."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.config = config
        self.width = config.d_model
        self.chunk = config.chunk or 1
        spec = _spec(config)
        self.dropout = Dropout(spec.dropout)
        self.layer_drop = LayerDrop(initial(config.layer_drop))
        self.layers = nn.ModuleList(ConformerLayer(config, spec) for _ in range(config.layers))

    def forward(self, hidden_BTM: Tensor, real_BT: Tensor) -> Tensor:
        """[B, T, M] to [B, T, M]; what stands where padding does means nothing."""
        time = hidden_BTM.size(1)
        relations_PM = relations(time, time, self.width, hidden_BTM)
        unseen = self._unseen(real_BT)
        hidden_BTM = self.dropout(hidden_BTM)
        for layer in self.layers:
            if not self.layer_drop.leaves_out():
                hidden_BTM = layer(hidden_BTM, real_BT, relations_PM, unseen)
        return hidden_BTM

    def _unseen(self, real_BT: Tensor) -> Tensor:
        """Where a query may not look: at padding, and, causal, at later chunks and those long past."""
        padding_B11S = ~real_BT[:, None, None, :]
        if not self.config.causal:
            return padding_B11S
        chunks_T = torch.arange(real_BT.size(1), device=real_BT.device) // self.chunk
        back_TS = chunks_T[:, None] - chunks_T
        unseen = padding_B11S | (back_TS < 0)
        if self.config.left_context is not None:
            unseen = unseen | (back_TS > self.config.left_context)
        return unseen

    def stream(self, batch: int) -> BodyState:
        """The state before the first frame: none that wait for the rest of their chunk, and nothing in each layer."""
        like = next(self.parameters())
        heads = self.config.heads
        none = like.new_zeros(batch, heads, 0, self.width // heads)
        tail = like.new_zeros(batch, self.config.kernel - 1, self.width)
        return ((like.new_zeros(batch, 0, self.width),), *((none, none, tail),) * len(self.layers))

    def advance(self, hidden_BTM: Tensor, state: BodyState, *, last: bool) -> tuple[Tensor, BodyState]:
        """What the chunks give that the next frames fill, and the state behind them; the `last` fill their chunk."""
        joined_BTM = torch.cat((state[0][0], self.dropout(hidden_BTM)), dim=1)
        whole = joined_BTM.size(1) if last else joined_BTM.size(1) // self.chunk * self.chunk
        outputs, layers = [joined_BTM[:, :0]], state[1:]
        for start in range(0, whole, self.chunk):
            output, layers = self._through(joined_BTM[:, start : min(start + self.chunk, whole)], layers)
            outputs.append(output)
        return torch.cat(outputs, dim=1), ((joined_BTM[:, whole:],), *layers)

    def _through(self, hidden_BTM: Tensor, layers: BodyState) -> tuple[Tensor, BodyState]:
        """One chunk."""
        pasts = [LayerPast(*layer) for layer in layers]
        time = hidden_BTM.size(1)
        relations_PM = relations(time, time + layers[0][0].size(2), self.width, hidden_BTM)
        for layer, past in zip(self.layers, pasts, strict=True):
            hidden_BTM = layer.advance(hidden_BTM, past, relations_PM)  # type: ignore[operator]
        context = self.config.left_context
        most = None if context is None else context * self.chunk
        return hidden_BTM, tuple(past.kept(most) for past in pasts)


def _spec(config: ConformerConfig) -> LayerSpec:
    return LayerSpec(
        width=config.d_model,
        heads=config.heads,
        kv_heads=config.heads,
        feedforward=config.feedforward,
        activation="silu",
        normalisation="layer",
        epsilon=EPSILON,
        norm_first=True,
        bias=True,
        dropout=initial(config.dropout),
        attention_dropout=initial(config.attention_dropout),
        activation_dropout=initial(config.activation_dropout),
    )
