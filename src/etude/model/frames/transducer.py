"""The head of a transducer (Graves 2012): what was said before, and the joint network that adds it to a frame.

Legend: B sequences, C frames, L labels, U labels and one, E width of the encoder or predictor, J of the joint, V
classes, K labels looked back on.
"""

from collections.abc import Iterator
from functools import partial
from typing import Literal, Protocol, TypeAlias, cast, final

import torch
from pydantic import Field
from torch import Tensor, nn

from etude.base.config.section import Section
from etude.base.schedules.values import ScheduledValue
from etude.model.layers.dropout import Dropout, set_dropout
from etude.model.layers.growing import GrowthParts, Part, Row, classes, of_linear, takes
from etude.model.layers.linear import Linear, TokenEmbedding
from etude.model.rates import Rate, initial, is_constant
from etude.model.recurrent import RecurrentLayer

DROPOUT = "transducer_dropout"
"""The kind of this dropout, by which `set_dropout` finds it: a rate of its own beside the encoder's."""
DEVIATION = 1.0
"""What the vectors of labels begin with."""

Said: TypeAlias = tuple[Tensor, ...]
"""What a predictor keeps of the labels so far: tensors whose first dimension is the batch, so that it is reordered by
`part[rows]` of each."""


class TransducerConfig(Section):
    """`[model.transducer]`: predictor and joint network."""

    predictor: Literal["stateless", "lstm"] = "stateless"
    """What sums up the labels so far: the last few alone (Ghodsi et al. 2020), or an LSTM over all."""
    context: int = Field(2, ge=1)
    """Labels that the stateless predictor looks back on."""
    d_model: int = Field(256, ge=1)
    """Width of the predictor and of its vectors of labels."""
    layers: int = Field(1, ge=1)
    """Layers of the LSTM."""
    joint: int = Field(256, ge=1)
    """Width of the joint network."""
    dropout: Rate = 0.1
    """Dropout on vectors of labels, and behind each layer of the LSTM."""


class Predictor(Protocol):
    """Sums up the labels that were said, for the joint network."""

    width: int
    """E."""

    def __call__(self, targets_BL: Tensor, /) -> Tensor:
        """What was said before each label and behind the last: [B, U, E]; negative labels are padding."""
        ...

    def start(self, batch: int, device: torch.device, /) -> tuple[Tensor, Said]:
        """Give what was said [B, E] before the first label, and what to go on with."""
        ...

    def step(self, labels_B: Tensor, state: Said, /) -> tuple[Tensor, Said]:
        """Give the same after one label more of each."""
        ...


@final
class StatelessPredictor(nn.Module):
    """The last `context` labels alone: their vectors side by side, and a linear layer (Ghodsi et al. 2020).

    Before the first label stand blanks.
    """

    def __init__(self, config: TransducerConfig, vocabulary: int, blank: int = 0) -> None:
        super().__init__()
        self.width, self.context, self.blank = config.d_model, config.context, blank
        self.embedding = TokenEmbedding(vocabulary, config.d_model, deviation=DEVIATION)
        self.dropout = Dropout(initial(config.dropout), DROPOUT)
        self.output = Linear(config.context * config.d_model, config.d_model)

    def growth_parts(self) -> GrowthParts:
        """The labels that are looked back on, of which the last stays the last."""
        labels = Row((Part(self.width),) * self.context, before=self.context - 1)
        return of_linear("output", self.output, None, takes(labels))

    def forward(self, targets_BL: Tensor) -> Tensor:
        """[B, L] to [B, U, E]."""
        before_BK = targets_BL.new_full((len(targets_BL), self.context), self.blank)
        labels = torch.cat((before_BK, _real(targets_BL, self.blank)), 1)
        return self._of(labels.unfold(1, self.context, 1))

    def start(self, batch: int, device: torch.device) -> tuple[Tensor, Said]:
        """Blanks alone."""
        last_BK = torch.full((batch, self.context), self.blank, dtype=torch.int64, device=device)
        return self._of(last_BK), (last_BK,)

    def step(self, labels_B: Tensor, state: Said) -> tuple[Tensor, Said]:
        """The oldest label goes and the new one comes."""
        (last_BK,) = state
        last_BK = torch.cat((last_BK[:, 1:], labels_B[:, None]), 1)
        return self._of(last_BK), (last_BK,)

    def _of(self, labels: Tensor) -> Tensor:
        """[..., K] to [..., E]."""
        return self.output(self.dropout(self.embedding(labels)).flatten(-2))  # type: ignore[no-any-return]


