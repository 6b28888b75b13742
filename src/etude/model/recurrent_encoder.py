"""A recurrent encoder of tokens: LSTM or GRU layers, in one direction or both.

Legend: B batch, S time, M width of the model, H width of a direction.
"""

from collections.abc import Sequence
from typing import Literal, Self, final

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from etude.base.config.section import Section
from etude.model.layers.dropout import Dropout
from etude.model.layers.growing import GrowthParts, Nested, takes
from etude.model.layers.linear import TokenEmbedding
from etude.model.rates import Rate, initial
from etude.model.recurrent import DEVIATION, RecurrentLayer


class RecurrentEncoderConfig(Section):
    """`[model] type = "lstm"` or `"gru"`: recurrent layers over the tokens of a text."""

    type: Literal["lstm", "gru"] = "lstm"
    layers: int = Field(2, ge=1)
    """Recurrent layers."""
    d_model: int = Field(256, ge=1)
    """Width of embeddings and layers, of both directions together."""
    bidirectional: bool = True
    """Read texts forwards and backwards, each with half of the width."""
    dropout: Rate = 0.0
    """Dropout on embeddings, between layers, and on what is pooled."""

    @model_validator(mode="after")
    def _directions_share_the_width(self) -> Self:
        if self.bidirectional and self.d_model % 2:
            raise ValueError(f"d_model must be even where bidirectional is on, but is {self.d_model}")
        return self


@final
class RecurrentEncoder(nn.Module):
    """Recurrent layers over tokens that end in padding, which no state of a token ever depends on.

    Backwards, each text is turned around within its own length, so that no packing is needed, which costs time.
    """

    rates = ("dropout",)
    """Keys of its config that a schedule may drive."""

    def __init__(self, config: RecurrentEncoderConfig, vocabulary: int, pad: int = 0) -> None:
        super().__init__()
        self.pad = pad
        directions = 1 + config.bidirectional
        width = config.d_model // directions
        self._outputs = (width,) * directions
        self.embedding = TokenEmbedding(vocabulary, config.d_model, deviation=DEVIATION)
        self.dropout = Dropout(initial(config.dropout))
        self.layers = nn.ModuleList(
            _Directions(RecurrentLayer(config.type, config.d_model, width, 0.0) for _ in range(directions))
            for _ in range(config.layers)
        )

    def growth_parts(self) -> GrowthParts:
        """Both directions of the layer below, which every layer but the first takes."""
        inputs = takes(*self._outputs)
        return {
            f"layers.{index}.{direction}.cell.weight_ih_l0": (None, inputs)
            for index in range(1, len(self.layers))
            for direction in range(len(self._outputs))
        }

    def growth_outputs(self) -> Sequence[Nested]:
        """Both directions, side by side."""
        return self._outputs

    def forward(self, tokens_BS: Tensor) -> Tensor:
        """[B, S] to [B, S, M]; what stands where padding does means nothing."""
        turned_BS1 = turned((tokens_BS != self.pad).sum(1), tokens_BS.size(1))[:, :, None]
        value_BSM: Tensor = self.embedding(tokens_BS)
        for directions in self.layers:
            value_BSM = directions(self.dropout(value_BSM), turned_BS1)
        return value_BSM


@final
class _Directions(nn.ModuleList):
    """A layer for reading forwards and, where there is a second, one for reading backwards."""

    def forward(self, value_BSM: Tensor, turned_BS1: Tensor) -> Tensor:
        """What both give, side by side."""
        parts: list[Tensor] = [self[0](value_BSM, None, None)[0]]
        for layer in self[1:]:
            hidden_BSH: Tensor = layer(_taken(value_BSM, turned_BS1), None, None)[0]
            parts.append(_taken(hidden_BSH, turned_BS1))
        return torch.cat(parts, -1)


def _taken(value_BSM: Tensor, places_BS1: Tensor) -> Tensor:
    """Each place's vector; by `gather`, since `take_along_dim` is exported for one size alone."""
    return value_BSM.gather(1, places_BS1.expand(-1, -1, value_BSM.size(2)))


def turned(lengths_B: Tensor, size: int) -> Tensor:
    """Where each place of a sequence goes, [B, S], that is turned around within its length; padding stays.

    >>> turned(torch.tensor([3, 1]), 4).tolist()
    [[2, 1, 0, 3], [0, 1, 2, 3]]
    """
    places_S = torch.arange(size, device=lengths_B.device)
    return torch.where(places_S < lengths_B[:, None], lengths_B[:, None] - 1 - places_S, places_S)
