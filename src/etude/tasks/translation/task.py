"""Translation, and every other task of sequence to sequence.

Legend: B batch, S source time, T target time.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, final

import torch
from torch import Tensor, nn

from etude.base.errors import ConfigError
from etude.base.schedules.values import ScheduledValue
from etude.data.feeds.batches import PairBatch
from etude.data.tokens.tokenizers import PAD, Tokenizer
from etude.metrics.ratios import Perplexity
from etude.metrics.text import TEXT_METRICS
from etude.model.losses import CrossEntropy, CrossEntropyWithZ
from etude.model.losses.torchs import LossFunction, plain
from etude.model.transformer import Transformer
from etude.search.beam import beam
from etude.search.greedy import greedy
from etude.search.hypotheses import Hypothesis, Limits
from etude.tasks.attention import Attention
from etude.tasks.by_length import batches_by_length, by_length, encoded, padded
from etude.tasks.parts import (
    Terms,
    first_term,
    loss_of,
    scheduled_values,
    term_counts,
)
from etude.tasks.sharing import Places
from etude.tasks.translation.attention import attention_of
from etude.tasks.translation.config import TranslationConfig
from etude.tasks.translation.saved import translation_columns
from etude.train.evaluate import evaluating
from etude.train.task import StepOutput, Task
from etude.train.watch.metrics import Metric

References = Callable[[Sequence[int]], Sequence[str]]
"""The raw target texts of the samples with these indices."""


@final
@dataclass(frozen=True, slots=True)
class Translation:
    """One translation of one source."""

    text: str
    score: float
    """What translations of a source are ranked by; higher is better."""
    log_probability: float
    """In nats."""
    tokens: tuple[int, ...] = field(default=(), repr=False)
    """Without bos and eos."""


UNTRANSLATED = Translation("", 0.0, 0.0)
"""What stands for a blank text."""


@final
class TranslationTask(Task):
    """Teacher forcing in training; search in validation (greedy), test and predict (beam).

    `model` maps (source [B, S], decoder input [B, T]) to logits [B, T, V]; to search it also needs `encode`, `start`
    and `step` (see `etude.search.step.Decoder`). Without tokenizers there are neither text metrics nor `predict`.
    `loss` is used in training; evaluation reports the plain cross entropy. A loss may give several named terms; the
    first is what perplexity is of.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TranslationConfig | None = None,
        *,
        loss: LossFunction | None = None,
        source_tokenizer: Tokenizer | None = None,
        target_tokenizer: Tokenizer | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.config = config or TranslationConfig()
        self.loss: LossFunction = loss if loss is not None else CrossEntropy(ignore_index=PAD)
        self.source_tokenizer = source_tokenizer
        self.target_tokenizer = target_tokenizer
        self._references: dict[str, References] = {}
        longest = min(self.config.max_target_length, getattr(model, "longest", self.config.max_target_length))
        self.limits = Limits(self.config.max_target_ratio, self.config.max_target_extra, longest)

    def use_references(self, split: str, references: References) -> None:
        """Compare translations of `split` ("val" or "test") with these raw texts.

        Without them the target's tokens are decoded instead, which is the raw text only for a tokenizer that keeps
        all of it.
        """
        self._references[split] = references

    def widen(self, count: int) -> None:
        """Let the beam find at least `count` translations of each source."""
        if self.config.beam_size < count:
            self.config = self.config.model_copy(update={"beam_size": count})

    def scheduled_values(self) -> list[ScheduledValue]:
        """What the configs of model and loss give as schedules."""
        return scheduled_values(self.model, self.loss)

    @property
    def plain_loss(self) -> LossFunction:
        """What evaluation reports."""
        return plain(self.loss)

    @property
    def searches(self) -> bool:
        """Whether the model can be decoded step by step."""
        return all(callable(getattr(self.model, part, None)) for part in ("encode", "start", "step"))

    @property
    def _cannot_search(self) -> str:
        return f"to be decoded, {type(self.model).__name__} needs the methods encode, start and step."

    def configure_metrics(self) -> Mapping[str, Metric]:
        """Perplexity, and the text metrics where there is a tokenizer; anew for each pass."""
        texts = self.config.metrics if self.target_tokenizer is not None else []
        if texts and not self.searches:
            raise ConfigError(f"task.metrics must be [] here, but is {list(texts)}: {self._cannot_search}")
        return {"perplexity": Perplexity(), **{name: TEXT_METRICS[name]() for name in texts}}

    def training_step(self, batch: PairBatch) -> Terms:
        """The loss of each target token given the true ones before it."""
        return self._loss(self.loss, batch)

    def count_targets(self, batch: PairBatch) -> Mapping[str, int] | None:
        """The target tokens, for each of the terms where the loss has two."""
        return term_counts(self.loss, batch.tokens)

    def validation_step(self, batch: PairBatch) -> StepOutput:
        """The plain cross entropy; translates greedily what belongs to the first `eval_search_samples`.

        `outputs` holds for each sample its translations: one, or none for a later sample.
        """
        loss = self._evaluated(batch)
        if not self._scores_text() or self.config.eval_search_samples == 0:
            return StepOutput(loss)
        chosen = (batch.indices < self.config.eval_search_samples).nonzero()[:, 0]
        if not len(chosen):
            return StepOutput(loss)
        source = _trimmed(batch.source[chosen])
        found = greedy(self._decoder, source, limits=self.limits, alpha=self.config.length_penalty)
        self._compare("val", batch, chosen, [self._text(one) for one in found])
        outputs: list[list[Translation]] = [[] for _ in range(len(batch))]
        for row, one in zip(chosen.tolist(), found, strict=True):
            outputs[row] = [self._translation(one)]
        return StepOutput(loss, outputs=outputs)

    def test_step(self, batch: PairBatch) -> StepOutput:
        """The plain cross entropy; translates every sample by beam search, best first in `outputs`."""
        loss = self._evaluated(batch)
        if self.target_tokenizer is None or not self.searches:
            return StepOutput(loss)
        found = self.predict_step(batch)
        if self._scores_text():
            everything = torch.arange(len(batch), device=batch.source.device)
            self._compare("test", batch, everything, [best[0].text for best in found])
        return StepOutput(loss, outputs=found)

    def output_columns(self, batch: PairBatch, outputs: Sequence[Sequence[Translation]] | None) -> Mapping[str, Any]:
        """For saved outputs: texts, the best translation, the scores of all, and the mean loss of a target token."""
        return translation_columns(self, batch, outputs)

    def predict_step(self, batch: PairBatch) -> list[list[Translation]]:
        """The translations of each source, best first, at most `beam_size`."""
        return self._translate(batch.source)

    def predict(self, texts: Iterable[str], *, batch_size: int = 64, window: int = 1024) -> Iterator[list[Translation]]:
        """Translate lines as they come, in order: for each line its translations, best first.

        Up to `window` lines are read ahead, so that lines of similar length share a batch; 1 answers each line at
        once. A line without anything but white space has the empty translation. Raises ConfigError without tokenizers.
        """
        lines = iter(texts)
        with evaluating(self):
            while block := list(islice(lines, window)):
                yield from by_length(self._tokens(block), batch_size, self._translated, [UNTRANSLATED])

    def together(self, lines: Sequence[str], *, batch_size: int = 64) -> list[Places]:
        """Which of some lines, by their places, `predict` translates together."""
        return batches_by_length(self._tokens(lines), batch_size)

    def _tokens(self, lines: Sequence[str]) -> list[list[int]]:
        if self.source_tokenizer is None or self.target_tokenizer is None:
            raise ConfigError("predict needs the tokenizers that the task was trained with: pass them to the task.")
        if not self.searches:
            raise ConfigError(f"This run cannot predict: {self._cannot_search}")
        return encoded(self.source_tokenizer, lines)

    def attention(self, text: str, translation: Translation | None = None) -> Attention:
        """What a translation of `text` (its best one, unless given) looks at in it; see `attention_of`."""
        return attention_of(self, text, translation)

    def _translated(self, sources: Sequence[Sequence[int]]) -> list[list[Translation]]:
        return self._translate(padded(sources))

    def _translate(self, source_BS: Tensor) -> list[list[Translation]]:
        width = self.config.beam_size
        source_BS = source_BS.to(self.device)
        found = beam(self._decoder, source_BS, width=width, limits=self.limits, alpha=self.config.length_penalty)
        return [list(map(self._translation, best)) for best in found]

    @property
    def _decoder(self) -> Any:
        return self.model

    @property
    def device(self) -> torch.device:
        """Where its model is."""
        return next(self.model.parameters()).device

    def _translation(self, hypothesis: Hypothesis) -> Translation:
        return Translation(
            self._text(hypothesis), hypothesis.score, hypothesis.log_probability, tuple(hypothesis.tokens)
        )

    def _text(self, hypothesis: Hypothesis) -> str:
        assert self.target_tokenizer is not None
        return self.target_tokenizer.decode(hypothesis.tokens)

    def _scores_text(self) -> bool:
        return any(name in self.metrics for name in TEXT_METRICS)

    def _loss(self, loss: LossFunction, batch: PairBatch) -> Terms:
        inputs_BT, targets_BT = batch.target[:, :-1], batch.target[:, 1:]
        match self.model, loss:
            case Transformer() as model, CrossEntropy() | CrossEntropyWithZ() as fused:
                hidden_BTM = model.hidden(batch.source, inputs_BT)
                return fused.from_hidden(hidden_BTM, model.output_weight, targets_BT, count=batch.tokens)
            case model, _:
                return loss_of(loss, model(batch.source, inputs_BT), targets_BT, batch.tokens)

    def _evaluated(self, batch: PairBatch) -> Terms:
        loss = self._loss(self.plain_loss, batch)
        if "perplexity" in self.metrics:
            first = first_term(loss)
            self.metrics["perplexity"].update(first.sum, first.count)
        return loss

    def _compare(self, split: str, batch: PairBatch, rows: Tensor, texts: list[str]) -> None:
        if split in self._references:
            references = list(self._references[split](batch.indices[rows].tolist()))
        else:
            assert self.target_tokenizer is not None
            targets = batch.target[rows].tolist()
            references = [self.target_tokenizer.decode(ids) for ids in targets]
        for name in TEXT_METRICS:
            if name in self.metrics:
                self.metrics[name].update(texts, references)


def _trimmed(source_BS: Tensor) -> Tensor:
    """Without the columns that are padding in every row."""
    return source_BS[:, : int((source_BS != PAD).sum(1).max())]
