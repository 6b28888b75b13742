"""A linear layer that knows of how many parts it is made."""

import math
from typing import final

import torch
from torch import nn


@final
class Linear(nn.Linear):
    """`nn.Linear` with Glorot initialisation, part by part where several products are fused into one."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True, parts: int = 1) -> None:
        self.parts = parts
        super().__init__(inputs, outputs, bias=bias)

    def reset_parameters(self) -> None:
        """Uniform within sqrt(6 / (inputs + outputs of a part)) (Glorot and Bengio 2010); biases are zero."""
        bound = math.sqrt(6.0 / (self.in_features + self.out_features // self.parts))
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


@final
class Embedding(nn.Module):
    """Vectors of tokens, scaled by sqrt(width) so that the same matrix can also be the output's.

    Looked up without a scatter into a padding row: padding's vector is masked wherever it could be seen.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.scale = math.sqrt(width)
        self.weight = nn.Parameter(torch.empty(size, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal with deviation width^-0.5, so that scaled vectors and logits both begin at unit size."""
        nn.init.normal_(self.weight, std=1.0 / self.scale)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Integers of any shape to that shape and the width behind it."""
        return nn.functional.embedding(tokens, self.weight) * self.scale
