"""Encoders of LSTMs over frames, in both directions or one.

Legend: B batch, T time, M width.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal, cast, final

import torch
from pydantic import Field
from torch import Tensor, nn

from etude.base.config.fields import Switch
from etude.model.frames.extent import BodyState, zeroed
from etude.model.frames.subsampling import SubsamplingConfig
from etude.model.layers.dropout import Dropout
from etude.model.layers.growing import Dim, GrowthParts, Nested, of_linear, takes
from etude.model.layers.linear import Linear
from etude.model.rates import Rate, initial
from etude.model.recurrent import RecurrentLayer


class BlstmConfig(SubsamplingConfig):
    """`type = "blstm"`: LSTMs over frames, one forwards and one backwards in each layer."""

    type: Literal["blstm"] = "blstm"
    layers: int = Field(3, ge=1)
    """Recurrent layers, behind the subsampling."""
    d_model: int = Field(256, ge=1)
    """Width of each direction, and of what the subsampling gives."""
    bidirectional: bool = True
    """Both directions, which stand side by side; false: forwards alone, so that frames may come in pieces."""
    projection: Switch[int] = Field(None, ge=1)
    """Width of a linear layer behind every recurrent one; false: none."""
    dropout: Rate = 0.1
    """Dropout on what the subsampling gives, and on what every layer does."""


def backwards(real_BT: Tensor) -> Tensor:
    """For each place, the one that stands there when every sequence is reversed within its own length; [B, T].

    Padding stays where it is, so that to reverse twice is to do nothing.
    """
    places = torch.arange(real_BT.size(1), device=real_BT.device)
    return torch.where(real_BT, real_BT.sum(1, keepdim=True) - 1 - places, places)


def _taken(hidden_BTM: Tensor, places_BT: Tensor) -> Tensor:
    return hidden_BTM.gather(1, places_BT[:, :, None].expand(-1, -1, hidden_BTM.size(2)))


@final
class BlstmLayer(nn.Module):
    """An LSTM in each direction. The one backwards runs over reversed sequences, which is what a packed one computes:
    on a processor, packing takes three times as long.
    """

    def __init__(self, config: BlstmConfig, inputs: int) -> None:
        super().__init__()
        self.ahead = RecurrentLayer("lstm", inputs, config.d_model, 0.0)
        self.width = config.d_model
        self.bidirectional = config.bidirectional
        if config.bidirectional:
            self.back = RecurrentLayer("lstm", inputs, config.d_model, 0.0)
            self.width = 2 * config.d_model
        self.projection: nn.Module = nn.Identity()
        if config.projection is not None:
            self.projection = Linear(self.width, config.projection)
            self.width = config.projection
        self.dropout = Dropout(initial(config.dropout))

    def growth_parts(self) -> GrowthParts:
        """Both directions, which the projection takes."""
        return of_linear("projection", self.projection, None, takes(*self._directions()))

    def growth_outputs(self) -> Sequence[Nested]:
        """The projection's width, or both directions."""
        return (self.width,) if isinstance(self.projection, Linear) else self._directions()

    def weights(self) -> list[str]:
        """The matrices that its inputs are multiplied by."""
        directions = ("ahead", "back") if self.bidirectional else ("ahead",)
        return [f"{direction}.cell.weight_ih_l0" for direction in directions]

    def _directions(self) -> Sequence[Nested]:
        return (self.ahead.cell.hidden_size,) * (1 + self.bidirectional)

    def forward(self, hidden_BTM: Tensor, places_BT: Tensor) -> Tensor:
        """[B, T, M] to [B, T, M']; `places_BT` reverses sequences within their own length."""
        outputs, _ = self.ahead(hidden_BTM, None, None)
        if self.bidirectional:
            reversed_outputs, _ = self.back(_taken(hidden_BTM, places_BT), None, None)
            outputs = torch.cat((outputs, _taken(reversed_outputs, places_BT)), dim=-1)
        return self.dropout(self.projection(outputs))  # type: ignore[no-any-return]

    def advance(self, hidden_BTM: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What the next frames give, forwards, and the state behind them."""
        outputs, after = self.ahead(hidden_BTM, state, None)
        return self.dropout(self.projection(outputs)), after


@final
class Blstm(nn.Module):
    """The layers of a `BlstmConfig`."""

    rates = ("dropout",)
    """Keys of its config that a schedule may drive."""

    def __init__(self, config: BlstmConfig) -> None:
        super().__init__()
        self.d_model, self.bidirectional = config.d_model, config.bidirectional
        self.width = config.d_model
        self.dropout = Dropout(initial(config.dropout))
        layers = []
        for _ in range(config.layers):
            layers.append(BlstmLayer(config, self.width))
            self.width = layers[-1].width
        self.layers = nn.ModuleList(layers)

    def growth_parts(self) -> GrowthParts:
        """What each layer takes of the one below it."""
        parts: dict[str, Sequence[Dim | None]] = {}
        for index, (below, layer) in enumerate(pairwise(self._layers()), start=1):
            inputs = takes(*below.growth_outputs())
            parts |= {f"layers.{index}.{name}": (None, inputs) for name in layer.weights()}
        return parts

    def growth_outputs(self) -> Sequence[Nested]:
        """What the last layer gives."""
        return list(self._layers())[-1].growth_outputs()

    def _layers(self) -> Iterator[BlstmLayer]:
        return cast("Iterator[BlstmLayer]", iter(self.layers))

    def forward(self, hidden_BTM: Tensor, real_BT: Tensor) -> Tensor:
        """[B, T, M] to [B, T, M']; what stands where padding does means nothing."""
        hidden_BTM = self.dropout(zeroed(hidden_BTM, real_BT))
        places_BT = backwards(real_BT)
        for layer in self.layers:
            hidden_BTM = layer(hidden_BTM, places_BT)
        return hidden_BTM

    def stream(self, batch: int) -> BodyState:
        """The state before the first frame: all zeros."""
        zeros = next(self.parameters()).new_zeros(batch, self.d_model)
        return ((zeros, zeros),) * len(self.layers)

    def advance(self, hidden_BTM: Tensor, state: BodyState, *, last: bool) -> tuple[Tensor, BodyState]:
        """What the next frames give, and the state behind them; nothing waits for the `last`."""
        del last
        if hidden_BTM.size(1) == 0:
            return hidden_BTM.new_zeros(hidden_BTM.size(0), 0, self.width), state
        hidden_BTM, after = self.dropout(hidden_BTM), []
        for layer, before in zip(self.layers, state, strict=True):
            hidden_BTM, ended = layer.advance(hidden_BTM, before)  # type: ignore[operator]
            after.append(ended)
        return hidden_BTM, tuple(after)
