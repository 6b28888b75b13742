"""Linear layers and embeddings, and how their weights begin."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, final

import torch
from torch import Tensor, nn

from etude.model.layers.growing import GrowthParts, classes

Fill: TypeAlias = Callable[[Tensor, int], object]
"""Draws a matrix anew, in place; the number is of how many products, fused into one, it is made."""


def glorot(weight: Tensor, parts: int) -> None:
    """Uniform within sqrt(6 / (inputs + outputs of a part)) (Glorot and Bengio 2010)."""
    outputs, inputs = weight.shape
    bound = math.sqrt(6.0 / (inputs + outputs // parts))
    nn.init.uniform_(weight, -bound, bound)


@final
@dataclass(frozen=True)
class Normal:
    """Normal with a given deviation, of how many parts the matrix may be."""

    deviation: float

    def __call__(self, weight: Tensor, parts: int = 1) -> None:
        """Draw `weight` anew."""
        del parts
        nn.init.normal_(weight, std=self.deviation)


@final
class Linear(nn.Linear):
    """`nn.Linear` whose weights begin as `fill` draws them, part by part where several products are fused into one.

    Biases begin at zero.
    """

    def __init__(self, inputs: int, outputs: int, fill: Fill = glorot, *, bias: bool = True, parts: int = 1) -> None:
        self.fill = fill
        self.parts = parts
        super().__init__(inputs, outputs, bias=bias)

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        self.fill(self.weight, self.parts)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


@final
class TokenEmbedding(nn.Embedding):
    """`nn.Embedding` whose vectors begin normal with a given deviation; of tokens, or of positions."""

    def __init__(self, size: int, width: int, *, deviation: float) -> None:
        self.deviation = deviation
        super().__init__(size, width)

    def reset_parameters(self) -> None:
        """Draw the vectors anew."""
        nn.init.normal_(self.weight, std=self.deviation)


@final
class ScaledEmbedding(nn.Module):
    """Vectors of tokens, scaled by sqrt(width) so that the same matrix can also be the output's.

    Looked up without a scatter into a padding row: padding's vector is masked wherever it could be seen. It is no
    `nn.Embedding`: weight decay acts on it as on the output layer that it may be.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.scale = math.sqrt(width)
        self.weight = nn.Parameter(torch.empty(size, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal with deviation width^-0.5, so that scaled vectors and logits both begin at unit size."""
        nn.init.normal_(self.weight, std=1.0 / self.scale)

    def growth_parts(self) -> GrowthParts:
        """Tokens; of their vectors the model knows whether they are the output layer too."""
        return {"weight": (classes(self.weight.size(0)), None)}

    def forward(self, tokens: Tensor) -> Tensor:
        """Integers of any shape to that shape and the width behind it."""
        return nn.functional.embedding(tokens, self.weight) * self.scale
