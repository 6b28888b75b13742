"""The feed-forward sublayer.

Legend: B batch, T time, M width of the model.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, final

import torch.nn.functional as F
from torch import Tensor, nn

from etude.model.layers.dropout import Dropout
from etude.model.layers.growing import GrowthParts, gives, of_linear
from etude.model.layers.linear import Linear
from etude.model.layers.spec import Activation, LayerSpec

ACTIVATIONS: Mapping[Activation | Literal["silu"], Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
    "swiglu": F.silu,
}
"""What lies between the two products; of `swiglu` it is that of the gate."""


@final
class FeedForward(nn.Module):
    """Two products with an activation between; `swiglu` gates it (Shazeer 2020) and has half as many weights more."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__()
        self.gated = spec.activation == "swiglu"
        parts = 2 if self.gated else 1
        self.inner = Linear(spec.width, parts * spec.feedforward, spec.matrix, bias=spec.bias, parts=parts)
        # Of a residual matrix the deviation follows the width alone, as in GPT-2, though its inputs here are more.
        self.outer = Linear(spec.feedforward, spec.width, spec.residual_matrix, bias=spec.bias)
        self.activation = ACTIVATIONS[spec.activation]
        self.dropout = Dropout(spec.activation_dropout, "activation_dropout")

    def growth_parts(self) -> GrowthParts:
        """Gate and value, where it is gated."""
        parts = [self.outer.in_features] * (2 if self.gated else 1)
        return of_linear("inner", self.inner, gives(*parts), None)

    def forward(self, hidden_BTM: Tensor) -> Tensor:
        """[B, T, M] to [B, T, M]."""
        inner = self.inner(hidden_BTM)
        if self.gated:
            gate, value = inner.chunk(2, dim=-1)
            inner = self.activation(gate) * value
        else:
            inner = self.activation(inner)
        return self.outer(self.dropout(inner))  # type: ignore[no-any-return]
