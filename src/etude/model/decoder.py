"""The decoder-only transformer: trained over whole rows, generating with a cache of keys and values.

Legend: B batch, T time, M width of the model, V vocabulary, R rows that generate.
"""

from collections.abc import Iterator, Sequence
from typing import cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from etude.base.errors import DataError
from etude.base.schedules.values import ScheduledValue
from etude.model.decoder_config import DecoderConfig
from etude.model.initialisers import InitConfig, WidthScaling
from etude.model.layers.blocks import CausalLayer
from etude.model.layers.dropout import LayerDrop, dropout_of, scheduled_rates, set_dropout
from etude.model.layers.growing import SINUSOIDS, GrowthParts, classes, embedded, of_linear
from etude.model.layers.linear import Linear, Normal, TokenEmbedding
from etude.model.layers.masks import Mask, causal_mask, document_mask, window_mask
from etude.model.layers.norms import final_norm
from etude.model.layers.positions import Turn, sinusoids, turn_by
from etude.model.layers.row_cache import KeyValueCache
from etude.model.layers.spec import LayerSpec
from etude.model.rates import initial

RATES = ("dropout", "attention_dropout", "activation_dropout", "embedding_dropout", "layer_drop")
"""Kinds of dropout; what `set_dropout` takes."""
DEVIATION = 0.02
"""What matrices and embeddings begin with (Radford et al. 2019)."""
EPSILON = 1e-5
"""Of both normalisations, as in GPT-2 and Llama."""


