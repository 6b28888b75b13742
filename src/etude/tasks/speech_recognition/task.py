"""Speech recognition: recordings to transcripts.

Legend: B batch, T frames, F features, L labels, V classes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from etude.data.audio.front_end import FrontEnd
from etude.data.audio.reading import Wave
from etude.data.feeds.recorded import SpeechBatch
from etude.data.tokens.tokenizers import Tokenizer
from etude.metrics.edit_distance import CharacterErrorRate, CountedErrors, TokenErrorRate, WordErrorRate
from etude.metrics.groups import BY_GROUP, ByGroup
from etude.search.ctc import Transcript
from etude.search.words import Clock, Word, words
from etude.tasks.parts import Terms
from etude.tasks.sounds import Ears
from etude.tasks.speech_recognition.config import SpeechConfig
from etude.tasks.speech_recognition.fused import fusion_of
from etude.tasks.speech_recognition.heads import Head, Searching
from etude.tasks.speech_recognition.model import SpeechModel
from etude.train.evaluate import evaluating
from etude.train.task import StepOutput, Task
from etude.train.watch.metrics import Metric

References = Callable[[Sequence[int]], Sequence[str]]
"""The raw transcripts of the samples with these indices."""
LEFT_OUT = "left_out"
"""The name under which the share of recordings is logged that a loss cannot count."""
METRICS: Mapping[str, Callable[[], Any]] = {
    "token_error_rate": TokenErrorRate,
    "word_error_rate": WordErrorRate,
    "character_error_rate": CharacterErrorRate,
}


@final
@dataclass(frozen=True, slots=True)
class Recognised:
    """What was found in one recording."""

    text: str
    score: float
    """The log-probability of the labels in nats."""
    words: tuple[Word, ...] = ()
    """With their times in seconds of the recording."""
    tokens: tuple[int, ...] = ()


SILENCE = Recognised("", 0.0)
"""What is found in a recording without a frame."""


@final
class SpeechTask(Task):
    """The losses of the model's heads in training; greedy search in validation, a beam in test and predict.

    The head that comes first searches. `front_end` makes features of waves and `ears` reads files, for predictions.
    """

    def __init__(
        self,
        model: SpeechModel,
        config: SpeechConfig | None = None,
        *,
        tokenizer: Tokenizer,
        front_end: FrontEnd,
        ears: Ears | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.config = config or SpeechConfig()
        self.tokenizer = tokenizer
        self.front_end = front_end
        self.ears = ears
        self._references: dict[str, References] = {}

    def use_references(self, split: str, references: References) -> None:
        """Compare what is recognised in `split` ("val" or "test") with these raw transcripts."""
        self._references[split] = references

    @cached_property
    def searching(self) -> Searching:
        """How test and predict search; a language model is read when it is first asked for."""
        config = self.config
        fusion = fusion_of(config, self.tokenizer)
        return Searching(config.beam_size, fusion, config.symbols_a_frame, config.ctc_weight)

    @property
    def heads(self) -> dict[str, Head]:
        """By name, the one that searches first."""
        return {name: cast("Head", head) for name, head in self.model.heads.items()}

    def configure_metrics(self) -> Mapping[str, Metric]:
        """The error rates that are asked for, perhaps of each group too; anew for each pass."""
        rates = self._rates()
        return rates if self.config.by is None else {**rates, BY_GROUP: ByGroup(self._rates, _measure)}

    def _rates(self) -> dict[str, Metric]:
        return {name: CountedErrors(name, METRICS[name]()) for name in self.config.metrics}

    def training_step(self, batch: SpeechBatch) -> Terms:
        """The loss of each head."""
        encoded_BTM, lengths_B = self.model(batch.features, batch.lengths)
        return self._losses(encoded_BTM, lengths_B, batch)

    def validation_step(self, batch: SpeechBatch) -> StepOutput:
        """The losses; `outputs` holds for each recording what greedy search finds."""
        return self._evaluated("val", batch, Searching(symbols_a_frame=self.config.symbols_a_frame))

    def test_step(self, batch: SpeechBatch) -> StepOutput:
        """The losses; `outputs` holds for each recording what the beam finds, best first."""
        return self._evaluated("test", batch, self.searching)

    def predict_step(self, batch: SpeechBatch) -> list[list[Recognised]]:
        """What is found in each recording, best first."""
        encoded_BTM, lengths_B = self.model(batch.features, batch.lengths)
        return self._recognised(encoded_BTM, lengths_B, self.searching)

    def output_columns(self, batch: SpeechBatch, outputs: Sequence[Sequence[Recognised]] | None) -> Mapping[str, Any]:
        """For saved outputs: what was found, its score, its words with their times, and the frames of each."""
        found = outputs or [[SILENCE]] * len(batch)
        return {
            "prediction": [best[0].text for best in found],
            "score": [best[0].score for best in found],
            "words": [[word.text for word in best[0].words] for best in found],
            "starts": [[word.start for word in best[0].words] for best in found],
            "ends": [[word.end for word in best[0].words] for best in found],
            "frames": batch.lengths,
        }

    def predict(self, waves: Iterable[Wave], *, batch_size: int = 16) -> Iterator[list[Recognised]]:
        """Recognise what is said in waves at the rate of the front end, in order: best first for each."""
        sounds = iter(waves)
        with evaluating(self):
            while block := list(islice(sounds, batch_size)):
                yield from self._of_waves(block)

    def _of_waves(self, waves: Sequence[Wave]) -> list[list[Recognised]]:
        features_NF, counts = self.front_end.made(list(map(torch.from_numpy, waves)))
        rows = torch.split(features_NF, counts)
        features_BTF = nn.utils.rnn.pad_sequence(list(rows), batch_first=True).to(self._device)
        lengths_B = torch.tensor(counts, device=self._device)
        if not features_BTF.size(1):
            return [[SILENCE] for _ in waves]
        encoded_BTM, lengths_B = self.model(features_BTF, lengths_B)
        return self._recognised(encoded_BTM, lengths_B, self.searching)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _losses(self, encoded_BTM: Tensor, lengths_B: Tensor, batch: SpeechBatch) -> Terms:
        losses = {name: head.loss(encoded_BTM, lengths_B, batch) for name, head in self.heads.items()}
        left_out_B = next(iter(self.heads.values())).left_out(lengths_B, batch)
        self.log(LEFT_OUT, left_out_B.float().mean(), len(batch))
        return losses if len(losses) > 1 else next(iter(losses.values()))

    def _evaluated(self, split: str, batch: SpeechBatch, how: Searching) -> StepOutput:
        encoded_BTM, lengths_B = self.model(batch.features, batch.lengths)
        losses = self._losses(encoded_BTM, lengths_B, batch)
        found = self._recognised(encoded_BTM, lengths_B, how)
        self._compare(split, batch, [best[0] for best in found])
        return StepOutput(losses, outputs=found)

    def _recognised(self, encoded_BTM: Tensor, lengths_B: Tensor, how: Searching) -> list[list[Recognised]]:
        head = next(iter(self.heads.values()))
        found = head.search(encoded_BTM, lengths_B, how)
        return [[self._told(one, timed=head.timed) for one in best] for best in found]

    def _told(self, found: Transcript, *, timed: bool) -> Recognised:
        tokens = found.tokens
        labels = found.labels if timed else ()
        said = words(labels, self.tokenizer.decode, Clock(self.seconds_a_frame))
        return Recognised(self.tokenizer.decode(tokens).strip(), found.score, tuple(said), tokens)

    @property
    def seconds_a_frame(self) -> float:
        """From one encoded frame to the next."""
        return self.front_end.seconds_a_frame * self.subsampling

    @property
    def subsampling(self) -> int:
        """How many frames of features become one; a model of one's own has an attribute of that name, or makes each."""
        return int(getattr(self.model.encoder, "subsampling", 1))

    def _compare(self, split: str, batch: SpeechBatch, found: Sequence[Recognised]) -> None:
        if not self.metrics:
            return
        targets = [
            row[:length] for row, length in zip(batch.targets.tolist(), batch.target_lengths.tolist(), strict=True)
        ]
        references = self._texts(split, batch, targets)
        _measure(self.metrics, found, targets, references)
        if BY_GROUP in self.metrics:
            self.metrics[BY_GROUP].update(batch.groups, found, targets, references)

    def _texts(self, split: str, batch: SpeechBatch, targets: Sequence[Sequence[int]]) -> list[str]:
        if split in self._references:
            return list(self._references[split](batch.indices.tolist()))
        return [self.tokenizer.decode(ids) for ids in targets]


def _measure(
    metrics: Mapping[str, Metric],
    found: Sequence[Recognised],
    targets: Sequence[Sequence[int]],
    references: Sequence[str],
) -> None:
    """Let error rates take in what was found in recordings and, by tokens and as texts, what is said in them."""
    for name in METRICS.keys() & metrics.keys():
        if name == "token_error_rate":
            metrics[name].update([list(one.tokens) for one in found], targets)
        else:
            metrics[name].update([one.text for one in found], references)