@final
class RecurrentPredictor(nn.Module):
    """An LSTM over all labels (Graves 2012); it begins at zero, and its first input is the blank."""

    def __init__(self, config: TransducerConfig, vocabulary: int, blank: int = 0) -> None:
        super().__init__()
        self.width, self.blank = config.d_model, blank
        self.embedding = TokenEmbedding(vocabulary, config.d_model, deviation=DEVIATION)
        self.dropout = Dropout(initial(config.dropout), DROPOUT)
        self.layers = nn.ModuleList(
            RecurrentLayer("lstm", config.d_model, config.d_model, 0.0) for _ in range(config.layers)
        )

    def forward(self, targets_BL: Tensor) -> Tensor:
        """[B, L] to [B, U, E]."""
        blank_B1 = targets_BL.new_full((len(targets_BL), 1), self.blank)
        return self._through(torch.cat((blank_B1, _real(targets_BL, self.blank)), 1), self._zeros(len(targets_BL)))[0]

    def start(self, batch: int, device: torch.device) -> tuple[Tensor, Said]:
        """After the blank alone."""
        return self.step(torch.full((batch,), self.blank, dtype=torch.int64, device=device), self._zeros(batch))

    def step(self, labels_B: Tensor, state: Said) -> tuple[Tensor, Said]:
        """Each layer goes on from its hidden state and its cell, which stand one after another in the state."""
        said_B1E, state = self._through(labels_B[:, None], state)
        return said_B1E[:, 0], state

    def _zeros(self, batch: int) -> Said:
        return (self.embedding.weight.new_zeros(batch, self.width),) * (2 * len(self.layers))

    def _through(self, labels_BU: Tensor, state: Said) -> tuple[Tensor, Said]:
        value_BUE, after = self.dropout(self.embedding(labels_BU)), []
        for index, layer in enumerate(self._layers()):
            value_BUE, ended = layer(value_BUE, state[2 * index : 2 * index + 2], None)
            value_BUE = self.dropout(value_BUE)
            after += ended
        return value_BUE, tuple(after)

    def _layers(self) -> Iterator[RecurrentLayer]:
        return cast("Iterator[RecurrentLayer]", iter(self.layers))


@final
class JointNetwork(nn.Module):
    """Logits from tanh of the sum of a frame and what was said, each brought to the width of the joint network."""

    def __init__(self, encoder_width: int, predictor_width: int, width: int, vocabulary: int) -> None:
        super().__init__()
        self.frame = Linear(encoder_width, width)
        self.said = Linear(predictor_width, width, bias=False)
        self.output = Linear(width, vocabulary)

    def growth_parts(self) -> GrowthParts:
        """What comes out are classes."""
        return of_linear("output", self.output, classes(self.output.out_features), None)

    def forward(self, encoded_BCE: Tensor, said_BUE: Tensor) -> Tensor:
        """[B, C, E] and [B, U, E] to [B, C, U, V]: a `Joint` of `etude.model.losses.transducer`."""
        mixed_BCUJ = torch.tanh(self.frame(encoded_BCE)[:, :, None] + self.said(said_BUE)[:, None])
        return self.output(mixed_BCUJ)  # type: ignore[no-any-return]


@final
class TransducerHead(nn.Module):
    """Predictor and joint network over the frames of an encoder of `width`; `vocabulary` has the blank in it.

    The loss takes `joint` and `predictor(targets)`, a search `joint` and the steps of `predictor`.
    """

    def __init__(self, config: TransducerConfig, width: int, vocabulary: int, blank: int = 0) -> None:
        super().__init__()
        self.config, self.blank = config, blank
        self.predictor = _predictor(config, vocabulary, blank)
        self.joint = JointNetwork(width, config.d_model, config.joint, vocabulary)

    def scheduled_values(self) -> list[ScheduledValue]:
        """The rate of dropout, where the config gives it as a schedule."""
        if is_constant(self.config.dropout):
            return []
        return [ScheduledValue("model.transducer.dropout", self.config.dropout, partial(set_dropout, self, DROPOUT))]

    def forward(self, encoded_BTE: Tensor, targets_BL: Tensor) -> Tensor:
        """Logits [B, T, U, V]; negative labels are padding."""
        return self.joint(encoded_BTE, self.predictor(targets_BL))  # type: ignore[no-any-return]


def _predictor(config: TransducerConfig, vocabulary: int, blank: int) -> StatelessPredictor | RecurrentPredictor:
    match config.predictor:
        case "stateless":
            return StatelessPredictor(config, vocabulary, blank)
        case "lstm":
            return RecurrentPredictor(config, vocabulary, blank)


def _real(targets_BL: Tensor, blank: int) -> Tensor:
    """Labels with the blank for padding, which stands behind them and is seen by nothing that is looked at."""
    return targets_BL.masked_fill(targets_BL < 0, blank)