@final
class Decoder(nn.Module):
    """Predicts the next token from those before it, in training (`hidden`, `forward`) and step by step (`begin`,
    `step`).

    `init` is needed where it asks for mup. Rates of dropout may be changed between steps by `set_dropout`.
    """

    compiled_methods = ("hidden",)
    """What of it `train.compile` compiles: training calls no more."""

    def __init__(self, config: DecoderConfig, vocabulary: int, init: InitConfig | None = None) -> None:
        super().__init__()
        self.config = config
        self.vocabulary = vocabulary
        """Tokens that can be predicted; there may be more rows than that, see `vocabulary_multiple`."""
        self.window = config.max_positions
        """How many tokens generation looks back on; who knows that shorter rows are trained on lowers it."""
        self.scaling = WidthScaling.of(init, config.d_model, config.d_model // config.heads)
        spec = _spec(config, self.scaling)
        rows = -(-vocabulary // config.vocabulary_multiple) * config.vocabulary_multiple
        self.embedding = TokenEmbedding(rows, config.d_model, deviation=DEVIATION)
        if config.positions == "learned":
            self.positions = TokenEmbedding(config.max_positions, config.d_model, deviation=DEVIATION)
        self.embedding_dropout = dropout_of("embedding_dropout", config.embedding_dropout, config.dropout)
        self.layer_drop = LayerDrop(initial(config.layer_drop))
        self.layers = nn.ModuleList(CausalLayer(spec) for _ in range(config.layers))
        self.final_norm = final_norm(spec)
        if not config.tie_output:
            self.output = Linear(config.d_model, rows, Normal(DEVIATION), bias=False)

    @property
    def slides(self) -> bool:
        """Whether the window may move token by token: nothing that is kept tells where a context began."""
        return self.config.positions in {"rotary", "none"}

    @property
    def output_weight(self) -> Tensor:
        """The matrix [V or more, M] whose product with `hidden` gives the logits; its first V rows are tokens."""
        return self.embedding.weight if self.config.tie_output else self.output.weight

    def growth_parts(self) -> GrowthParts:
        """What embedding and output are."""
        config, rows = self.config, self.embedding.num_embeddings
        obstacle = SINUSOIDS if config.positions == "sinusoidal" else ""
        if self.scaling != WidthScaling():
            obstacle = "mup divides by the width"
        width = embedded(config.d_model, is_output=config.tie_output, obstacle=obstacle)
        parts = {"embedding.weight": (classes(rows), width)}
        if config.tie_output:
            return parts
        return {**parts, **of_linear("output", self.output, classes(rows), None)}

    def rate_multipliers(self) -> dict[str, float]:
        """Factors of the learning rate by parameter name, where they are not 1: those of mup."""
        rate = self.scaling.rate
        hidden = [name for name, value in self.layers.named_parameters(prefix="layers") if value.ndim > 1]
        return dict.fromkeys(hidden, rate) if rate != 1.0 else {}

    def set_dropout(self, kind: str, rate: float) -> int:
        """Set the rate that the config calls `kind`, such as "dropout"; returns on how many places it works."""
        return set_dropout(self, kind, rate)

    def scheduled_values(self) -> list[ScheduledValue]:
        """The rates of dropout that the config gives as schedules."""
        return scheduled_rates(self, self.config, RATES)

    def forward(
        self, tokens_BT: Tensor, documents_BT: Tensor | None = None, positions_BT: Tensor | None = None
    ) -> Tensor:
        """Logits [B, T, V] of the token that follows each of `tokens_BT`."""
        return F.linear(self.hidden(tokens_BT, documents_BT, positions_BT), self.output_weight[: self.vocabulary])

    def hidden(
        self,
        tokens_BT: Tensor,
        documents_BT: Tensor | None = None,
        positions_BT: Tensor | None = None,
        *,
        window: int | None = None,
        mask: Mask | None = None,
    ) -> Tensor:
        """What `forward` makes its logits of, [B, T, M]; for a loss that never holds all logits.

        Tokens see themselves and those before them, of the same number in `documents_BT`, and of the last `window`
        where that is given; with `mask`, what that says instead. `positions_BT` are 0 to T - 1 unless given. Raises
        DataError for a learned position that is not there.
        """
        hidden_BTM, turn = self._embed(tokens_BT, positions_BT)
        mask = self._mask(hidden_BTM, documents_BT, window) if mask is None else mask
        for layer in self.layers:
            if not self.layer_drop.leaves_out():
                hidden_BTM = layer(hidden_BTM, mask, turn)
        return self._finished(hidden_BTM)

    def _mask(self, hidden_BTM: Tensor, documents_BT: Tensor | None, window: int | None) -> Mask:
        if documents_BT is not None:
            # Made in the format that scores will have, so that no layer has to convert it.
            device = hidden_BTM.device.type
            scores = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_BTM.dtype
            return document_mask(documents_BT, scores)
        if window is not None:
            return window_mask(hidden_BTM.size(1), window, hidden_BTM)
        return causal_mask(hidden_BTM.size(1), hidden_BTM)

    def _finished(self, hidden: Tensor) -> Tensor:
        hidden = self.final_norm(hidden)
        return hidden if self.scaling.logits == 1.0 else hidden * self.scaling.logits

    def _embed(self, tokens: Tensor, positions: Tensor | None) -> tuple[Tensor, Turn | None]:
        """The embedded tokens, and by how much to turn queries and keys; positions are [T] or [B, T]."""
        config = self.config
        places = torch.arange(tokens.size(1), device=tokens.device) if positions is None else positions
        embedded, turn = self.embedding(tokens), None
        if config.positions == "learned":
            embedded = embedded + self._learned(places, tokens.size(1))
        elif config.positions == "sinusoidal":
            embedded = embedded + sinusoids(places, config.d_model, DEVIATION, embedded)
        elif config.positions == "rotary":
            turn = turn_by(places, config.d_model // config.heads, config.rotary_base, embedded)
        return self.embedding_dropout(embedded), turn

    def _learned(self, places: Tensor, length: int) -> Tensor:
        if length > self.config.max_positions:
            raise DataError(
                f"A row of {length} tokens does not fit model.max_positions = {self.config.max_positions}; raise it, "
                'lower the block size, or take model.positions = "rotary".'
            )
        return self.positions(places)  # type: ignore[no-any-return]

    def begin(self, contexts: Sequence[Sequence[int]], room: int) -> tuple[Tensor, KeyValueCache]:
        """Logits [R, V] of what follows each context, and the cache to go on with, of at most `window` tokens.

        `room` is how many tokens a row will hold in the end; a context is at least one token and at most the room or
        the window. Contexts of different lengths stand side by side without seeing one another's padding.
        """
        config = self.config
        like = self.embedding.weight.new_empty(len(contexts), config.d_model // config.heads)
        cache = KeyValueCache(config.layers, config.kv_heads, min(room, self.window), like)
        return self._fill(contexts, None, cache), cache

    def begin_again(self, contexts: Sequence[Sequence[int]], rows: Sequence[int], cache: KeyValueCache) -> Tensor:
        """Logits [len(rows), V] of what follows each context, which takes the place of what `rows` held."""
        return self._fill(contexts, rows, cache)

    def _fill(self, contexts: Sequence[Sequence[int]], rows: Sequence[int] | None, cache: KeyValueCache) -> Tensor:
        device = self.embedding.weight.device
        longest = max(map(len, contexts))
        tokens_RT = torch.tensor([[*context, *[0] * (longest - len(context))] for context in contexts], device=device)
        lasts = torch.tensor([len(context) - 1 for context in contexts], device=device)
        chosen = None if rows is None else torch.tensor(rows, device=device)
        hidden_RTM, turn = self._embed(tokens_RT, None)
        mask = causal_mask(longest, hidden_RTM)  # padding stands behind, where causality hides it
        for index, layer in enumerate(self._layers()):
            hidden_RTM = layer.fill(hidden_RTM, mask, turn, cache.of(index, chosen))
        for row, context in zip(range(len(contexts)) if rows is None else rows, contexts, strict=True):
            cache.lengths[row] = len(context)
        return self._logits(hidden_RTM[torch.arange(len(contexts), device=device), lasts])

    def step(self, tokens_R: Tensor, cache: KeyValueCache) -> Tensor:
        """Logits [R, V] of what follows `tokens_R`, which the cache takes in (in place)."""
        places_R1 = torch.tensor(cache.lengths, device=tokens_R.device)[:, None]
        if self.config.positions == "learned":
            places_R1 = places_R1.clamp(max=self.config.max_positions - 1)  # such a row begins again
        hidden_R1M, turn = self._embed(tokens_R[:, None], places_R1)
        cache.advance()
        for index, layer in enumerate(self._layers()):
            hidden_R1M = layer.step(hidden_R1M, cache.of(index), turn)
        cache.lengths = [length + 1 for length in cache.lengths]
        return self._logits(hidden_R1M[:, 0])

    def _layers(self) -> Iterator[CausalLayer]:
        return cast("Iterator[CausalLayer]", iter(self.layers))

    def _logits(self, hidden_RM: Tensor) -> Tensor:
        return F.linear(self._finished(hidden_RM), self.output_weight[: self.vocabulary])


def _spec(config: DecoderConfig, scaling: WidthScaling) -> LayerSpec:
    deviation = DEVIATION * scaling.deviation
    return LayerSpec(
        width=config.d_model,
        heads=config.heads,
        kv_heads=config.kv_heads,
        feedforward=config.feedforward,
        activation=config.activation,
        normalisation=config.normalisation,
        epsilon=EPSILON,
        norm_first=config.norm == "pre",
        turned=config.positions == "rotary",
        bias=config.bias,
        qk_norm=config.qk_norm,
        score_scale=scaling.scores,
        matrix=Normal(deviation),
        # The sum of all that is added to the stream begins as large as one addition (Radford et al. 2019).
        residual_matrix=Normal(deviation * (2 * config.layers) ** -0.5),
        dropout=initial(config.dropout),
        attention_dropout=initial(config.attention_dropout),
        activation_dropout=initial(config.activation_dropout),
    )
