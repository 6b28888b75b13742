"""Recurrent language models, LSTM and GRU, whose state can be carried from one stretch of text to the next.

Legend: B batch, T time, M width, E width of embeddings, V vocabulary, R rows that generate, S segments.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, TypeVar, final

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from etude.base.config.fields import Switch
from etude.base.config.section import Section
from etude.base.errors import DataError
from etude.base.schedules.values import ScheduledValue
from etude.model.layers.dropout import Dropout, LockedDropout, dropout_of, scheduled_rates, set_dropout
from etude.model.layers.exported_lstm import run_exported
from etude.model.layers.growing import GrowthParts, classes, embedded, of_linear
from etude.model.layers.linear import Linear, Normal, TokenEmbedding
from etude.model.rates import Rate, initial

RATES = ("dropout", "embedding_dropout", "output_dropout", "weight_drop")
"""Kinds of dropout; what `set_dropout` takes."""
DEVIATION = 0.05
"""What embeddings and output begin with."""

LayerState: TypeAlias = tuple[Tensor, ...]
"""Hidden state, and of an LSTM the cell's: [R, M] each."""
State: TypeAlias = tuple[LayerState, ...]
"""One for each layer."""
Inputs = TypeVar("Inputs", Tensor, PackedSequence)


class RecurrentConfig(Section):
    """`[model] type = "lstm"` or `"gru"`."""

    type: Literal["lstm", "gru"] = "lstm"
    layers: int = Field(2, ge=1)
    """Recurrent layers."""
    d_model: int = Field(256, ge=1)
    """Width of the recurrent layers."""
    embedding_width: int = Field(256, ge=1)
    """Width of the embeddings; default: `d_model`."""
    tie_output: bool = True
    """The output layer shares the embedding; if widths differ, a linear layer connects them."""
    dropout: Rate = 0.0
    """Dropout between the layers, and before and after them unless set below."""
    embedding_dropout: Switch[Rate] = None
    """Dropout on embeddings; default: `dropout`."""
    output_dropout: Switch[Rate] = None
    """Dropout on the output of the last layer; default: `dropout`."""
    variational: bool = False
    """One dropout mask for all time steps of a row (Gal and Ghahramani 2016), instead of one per step."""
    weight_drop: Rate = 0.0
    """Dropout on the hidden-to-hidden weights, one mask per batch (Merity et al. 2018)."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: object) -> object:
        """Complete the width of the embeddings, so that a run's config says it all."""
        if not isinstance(data, Mapping) or "embedding_width" in data:
            return data
        return {**data, "embedding_width": data.get("d_model", 256)}


@final
class RecurrentLayer(nn.Module):
    """One layer of torch's LSTM or GRU, the weights between its states subject to dropout."""

    def __init__(self, kind: Literal["lstm", "gru"], inputs: int, width: int, weight_drop: Rate) -> None:
        super().__init__()
        self.kind = kind
        self.cell: nn.RNNBase = (nn.LSTM if kind == "lstm" else nn.GRU)(inputs, width, batch_first=True)
        self.dropout = Dropout(initial(weight_drop), "weight_drop")

    def forward(
        self, value_BTM: Tensor, state: LayerState | None, lengths_B: Tensor | None
    ) -> tuple[Tensor, LayerState]:
        """[B, T, M] and the state [B, M] of each row after its last step, of which it has `lengths_B` (None: T)."""
        if lengths_B is None:
            if self.kind == "lstm" and torch.compiler.is_exporting():
                return run_exported(self.cell, value_BTM, state)
            return self._run(value_BTM, state)
        packed = pack_padded_sequence(value_BTM, lengths_B.cpu(), batch_first=True, enforce_sorted=False)
        outputs, after = self._run(packed, state)
        return pad_packed_sequence(outputs, batch_first=True)[0], after

    def _run(self, inputs: Inputs, state: LayerState | None) -> tuple[Inputs, LayerState]:
        given = None if state is None else tuple(part[None] for part in state)
        if self.kind == "lstm":
            outputs, after = self._with_dropped(inputs, given)
            return outputs, tuple(part[0] for part in after)
        # torch's GRU takes and gives its one part as it is.
        outputs, hidden = self._with_dropped(inputs, None if given is None else given[0])
        return outputs, (hidden[0],)

    def _with_dropped(self, inputs: Inputs, state: LayerState | Tensor | None) -> tuple[Inputs, Tensor]:
        if not self.training or self.dropout.rate == 0:
            return self.cell(inputs, state)  # type: ignore[no-any-return]
        # torch's layer has no place for this: it computes with what stands in this list.
        weights = self.cell._flat_weights  # noqa: SLF001
        self.cell._flat_weights = [  # noqa: SLF001
            self.dropout(weight) if name.startswith("weight_hh") else weight
            for name, weight in zip(self.cell._flat_weights_names, weights, strict=True)  # noqa: SLF001
        ]
        try:
            return self.cell(inputs, state)  # type: ignore[no-any-return]
        finally:
            self.cell._flat_weights = weights  # noqa: SLF001


