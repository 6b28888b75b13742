"""Fine-tuning any causal or sequence-to-sequence model of the `transformers` library.

Legend: B batch, S source time, T time, V vocabulary.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self, final

import torch
from torch import Tensor

from etude.base.errors import ConfigError
from etude.base.paths import user_path
from etude.base.schedules.values import ScheduledValue
from etude.data.feeds.text_batches import TextBatch
from etude.data.files.lines import is_blank
from etude.metrics.ratios import Accuracy, BitsPerByte, Perplexity
from etude.model.loss import Loss
from etude.model.losses import CrossEntropy, CrossEntropyWithZ
from etude.tasks.by_length import batches_by_length, by_length
from etude.tasks.hf.batch import IGNORED, HfBatch, Ids, causal_batch, seq2seq_batch
from etude.tasks.hf.chat import Encoder
from etude.tasks.hf.config import HfConfig
from etude.tasks.hf.folder import HfModelConfig, HfParts, Kind, load_parts, longest
from etude.tasks.hf.generate import ends, generated, log_probabilities, pad_id
from etude.tasks.parts import Terms, term_counts
from etude.tasks.sharing import Places
from etude.train.evaluate import evaluating
from etude.train.task import Task
from etude.train.watch.metrics import Metric

Batch = HfBatch | TextBatch
LENGTH = 1024
"""Tokens of a row of text, unless `data.block_size` says otherwise or the model has fewer positions."""
OWN_SPECIALS = 4
"""Ids of Etude's own special tokens, which a foreign tokenizer's follow in its text feeds."""


@final
@dataclass(frozen=True, slots=True)
class Completion:
    """What a model writes behind a prompt."""

    text: str
    score: float
    """What completions of a prompt are ranked by: log-probability / length^length_penalty; higher is better."""
    log_probability: float
    """In nats, its end included."""


@final
class HfTask(Task):
    """Fine-tunes a causal or sequence-to-sequence model; the loss is Etude's own, summed in float32.

    `parts` is what `load_parts` or `stored_parts` read. `loss` is used in training; evaluation reports the plain cross
    entropy. Batches are `HfBatch`es; a causal model also takes the batches of Etude's text feeds, made by the folder's
    tokenizer.json.
    """

    def __init__(
        self,
        parts: HfParts,
        config: HfConfig | None = None,
        *,
        loss: CrossEntropy | CrossEntropyWithZ | None = None,
    ) -> None:
        super().__init__()
        self.model = parts.model
        self.tokenizer = parts.tokenizer
        self.seq2seq = parts.seq2seq
        self.config = config or HfConfig()
        self.loss = loss if loss is not None else CrossEntropy(ignore_index=IGNORED)
        if self.loss.ignore_index != IGNORED:
            raise ValueError(f"The loss must ignore {IGNORED}, but ignores {self.loss.ignore_index}.")
        self.encoder = Encoder(
            parts.tokenizer,
            seq2seq=parts.seq2seq,
            longest=longest(parts.model),
            template=self.config.chat_template,
            system=self.config.system,
        )
        stops = ends(self.model, self.tokenizer) | self.encoder.ends()
        self.model.generation_config.eos_token_id = sorted(stops)
        self._check_vocabulary()
        self.eval()  # as the library gives its models, and as a whole, so that training puts all of it into train mode

    @classmethod
    def from_folder(cls, path: str | Path, *, kind: Kind = "auto", from_scratch: bool = False, **options: Any) -> Self:
        """The task of the model in the folder `path`; `options` are keys of `HfConfig`."""
        model = HfModelConfig(path=user_path(path), kind=kind, from_scratch=from_scratch)
        config = HfConfig(**options)
        return cls(load_parts(model, seed=config.seed), config)

    @property
    def pad(self) -> int:
        """The id that fills the rows of a batch."""
        return pad_id(self.tokenizer)

    def row_length(self, wanted: int | None = None) -> int:
        """Tokens of a row of text: `wanted`, or what the model takes well. Raises ConfigError for too many."""
        bound = longest(self.model)
        if wanted is None:
            return min(LENGTH, bound or LENGTH)
        if bound is not None and wanted > bound:
            raise ConfigError(f"data.block_size must be at most the model's {bound} positions, but is {wanted}.")
        return wanted

    @torch.no_grad()
    def check_packing(self) -> None:
        """Find out whether the model keeps packed texts apart: two of them must have the logits of each alone.

        Raises ConfigError where they have not, as in a model without attention.
        """
        if self.seq2seq:
            raise ConfigError("data.packing is for causal models: switch it off.")
        size, device = self.model.config.get_text_config().vocab_size, self.model.device
        rows = [torch.arange(3, 8) % size, torch.arange(9, 2, -1) % size]
        ids = [Ids([row], [torch.ones(len(row), dtype=torch.bool)], row[:0], 0.0, 0) for row in rows]
        both = Ids(rows, [part for row in ids for part in row.counted], rows[0][:0], 0.0, 0)
        with evaluating(self):
            packed = self._logits(causal_batch([both], self.pad, packed=True).to(device))
            alone = [self._logits(causal_batch([one], self.pad, packed=False).to(device)) for one in ids]
        if not torch.allclose(packed, torch.cat(alone, 1), rtol=1e-3, atol=1e-3):
            raise ConfigError(
                f"data.packing must be off for a {self.model.config.model_type} model: it does not keep packed texts "
                "apart."
            )

    def widen(self, count: int) -> None:
        """Let the beam find at least `count` completions of each prompt."""
        if self.config.beam_size < count:
            self.config = self.config.model_copy(update={"beam_size": count})

    def scheduled_values(self) -> list[ScheduledValue]:
        """What the loss has as schedules."""
        return list(self.loss.scheduled_values())

    def configure_metrics(self) -> Mapping[str, Metric]:
        """Perplexity, accuracy of the targets and bits per byte of their text; anew for each pass."""
        return {"perplexity": Perplexity(), "accuracy": Accuracy(), "bits_per_byte": BitsPerByte()}

    def training_step(self, batch: Batch) -> Terms:
        """The loss of each target given what stands before it."""
        return self.loss(self._logits(batch), self._targets(batch), count=batch.tokens)

    def count_targets(self, batch: Batch) -> Mapping[str, int] | None:
        """The targets, for each of the terms where the loss has two."""
        return term_counts(self.loss, batch.tokens)

    def validation_step(self, batch: Batch) -> Loss:
        """The plain cross entropy."""
        logits_BTV, targets_BT = self._logits(batch), self._targets(batch)
        loss = CrossEntropy(ignore_index=IGNORED)(logits_BTV, targets_BT, count=batch.tokens)
        if self.metrics:
            self.metrics["perplexity"].update(loss.sum, loss.count)
            self.metrics["bits_per_byte"].update(loss.sum, batch.bytes)
            right = ((logits_BTV.argmax(-1) == targets_BT) & (targets_BT != IGNORED)).sum()
            self.metrics["accuracy"].update(right, batch.tokens)
        return loss

    def predict(self, texts: Iterable[str], *, batch_size: int = 32, window: int = 1024) -> Iterator[list[Completion]]:
        """Complete or answer texts as they come, in order: for each its completions, best first.

        Up to `window` are read ahead, so that those of similar length share a batch. An empty one has the empty
        completion.
        """
        lines = iter(texts)
        with evaluating(self):
            while block := [line.rstrip("\r\n") for line in islice(lines, window)]:
                yield from self._completed(block, batch_size)

    def predict_step(self, batch: HfBatch) -> list[list[Completion]]:
        """The completions of each prompt: the source or, of a causal model, what stands before the first target."""
        prompts = []
        for row in range(len(batch)):
            inputs = batch.inputs[row][batch.attention[row] > 0].tolist()
            first = 0 if self.seq2seq else int((batch.targets[row] != IGNORED).int().argmax())
            prompts.append(inputs if self.seq2seq else inputs[: first + 1])
        return self._completions(prompts)

    def score(self, texts: Iterable[str]) -> Iterator[float]:
        """The log-probability in nats that a causal model gives each text and its end.

        A text longer than the model's positions is scored in pieces.
        """
        if self.seq2seq:
            raise ConfigError("A sequence-to-sequence model cannot score a text alone.")
        with evaluating(self):
            for text in texts:
                total = 0.0
                for row in self.encoder.text(text, self.row_length()):
                    ids = Ids([torch.tensor(row.ids)], [torch.tensor(row.counted)], torch.tensor([]), 0.0, 0)
                    total += float(self._likelihood(causal_batch([ids], self.pad, packed=False))[0])
                yield total

    def together(self, texts: Sequence[str], *, batch_size: int = 32) -> list[Places]:
        """Which of some texts, by their places, `predict` completes together."""
        return batches_by_length(self._prompts([text.rstrip("\r\n") for text in texts]), batch_size)

    def _prompts(self, texts: Sequence[str]) -> list[Sequence[int]]:
        return [[] if is_blank(text) else self.encoder.prompt(text) for text in texts]

    def _completed(self, block: list[str], batch_size: int) -> list[list[Completion]]:
        return by_length(self._prompts(block), batch_size, self._completions, [Completion("", 0.0, 0.0)])

    def _completions(self, prompts: Sequence[Sequence[int]]) -> list[list[Completion]]:
        options = self.config.options
        found = generated(self.model, self.tokenizer, prompts, options, seq2seq=self.seq2seq)
        flat = [(prompt, ids) for prompt, several in zip(prompts, found, strict=True) for ids in several]
        sums = iter(self._likelihood(self._continued(flat)).tolist())
        return [[self._completion(ids, next(sums)) for ids in several] for several in found]

    def _completion(self, ids: list[int], log_probability: float) -> Completion:
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        return Completion(text, log_probability / max(1, len(ids)) ** self.config.length_penalty, log_probability)

    def _continued(self, flat: Sequence[tuple[Sequence[int], list[int]]]) -> HfBatch:
        rows = []
        for prompt, ids in flat:
            before = [] if self.seq2seq else list(prompt)
            counted = torch.tensor([False] * len(before) + [True] * len(ids))
            source = torch.tensor(list(prompt) if self.seq2seq else [], dtype=torch.int64)
            rows.append(Ids([torch.tensor(before + ids, dtype=torch.int64)], [counted], source, 0.0, 0))
        return seq2seq_batch(rows, self.pad) if self.seq2seq else causal_batch(rows, self.pad, packed=False)

    def _likelihood(self, batch: HfBatch) -> Tensor:
        batch = batch.to(self.model.device)
        with torch.no_grad():
            return log_probabilities(self._logits(batch), batch.targets, IGNORED)

    def _logits(self, batch: Batch) -> Tensor:
        """Logits [B, T, V] of the batch's targets."""
        if not isinstance(batch, HfBatch):
            return self._of_text(batch)
        if self.seq2seq:
            decoder_inputs = self.model.prepare_decoder_input_ids_from_labels(labels=batch.targets)
            made = self.model(
                input_ids=batch.inputs,
                attention_mask=batch.attention,
                decoder_input_ids=decoder_inputs,
                use_cache=False,
            )
        elif batch.documents is None:
            made = self.model(input_ids=batch.inputs, attention_mask=batch.attention, use_cache=False)
        else:
            return self._apart(batch.inputs, batch.documents, batch.positions)
        return _tensor(made.logits)

    def _apart(self, inputs_BT: Tensor, documents_BT: Tensor, positions_BT: Tensor | None) -> Tensor:
        """Logits of packed rows: a token sees those before it in its own document."""
        earlier = torch.ones(inputs_BT.size(1), inputs_BT.size(1), dtype=torch.bool, device=inputs_BT.device).tril()
        seen = (documents_BT[:, :, None] == documents_BT[:, None, :]) & earlier
        hidden = torch.finfo(self.model.dtype).min
        mask = torch.zeros(seen.shape, dtype=self.model.dtype, device=seen.device).masked_fill(~seen, hidden)[:, None]
        made = self.model(input_ids=inputs_BT, attention_mask=mask, position_ids=positions_BT, use_cache=False)
        return _tensor(made.logits)

    def _of_text(self, batch: TextBatch) -> Tensor:
        """Logits of a batch of a text feed."""
        if self.seq2seq:
            raise ConfigError(
                "A sequence-to-sequence model needs samples of prompt and answer, but got a stream of text."
            )
        inputs_BT = self._own_ids(batch.inputs)
        if batch.documents is not None:
            return self._apart(inputs_BT, batch.documents, batch.positions)
        return _tensor(self.model(input_ids=inputs_BT, use_cache=False).logits)

    def _targets(self, batch: Batch) -> Tensor:
        if isinstance(batch, HfBatch):
            return batch.targets
        return self._own_ids(batch.targets).where(batch.targets != IGNORED, IGNORED)

    def _own_ids(self, ids_BT: Tensor) -> Tensor:
        """The model's ids of those of a text feed, in which four special ones come first."""
        return (ids_BT - OWN_SPECIALS).where(ids_BT >= OWN_SPECIALS, int(self.tokenizer.eos_token_id))

    def _check_vocabulary(self) -> None:
        rows = self.model.get_input_embeddings().weight.size(0)
        if len(self.tokenizer) > rows:
            raise ConfigError(
                f"The tokenizer has {len(self.tokenizer)} tokens, but the model embeds {rows}: they do not belong "
                "together."
            )


def _tensor(value: object) -> Tensor:
    assert isinstance(value, Tensor)
    return value
