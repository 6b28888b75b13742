"""An encoder that predicts tokens where they stand.

Legend: B batch, T time, M width of the encoder, V vocabulary.
"""

from typing import final

from torch import Tensor, nn

from etude.base.schedules.values import ScheduledValue
from etude.model.encoder import EncoderConfig, TokenEncoder
from etude.model.layers.dropout import scheduled_rates
from etude.model.layers.growing import GrowthParts, classes, of_linear, takes
from etude.model.layers.linear import Linear
from etude.model.layers.masks import Mask


@final
class MaskedEncoder(nn.Module):
    """A transformer encoder, as a classifier of texts has it, and a linear layer of tokens."""

    compiled_methods = ("hidden",)
    """What of it `train.compile` compiles."""

    def __init__(self, config: EncoderConfig, vocabulary: int, pad: int = 0) -> None:
        super().__init__()
        self.config, self.vocabulary = config, vocabulary
        self.encoder = TokenEncoder(config, vocabulary, pad)
        self.output = Linear(config.d_model, vocabulary, bias=False)

    def growth_parts(self) -> GrowthParts:
        """Tokens, and what the encoder gives."""
        return of_linear("output", self.output, classes(self.vocabulary), takes(*self.encoder.growth_outputs()))

    def scheduled_values(self) -> list[ScheduledValue]:
        """The rates of dropout that the config gives as schedules."""
        return scheduled_rates(self, self.config, self.encoder.rates)

    @property
    def output_weight(self) -> Tensor:
        """The matrix [V, M] whose product with `hidden` gives the logits."""
        return self.output.weight

    def hidden(self, tokens_BT: Tensor, mask: Mask | None = None) -> Tensor:
        """What logits are made of, [B, T, M]."""
        return self.encoder(tokens_BT, mask)  # type: ignore[no-any-return]

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits [B, T, V] of the token at each place."""
        return self.output(self.encoder(tokens_BT))  # type: ignore[no-any-return]