@final
class RecurrentMemory:
    """The state of rows that generate."""

    def __init__(self, state: State, lengths: Sequence[int]) -> None:
        self.state = state
        self.lengths = list(lengths)
        """Tokens that each row has seen."""

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order; a row may be taken several times."""
        chosen = torch.tensor(rows, device=self.state[0][0].device)
        self.state = tuple(tuple(part.index_select(0, chosen) for part in layer) for layer in self.state)
        self.lengths = [self.lengths[row] for row in rows]


@final
class Recurrent(nn.Module):
    """Predicts the next token from a state that sums up all before it.

    Rates of dropout may be changed between steps by `set_dropout`.
    """

    window = sys.maxsize
    """How many tokens generation looks back on: all."""
    slides = True
    """Whether the window may move token by token."""

    def __init__(self, config: RecurrentConfig, vocabulary: int) -> None:
        super().__init__()
        self.config = config
        self.vocabulary = vocabulary
        """Tokens that can be predicted."""
        width, inner, kind = config.embedding_width, config.d_model, config.type
        self.embedding = TokenEmbedding(vocabulary, width, deviation=DEVIATION)
        self.embedding_dropout = _dropout(config, "embedding_dropout", config.embedding_dropout)
        self.layers = nn.ModuleList(
            RecurrentLayer(kind, inner if index else width, inner, config.weight_drop) for index in range(config.layers)
        )
        self.between = LockedDropout(Dropout(initial(config.dropout)), locked=config.variational)
        self.output_dropout = _dropout(config, "output_dropout", config.output_dropout)
        narrows = config.tie_output and width != inner
        self.narrow = Linear(inner, width, Normal(inner**-0.5), bias=False) if narrows else nn.Identity()
        if not config.tie_output:
            self.output = Linear(inner, vocabulary, Normal(DEVIATION), bias=False)

    @property
    def output_weight(self) -> Tensor:
        """The matrix [V, E or M] whose product with `hidden` gives the logits."""
        return self.embedding.weight if self.config.tie_output else self.output.weight

    def growth_parts(self) -> GrowthParts:
        """What embedding and output are."""
        config = self.config
        width = embedded(config.embedding_width, is_output=config.tie_output)
        parts = {"embedding.weight": (classes(self.vocabulary), width)}
        if config.tie_output:
            return parts
        return {**parts, **of_linear("output", self.output, classes(self.vocabulary), None)}

    def set_dropout(self, kind: str, rate: float) -> int:
        """Set the rate that the config calls `kind`, such as "dropout"; returns on how many places it works."""
        return set_dropout(self, kind, rate)

    def scheduled_values(self) -> list[ScheduledValue]:
        """The rates of dropout that the config gives as schedules."""
        return scheduled_rates(self, self.config, RATES)

    def forward(self, tokens_BT: Tensor, documents_BT: Tensor | None = None) -> Tensor:
        """Logits [B, T, V] of the token that follows each of `tokens_BT`."""
        return F.linear(self.hidden(tokens_BT, documents_BT=documents_BT)[0], self.output_weight)

    def hidden(
        self,
        tokens_BT: Tensor,
        state: State | None = None,
        *,
        documents_BT: Tensor | None = None,
        lengths_B: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """What `forward` makes its logits of, [B, T, E], and the state of each row after its last token.

        A row begins at `state` (None: at zero) and has `lengths_B` tokens (None: T). With `documents_BT` every
        document begins at zero; the state that is given back is then of no use. Raises DataError for both together.
        """
        embedded_BTE = self.embedding(tokens_BT)
        if documents_BT is None:
            return self._through(embedded_BTE, state, lengths_B)
        if state is not None:
            raise DataError(
                "Hidden states cannot be carried into rows of packed documents, each of which starts empty: lay the "
                "text out as contiguous streams, or set train.carry_hiddens = false and no train.tbptt_steps."
            )
        lengths_S = _segments(documents_BT)
        segments = embedded_BTE.flatten(0, 1).split(lengths_S.tolist())
        padded_STE = nn.utils.rnn.pad_sequence(list(segments), batch_first=True)
        hidden_STE, after = self._through(padded_STE, None, lengths_S)
        there = torch.arange(hidden_STE.size(1), device=hidden_STE.device) < lengths_S[:, None]
        return hidden_STE[there].view(*tokens_BT.shape, -1), after

    def _through(self, value: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        value = self.embedding_dropout(value)
        after = []
        for index, layer in enumerate(self.layers):
            value, ended = layer(value, None if state is None else state[index], lengths)
            after.append(ended)
            value = self.between(value) if index + 1 < len(self.layers) else self.output_dropout(value)
        return self.narrow(value), tuple(after)

    def begin(self, contexts: Sequence[Sequence[int]], room: int) -> tuple[Tensor, RecurrentMemory]:
        """Logits [R, V] of what follows each context, of at least one token, and the memory to go on with."""
        del room
        device = self.embedding.weight.device
        rows = [torch.tensor(context, device=device) for context in contexts]
        lengths_R = torch.tensor([len(context) for context in contexts], device=device)
        tokens_RT = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        hidden_RTE, state = self.hidden(tokens_RT, lengths_B=lengths_R)
        last_RE = hidden_RTE[torch.arange(len(rows), device=device), lengths_R - 1]
        return F.linear(last_RE, self.output_weight), RecurrentMemory(state, lengths_R.tolist())

    def step(self, tokens_R: Tensor, memory: RecurrentMemory) -> Tensor:
        """Logits [R, V] of what follows `tokens_R`, which the memory takes in (in place)."""
        hidden_R1E, memory.state = self.hidden(tokens_R[:, None], memory.state)
        memory.lengths = [length + 1 for length in memory.lengths]
        return F.linear(hidden_R1E[:, 0], self.output_weight)


def _dropout(config: RecurrentConfig, kind: str, own: Rate | None) -> LockedDropout:
    return LockedDropout(dropout_of(kind, own, config.dropout), locked=config.variational)


def _segments(documents_BT: Tensor) -> Tensor:
    """The lengths [S] of the stretches of one document, row after row."""
    begins_BT = torch.ones_like(documents_BT, dtype=torch.bool)
    begins_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
    places_S = begins_BT.flatten().nonzero()[:, 0]
    return torch.diff(places_S, append=places_S.new_tensor([documents_BT.numel()]))
