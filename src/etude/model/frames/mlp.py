"""A multi-layer perceptron: of vectors, or of each frame alone.

Legend: B batch, T time, F features, M width.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Literal, TypeAlias, final

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from etude.base.config.fields import Switch
from etude.base.config.section import Section
from etude.model.frames.extent import BodyState
from etude.model.layers.dropout import Dropout
from etude.model.layers.growing import GrowthParts, given, takes
from etude.model.layers.linear import Linear
from etude.model.layers.norms import EPSILON
from etude.model.rates import Rate, initial

Nonlinearity: TypeAlias = Literal["relu", "gelu", "silu", "tanh"]
NONLINEARITIES: Mapping[Nonlinearity, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": F.tanh,
}


class MlpConfig(Section):
    """`type = "mlp"`: linear layers with an activation behind each."""

    type: Literal["mlp"] = "mlp"
    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field((128, 128), min_length=1)
    """The width of each layer."""
    activation: Nonlinearity = "relu"
    """What lies behind every layer."""
    norm: Switch[Literal["layer"]] = None
    """Layer norm between each linear layer and its activation; false: none."""
    dropout: Rate = 0.1
    """Dropout behind every activation."""


@final
class MlpLayer(nn.Module):
    """A linear layer, a norm or none, an activation, dropout."""

    def __init__(self, config: MlpConfig, inputs: int, width: int) -> None:
        super().__init__()
        self.linear = Linear(inputs, width)
        self.norm = nn.Identity() if config.norm is None else nn.LayerNorm(width, eps=EPSILON)
        self.activation = NONLINEARITIES[config.activation]
        self.dropout = Dropout(initial(config.dropout))

    def forward(self, value: Tensor) -> Tensor:
        """The last dimension becomes `width`."""
        return self.dropout(self.activation(self.norm(self.linear(value))))  # type: ignore[no-any-return]


@final
class Mlp(nn.Module):
    """The layers of an `MlpConfig`, over vectors of `features` numbers."""

    rates = ("dropout",)
    """Keys of its config that a schedule may drive."""

    def __init__(self, config: MlpConfig, features: int) -> None:
        super().__init__()
        self.width, self.features = config.widths[-1], features
        sizes = zip((features, *config.widths), config.widths, strict=False)
        self.layers = nn.ModuleList(MlpLayer(config, inputs, width) for inputs, width in sizes)

    def growth_parts(self) -> GrowthParts:
        """What the first layer takes comes from outside."""
        return {"layers.0.linear.weight": (None, takes(given(self.features)))}

    def forward(self, value: Tensor, real_BT: Tensor | None = None) -> Tensor:
        """Vectors [B, F] to [B, M], or frames [B, T, F] to [B, T, M], each alone: which are real does not matter."""
        del real_BT
        for layer in self.layers:
            value = layer(value)
        return value

    def stream(self, batch: int) -> BodyState:
        """No state: frames do not know each other."""
        del batch
        return ()

    def advance(self, value_BTF: Tensor, state: BodyState, *, last: bool) -> tuple[Tensor, BodyState]:
        """What the next frames give."""
        del last
        return self(value_BTF), state
