"""Classification of texts, each into one of several classes.

Legend: B batch, S time, C classes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, final

import torch.nn.functional as F
from torch import Tensor, nn

from etude.base.errors import ConfigError
from etude.data.feeds.labelled import LabelledBatch
from etude.data.tokens.tokenizers import Tokenizer
from etude.metrics.classes import ClassMetrics
from etude.model.exact import exact
from etude.model.losses import CrossEntropy
from etude.model.losses.torchs import LossFunction, plain
from etude.model.losses.weighted import weighted_cross_entropy
from etude.tasks.by_length import by_length, encoded, padded
from etude.tasks.classification.config import ClassificationConfig
from etude.tasks.parts import Terms, loss_of
from etude.train.evaluate import evaluating
from etude.train.task import StepOutput, Task
from etude.train.watch.metrics import Metric

NO_LABEL = -100
"""What stands in the place of a label that a loss does not count."""
CLASSES = "confusion"
"""The name of the metric that the others are computed from."""


@final
@dataclass(frozen=True, slots=True)
class Classified:
    """The label of one text."""

    text: str
    """The likeliest label."""
    score: float
    """Its probability."""
    scores: Mapping[str, float]
    """The probability of every label."""


UNCLASSIFIED = Classified("", 0.0, {})
"""What stands for a blank text."""


@final
class ClassificationTask(Task):
    """Cross entropy of the label in training; metrics of the likeliest label in validation and test.

    `model` maps tokens [B, S], padded at the end, to logits [B, C] of the `labels`. `loss` is used in training, with
    `class_weights` [C] where they are given; evaluation reports the plain cross entropy. Without a tokenizer there is
    no `predict`.
    """

    def __init__(
        self,
        model: nn.Module,
        labels: Sequence[str],
        config: ClassificationConfig | None = None,
        *,
        loss: LossFunction | None = None,
        tokenizer: Tokenizer | None = None,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.labels = tuple(labels)
        self.config = config or ClassificationConfig()
        self.loss: LossFunction = loss if loss is not None else CrossEntropy(ignore_index=NO_LABEL)
        self.plain_loss = plain(self.loss)
        self.tokenizer = tokenizer
        self.class_weights: Tensor | None
        # They are computed from what the run keeps: no part of the weights.
        self.register_buffer("class_weights", class_weights, persistent=False)

    def configure_metrics(self) -> Mapping[str, Metric]:
        """What the config asks for, from one confusion matrix; anew for each pass."""
        return {CLASSES: ClassMetrics(self.labels, self.config.metrics)}

    def training_step(self, batch: LabelledBatch) -> Terms:
        """The loss of each label, smoothed and weighted as is asked for."""
        logits_BC = self.model(batch.tokens)
        match self.loss, self.class_weights:
            case CrossEntropy(label_smoothing=smoothing), Tensor() as weights_C:
                return weighted_cross_entropy(logits_BC, batch.labels, weights_C, label_smoothing=smoothing)
        return loss_of(self.loss, logits_BC, batch.labels, len(batch))

    def validation_step(self, batch: LabelledBatch) -> StepOutput:
        """The plain cross entropy; `outputs` holds the log-probabilities [B, C]."""
        logits_BC = self.model(batch.tokens)
        log_probabilities_BC = F.log_softmax(exact(logits_BC), -1)
        if CLASSES in self.metrics:
            self.metrics[CLASSES].update(batch.labels, log_probabilities_BC.argmax(-1))
        loss = loss_of(self.plain_loss, logits_BC, batch.labels, len(batch))
        return StepOutput(loss, outputs=log_probabilities_BC)

    def predict_step(self, batch: LabelledBatch) -> list[Classified]:
        """The label of each text."""
        return self._classified(batch.tokens)

    def output_columns(self, batch: LabelledBatch, outputs: Tensor | None) -> Mapping[str, Any]:
        """For saved outputs: label, likeliest label, probabilities of all labels in their order, and cross entropy."""
        columns: dict[str, Any] = {"target": self._named(batch.labels), "tokens": batch.lengths}
        if outputs is None:
            return columns
        losses = F.nll_loss(outputs, batch.labels, reduction="none")
        return {**columns, "prediction": self._named(outputs.argmax(-1)), "scores": outputs.exp(), "loss": losses}

    def predict(self, texts: Iterable[str], *, batch_size: int = 64, window: int = 1024) -> Iterator[list[Classified]]:
        """Classify texts as they come, in order: for each its label, as the only prediction.

        Up to `window` texts are read ahead, so that texts of similar length share a batch; a blank one has an empty
        label. Raises ConfigError without a tokenizer.
        """
        if self.tokenizer is None:
            raise ConfigError("predict needs the tokenizer that the task was trained with: pass it to the task.")
        lines = iter(texts)
        with evaluating(self):
            while block := list(islice(lines, window)):
                found = by_length(encoded(self.tokenizer, block), batch_size, self._of_tokens, UNCLASSIFIED)
                yield from ([one] for one in found)

    def _of_tokens(self, texts: Sequence[Sequence[int]]) -> list[Classified]:
        return self._classified(padded(texts))

    def _classified(self, tokens_BS: Tensor) -> list[Classified]:
        device = next(self.model.parameters()).device
        probabilities_BC = exact(self.model(tokens_BS.to(device))).softmax(-1)
        return [self._one(row) for row in probabilities_BC.tolist()]

    def _one(self, probabilities: Sequence[float]) -> Classified:
        scores = dict(zip(self.labels, probabilities, strict=True))
        label = max(scores, key=scores.__getitem__)  # of equal ones the first, as argmax has it
        return Classified(label, scores[label], scores)

    def _named(self, numbers_B: Tensor) -> list[str]:
        return [self.labels[number] for number in numbers_B.tolist()]

    def predicted(self, log_probabilities_BC: Tensor) -> list[str]:
        """The likeliest label of each sample, of what a validation or test step gave."""
        return self._named(log_probabilities_BC.argmax(-1))
