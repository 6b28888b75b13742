"""A network over rows of numbers and categories.

Legend: B batch, N columns of numbers, C columns of categories, I inputs of the first layer, K outputs.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Annotated, Literal, cast, final

import torch
from pydantic import Field
from torch import Tensor, nn

from etude.base.config.fields import Switch
from etude.base.config.section import Section
from etude.base.schedules.values import ScheduledValue
from etude.model.exact import exact
from etude.model.layers.dropout import Dropout, scheduled_rates
from etude.model.layers.growing import GrowthParts, classes, given, of_linear, takes
from etude.model.layers.linear import Linear, TokenEmbedding
from etude.model.rates import Rate, initial

WIDEST = 50
"""The widest embedding of a category unless the config says otherwise."""
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


class TabularConfig(Section):
    """`[model] type = "tabular"`: layers over standardised numbers and embeddings of categories."""

    type: Literal["tabular"] = "tabular"
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (128, 64)
    """Widths of the hidden layers, in order; none makes the model linear."""
    embedding_width: Switch[int] = Field(None, ge=1)
    """Width of each category's embedding; default: 1.6 n^0.56 of n values, at most 50."""
    activation: Literal["relu", "gelu", "silu"] = "relu"
    """Activation of the hidden layers."""
    norm: Literal["layer", "none"] = "layer"
    """Normalise each hidden layer before its activation."""
    dropout: Rate = 0.1
    """Dropout on the embeddings and after each hidden layer."""


@final
class TabularNet(nn.Module):
    """Rows in, outputs [B, K] out.

    A number that is missing is the mean of its column; columns of which training lacks some have an input more, which
    is 1 where the number is missing. A category of id 0, which training does not have, is a vector of zeros.
    """

    def __init__(self, config: TabularConfig, indicated: Sequence[bool], sizes: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.config = config
        self.numbers = len(indicated)
        """Columns of numbers."""
        self.indicated = [place for place, is_indicated in enumerate(indicated) if is_indicated]
        widths = [config.embedding_width or usual_width(size) for size in sizes]
        self.embeddings = nn.ModuleList(
            TokenEmbedding(size, width, deviation=1 / math.sqrt(width))
            for size, width in zip(sizes, widths, strict=True)
        )
        inputs = len(indicated) + len(self.indicated) + sum(widths)
        self.embedding_dropout = Dropout(initial(config.dropout))
        self.hidden = nn.ModuleList(_Hidden(config, *sides) for sides in pairwise([inputs, *config.hidden]))
        self.output = Linear([inputs, *config.hidden][-1], outputs)

    def growth_parts(self) -> GrowthParts:
        """Columns, side by side, and outputs."""
        vectors = [embedding.embedding_dim for embedding in self._embeddings()]
        columns = takes(given(self.numbers), given(len(self.indicated)), vectors)
        parts = of_linear("output", self.output, classes(self.output.out_features), None if self.hidden else columns)
        return {**parts, "hidden.0.linear.weight": (None, columns)} if self.hidden else parts

    def _embeddings(self) -> Iterator[TokenEmbedding]:
        return cast("Iterator[TokenEmbedding]", iter(self.embeddings))

    def scheduled_values(self) -> list[ScheduledValue]:
        """The rates of dropout that the config gives as schedules."""
        return scheduled_rates(self, self.config, ("dropout",))

    def forward(self, numbers_BN: Tensor, categories_BC: Tensor) -> Tensor:
        """Outputs [B, K]; numbers are standardised, and NaN where there is none."""
        missing_BN = numbers_BN.isnan()
        parts = [numbers_BN.where(~missing_BN, 0.0), missing_BN[:, self.indicated].to(numbers_BN.dtype)]
        value_BI = torch.cat([*parts, *self._embedded(categories_BC)], -1)
        for layer in self.hidden:
            value_BI = layer(value_BI)
        return self.output(value_BI)  # type: ignore[no-any-return]

    def _embedded(self, categories_BC: Tensor) -> list[Tensor]:
        known_BC = categories_BC > 0
        found = []
        for place, embedding in enumerate(self.embeddings):
            vectors = embedding(categories_BC[:, place]) * known_BC[:, place, None]
            found.append(self.embedding_dropout(vectors))
        return found


@final
class _Hidden(nn.Module):
    """A linear layer, normalised, its activation, and dropout."""

    def __init__(self, config: TabularConfig, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = Linear(inputs, outputs)
        self.norm = nn.LayerNorm(outputs) if config.norm == "layer" else nn.Identity()
        self.activation = ACTIVATIONS[config.activation]()
        self.dropout = Dropout(initial(config.dropout))

    def forward(self, value_BI: Tensor) -> Tensor:
        return self.dropout(self.activation(self.norm(exact(self.linear(value_BI)))))  # type: ignore[no-any-return]


def usual_width(size: int) -> int:
    """The width of an embedding of `size` ids: 1.6 n^0.56, at most 50, as fastai has it."""
    return min(WIDEST, round(1.6 * math.pow(size, 0.56)))
