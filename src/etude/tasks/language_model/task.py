"""Language models: predict the next token, generate, and tell how likely a text is.

Legend: B batch, T time, N targets, M width of the model, V vocabulary.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, final

import torch
from torch import Tensor, nn

from etude.base.errors import ConfigError
from etude.base.schedules.values import ScheduledValue
from etude.data.feeds.text_batches import IGNORED, TextBatch
from etude.data.tokens.tokenizers import EOS, Tokenizer
from etude.metrics.ratios import Accuracy, BitsPerByte, Perplexity
from etude.model.decoder import Decoder
from etude.model.flops import count_parameters, flops_per_token
from etude.model.losses import CrossEntropy, CrossEntropyWithZ
from etude.model.losses.torchs import LossFunction, plain
from etude.model.recurrent import Recurrent
from etude.search.next_token import Options
from etude.search.sampling import Generated, Piece, generate, stream
from etude.search.scoring import score
from etude.search.text_stream import TextStream
from etude.tasks.language_model.config import LanguageModelConfig
from etude.tasks.language_model.likeliest import count_right
from etude.tasks.parts import (
    Terms,
    first_term,
    loss_of,
    scheduled_values,
    term_counts,
)
from etude.train.evaluate import evaluating
from etude.train.splitting import split_in_time
from etude.train.task import StepOutput, Task
from etude.train.watch.metrics import Metric


@final
@dataclass(frozen=True, slots=True)
class Completion:
    """One continuation of one prompt."""

    text: str
    """Without the prompt."""
    log_probability: float
    """In nats, of all its tokens."""
    tokens: int
    end: str
    """Why it ended: "eos", "stop" or "length"."""


@final
@dataclass(frozen=True, slots=True)
class Scored:
    """How likely a text is."""

    log_probability: float
    """In nats, of the whole text and its end."""
    tokens: Sequence[tuple[str, float]]
    """Each token and its log-probability; the last is the end of the text, an empty string."""
    bytes: int
    """Of the text in UTF-8."""

    @property
    def perplexity(self) -> float:
        """The exponential of the mean loss of a token."""
        return float(torch.tensor(-self.log_probability / len(self.tokens), dtype=torch.float64).exp())


@final
class LanguageModelTask(Task):
    """The next token of each, in training; completions in predict.

    `model` is a `Decoder`, a `Recurrent`, or maps tokens [B, T] to logits [B, T, V]. A recurrent model takes and
    returns `hiddens`. `loss` is used in training; evaluation reports the plain cross entropy. Texts begin with
    `start`, the token that ends the one before.
    """

    def __init__(
        self,
        model: nn.Module,
        config: LanguageModelConfig | None = None,
        *,
        loss: LossFunction | None = None,
        tokenizer: Tokenizer | None = None,
        start: int = EOS,
    ) -> None:
        super().__init__()
        self.model = model
        self.config = config or LanguageModelConfig()
        self.loss: LossFunction = loss if loss is not None else CrossEntropy(ignore_index=IGNORED)
        self.tokenizer = tokenizer
        self.start = start

    def scheduled_values(self) -> list[ScheduledValue]:
        """What the configs of model and loss give as schedules."""
        return scheduled_values(self.model, self.loss)

    @property
    def plain_loss(self) -> LossFunction:
        """What evaluation reports."""
        return plain(self.loss)

    def rate_multipliers(self) -> dict[str, float]:
        """Factors of the learning rate by the task's parameter names, where the model has some (mup)."""
        own: Any = getattr(self.model, "rate_multipliers", dict)
        return {f"model.{name}": factor for name, factor in own().items()}

    def parameters_told(self) -> str:
        """How large the model is, and what it costs to train where that is known, as a run begins with it."""
        match self.model:
            case Decoder() as decoder:
                operations = flops_per_token(decoder, decoder.window)
            case other:
                operations = flops_per_token(other, 1)
        cost = "" if operations is None else f", {operations / 1e6:,.3g} MFLOP per training token"
        return f"{count_parameters(self.model)}{cost}"

    def flops_per_token(self, batch: TextBatch) -> float | None:
        """Operations of a training step for each token of `batch`; None where the model's are not known."""
        return flops_per_token(self.model, batch.inputs.size(1))

    def configure_metrics(self) -> Mapping[str, Metric]:
        """Those of `task.metrics`; anew for each pass."""
        kinds: dict[str, type[Metric]] = {"perplexity": Perplexity, "bits_per_byte": BitsPerByte, "accuracy": Accuracy}
        return {name: kinds[name]() for name in self.config.metrics}

    def count_targets(self, batch: TextBatch) -> Mapping[str, int] | None:
        """The tokens to predict, for each of the terms where the loss has two."""
        return term_counts(self.loss, batch.tokens)

    def split_for_tbptt(self, batch: Any, steps: int) -> Sequence[Any]:
        """Pieces of `steps` tokens; their tokens and bytes add up to those of the batch.

        Bytes are shared out by tokens. Raises ConfigError for a model without a state to hand on.
        """
        if isinstance(self.model, Decoder):
            raise ConfigError(
                "train.tbptt_steps needs a model with hidden states, but a decoder has none; take "
                'model.type = "lstm" or "gru", or switch it off.'
            )
        if not isinstance(batch, TextBatch):
            return super().split_for_tbptt(batch, steps)
        pieces, tokens, past = [], 0, 0.0
        for piece in split_in_time(batch, steps):
            own = int((piece.targets != IGNORED).sum())
            tokens += own
            share = batch.bytes * tokens / batch.tokens if batch.tokens else 0.0
            pieces.append(dataclasses.replace(piece, tokens=own, bytes=share - past))
            past = share
        return pieces

    def training_step(self, batch: TextBatch, *, hiddens: Any = None) -> Terms | StepOutput:
        """The loss of each token given those before it; of a recurrent model also its state, to go on from."""
        hidden, state = self._hidden(batch, hiddens)
        loss = self._loss(self.loss, hidden, batch, padded=True)
        return StepOutput(loss, hiddens=state) if isinstance(self.model, Recurrent) else loss

    def validation_step(self, batch: TextBatch, *, hiddens: Any = None) -> StepOutput:
        """The plain cross entropy, and the metrics."""
        hidden, state = self._hidden(batch, hiddens)
        loss = self._loss(self.plain_loss, hidden, batch, padded=False)
        first = first_term(loss)
        if "perplexity" in self.metrics:
            self.metrics["perplexity"].update(first.sum, first.count)
        if "bits_per_byte" in self.metrics:
            self.metrics["bits_per_byte"].update(first.sum, batch.bytes)
        if "accuracy" in self.metrics:
            self.metrics["accuracy"].update(self._right(hidden, batch), batch.tokens)
        return StepOutput(loss, hiddens=state)

    def test_step(self, batch: TextBatch, *, hiddens: Any = None) -> StepOutput:
        """As in validation."""
        return self.validation_step(batch, hiddens=hiddens)

    def _hidden(self, batch: TextBatch, hiddens: Any) -> tuple[Tensor, Any]:
        """The last hidden layer, or the logits of a model of the user's own, and the state to hand on."""
        match self.model:
            case Decoder() as decoder:
                return decoder.hidden(batch.inputs, batch.documents, batch.positions), None
            case Recurrent() as recurrent:
                hidden, state = recurrent.hidden(batch.inputs, hiddens, documents_BT=batch.documents)
                return hidden, None if batch.documents is not None else state
            case own:
                return own(batch.inputs), None

    def _loss(self, loss: LossFunction, hidden: Tensor, batch: TextBatch, *, padded: bool) -> Terms:
        match self.model, loss:
            case ((Decoder() | Recurrent() as model), (CrossEntropy() | CrossEntropyWithZ() as fused)):
                weight_VM = _output(model, padded=padded)
                return fused.from_hidden(hidden, weight_VM, batch.targets, count=batch.tokens)
            case ((Decoder() | Recurrent() as model), _):
                hidden = nn.functional.linear(hidden, _output(model, padded=padded))
        return loss_of(loss, hidden, batch.targets, batch.tokens)

    def _right(self, hidden: Tensor, batch: TextBatch) -> Tensor:
        """How many targets are the likeliest token."""
        match self.model:
            case Decoder() | Recurrent() as model:
                return count_right(hidden, _output(model, padded=False), batch.targets)
        return count_right(hidden, None, batch.targets)

    def predict_step(self, batch: TextBatch) -> list[list[Generated]]:
        """Completions of the rows of `batch`, as they stand."""
        return generate(self.model, batch.inputs.tolist(), self.config.options(), self._decode())

    def predict(
        self, prompts: Iterable[str], *, batch_size: int = 16, options: Options | None = None, first: int = 0
    ) -> Iterator[list[Completion]]:
        """Complete prompts as they come, in order, `batch_size` side by side: for each its completions.

        `first` is the number of the first of them, for the seed. Raises ConfigError without a tokenizer.
        """
        chosen = options or self.config.options()
        given = iter(prompts)
        while block := list(islice(given, batch_size)):
            contexts = [self.tokens_of(prompt) for prompt in block]
            with evaluating(self):
                found = generate(self.model, contexts, chosen, self._decode(), first=first)
            for samples in found:
                yield [Completion(one.text, one.log_probability, len(one.tokens), one.end) for one in samples]
            first += len(block)

    def stream(self, prompt: str, *, number: int = 0, options: Options | None = None) -> Iterator[Piece]:
        """Complete one prompt, piece by piece as its tokens are chosen; it is prompt `number` for the seed.

        With several samples their pieces come in turns.
        """
        context = self.tokens_of(prompt)
        with evaluating(self):
            yield from stream(self.model, [context], options or self.config.options(), self._decode(), first=number)

    def score(self, texts: Iterable[str]) -> Iterator[Scored]:
        """How likely each text is, from its beginning to its end."""
        for text in texts:
            tokens = [self.start, *self._known_tokenizer().encode(text), EOS]
            with evaluating(self):
                values = score(self.model, tokens)
            spoken = zip(self._spoken(tokens), values, strict=True)
            yield Scored(sum(values), list(spoken), len(text.encode("utf-8")))

    def _spoken(self, tokens: Sequence[int]) -> list[str]:
        """What each token adds to the text, from the first that is its own to the end; joined they are the text."""
        reader = TextStream(self._known_tokenizer().decode, tokens[:1])
        return [*map(reader.add, tokens[1:-1]), reader.rest()]

    def tokens_of(self, prompt: str) -> list[int]:
        """The tokens that a completion of `prompt` goes on from."""
        tokens = self._known_tokenizer().encode(prompt)
        begins = self.config.prompt == "beginning" or not tokens
        return [self.start, *tokens] if begins else tokens

    def _known_tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise ConfigError(
                "predict and score need the tokenizer that the task was trained with: pass it to the task."
            )
        return self.tokenizer

    def _decode(self) -> Callable[[Sequence[int]], str] | None:
        return None if self.tokenizer is None else self.tokenizer.decode


def _output(model: Decoder | Recurrent, *, padded: bool) -> Tensor:
    """The output matrix; `padded` with the rows that `model.vocabulary_multiple` added."""
    weight_VM = model.output_weight
    return weight_VM if padded or weight_VM.size(0) == model.vocabulary else weight_VM[: model.vocabulary]
