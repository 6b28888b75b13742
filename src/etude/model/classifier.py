"""A classifier of sequences: an encoder, the mean of what it gives, and a linear layer.

Legend: B batch, S time, M width of the encoder, C classes.
"""

from typing import final

from torch import Tensor, nn

from etude.base.schedules.values import ScheduledValue
from etude.model.encoder import EmbeddingConfig, EncoderConfig, TokenEncoder, TokenVectors
from etude.model.layers.dropout import Dropout, scheduled_rates
from etude.model.layers.growing import GrowthParts, classes, of_linear, takes
from etude.model.layers.linear import Linear
from etude.model.layers.pooling import masked_mean
from etude.model.rates import initial
from etude.model.recurrent_encoder import RecurrentEncoder, RecurrentEncoderConfig

TextEncoderConfig = EncoderConfig | EmbeddingConfig | RecurrentEncoderConfig
TextEncoder = TokenEncoder | TokenVectors | RecurrentEncoder


@final
class TextClassifier(nn.Module):
    """Tokens in, logits of classes out: `encoder` of the config, mean pooling, linear output."""

    def __init__(self, config: TextEncoderConfig, vocabulary: int, classes: int, pad: int = 0) -> None:
        super().__init__()
        self.config, self.pad = config, pad
        self.encoder = _encoder(config, vocabulary, pad)
        self.dropout = Dropout(initial(config.dropout))
        self.output = Linear(config.d_model, classes)

    def growth_parts(self) -> GrowthParts:
        """Classes, and what the encoder gives."""
        inputs = takes(*self.encoder.growth_outputs())
        return of_linear("output", self.output, classes(self.output.out_features), inputs)

    def scheduled_values(self) -> list[ScheduledValue]:
        """The rates of dropout that the config gives as schedules."""
        return scheduled_rates(self, self.config, self.encoder.rates)

    def forward(self, tokens_BS: Tensor) -> Tensor:
        """Logits [B, C] of padded texts."""
        pooled_BM = masked_mean(self.encoder(tokens_BS), tokens_BS != self.pad)
        return self.output(self.dropout(pooled_BM))  # type: ignore[no-any-return]


def _encoder(config: TextEncoderConfig, vocabulary: int, pad: int) -> TextEncoder:
    match config:
        case EncoderConfig():
            return TokenEncoder(config, vocabulary, pad)
        case RecurrentEncoderConfig():
            return RecurrentEncoder(config, vocabulary, pad)
    return TokenVectors(config, vocabulary)
