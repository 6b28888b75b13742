"""A plain network of convolutions over frames, which strides time at once: quick, for classification.

Legend: B batch, T time, M width of the model.
"""

from typing import Literal, Self, final

from pydantic import Field, model_validator
from torch import Tensor, nn

from etude.model.frames.depthwise import Depthwise
from etude.model.frames.subsampling import SubsamplingConfig
from etude.model.layers.dropout import Dropout
from etude.model.layers.linear import Linear
from etude.model.layers.norms import EPSILON
from etude.model.rates import Rate, initial


class CnnConfig(SubsamplingConfig):
    """`type = "cnn"`: residual blocks of convolutions, behind convolutions that stride time."""

    type: Literal["cnn"] = "cnn"
    subsampling: Literal[1, 2, 4, 6, 8] = 2
    """How many frames become one: of T frames, T / `subsampling` are left, rounded up."""
    subsample_channels: int = Field(16, ge=1)
    """Channels of the convolutions that subsample."""
    d_model: int = Field(128, ge=1)
    """Width of the residual stream."""
    layers: int = Field(4, ge=1)
    """Residual blocks."""
    kernel: int = Field(7, ge=1)
    """Frames that the convolution of a block looks at; odd."""
    expansion: int = Field(2, ge=1)
    """How many times `d_model` the inside of a block is wide."""
    dropout: Rate = 0.1
    """Dropout on what the subsampling gives, and on the output of every block."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, but is {self.kernel}")
        return self


@final
class ConvolutionBlock(nn.Module):
    """A convolution in time of each channel, a norm, and two products around a GELU (Liu et al. 2022, ConvNeXt)."""

    def __init__(self, config: CnnConfig) -> None:
        super().__init__()
        inner = config.expansion * config.d_model
        self.depthwise = Depthwise(config.d_model, config.kernel, causal=False)
        self.norm = nn.LayerNorm(config.d_model, eps=EPSILON)
        self.inner = Linear(config.d_model, inner)
        self.outer = Linear(inner, config.d_model)
        self.dropout = Dropout(initial(config.dropout))

    def forward(self, hidden_BTM: Tensor, real_BT: Tensor) -> Tensor:
        """[B, T, M] to [B, T, M]."""
        inner = nn.functional.gelu(self.inner(self.norm(self.depthwise(hidden_BTM, real_BT))))
        return hidden_BTM + self.dropout(self.outer(inner))  # type: ignore[no-any-return]

    def residual_weights(self) -> list[Tensor]:
        """The last matrix."""
        return [self.outer.weight]


@final
class Cnn(nn.Module):
    """The blocks of a `CnnConfig`, and a norm."""

    rates = ("dropout",)
    """Keys of its config that a schedule may drive."""

    def __init__(self, config: CnnConfig) -> None:
        super().__init__()
        self.width = config.d_model
        self.dropout = Dropout(initial(config.dropout))
        self.layers = nn.ModuleList(ConvolutionBlock(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.d_model, eps=EPSILON)

    def forward(self, hidden_BTM: Tensor, real_BT: Tensor) -> Tensor:
        """[B, T, M] to [B, T, M]; what stands where padding does means nothing."""
        hidden_BTM = self.dropout(hidden_BTM)
        for layer in self.layers:
            hidden_BTM = layer(hidden_BTM, real_BT)
        return self.norm(hidden_BTM)  # type: ignore[no-any-return]
