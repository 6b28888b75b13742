"""What all layers of a model have in common."""

from dataclasses import dataclass
from typing import Literal, TypeAlias, final

from etude.model.layers.linear import Fill, glorot

Activation: TypeAlias = Literal["relu", "gelu", "gelu_tanh", "swiglu"]
Normalisation: TypeAlias = Literal["layer", "rms"]


@final
@dataclass(frozen=True, kw_only=True)
class LayerSpec:
    """Sizes and choices of the layers of one stack, with rates of dropout as they are at the start."""

    width: int
    """Of the residual stream."""
    heads: int
    kv_heads: int
    """Heads of keys and values, which divide `heads`."""
    feedforward: int
    """Width inside the feed-forward layers."""
    activation: Activation | Literal["silu"]
    normalisation: Normalisation
    epsilon: float
    """What normalisation adds to the variance."""
    norm_first: bool
    """Whether a sublayer's input is normalised (pre-norm), or the sum behind it (post-norm)."""
    bias: bool
    turned: bool = False
    """Whether queries and keys are turned by positions, in halves."""
    qk_norm: bool = False
    """Whether queries and keys are normalised."""
    score_scale: float = 1.0
    """Factor of attention scores beside 1 / sqrt(width of a head)."""
    matrix: Fill = glorot
    """How matrices begin."""
    residual_matrix: Fill = glorot
    """How those begin whose products are added to the residual stream."""
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0

    @property
    def head_width(self) -> int:
        """The width of a head."""
        return self.width // self.heads
