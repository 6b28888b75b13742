"""Masked language models: predict hidden tokens from what stands on both sides (Devlin et al. 2019).

Legend: B batch, T time, M width of the model, V vocabulary.
"""

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from etude.base.schedules.values import ScheduledValue
from etude.data.feeds.text_batches import TextBatch
from etude.data.tokens.tokenizers import PAD
from etude.metrics.ratios import Accuracy, Perplexity
from etude.model.decoder import Decoder
from etude.model.layers.masks import sides_mask
from etude.model.losses import CrossEntropy, CrossEntropyWithZ
from etude.model.losses.torchs import LossFunction, plain
from etude.model.masked import MaskedEncoder
from etude.tasks.language_model.config import LanguageModelConfig
from etude.tasks.language_model.likeliest import count_right
from etude.tasks.parts import Terms, first_term, loss_of, scheduled_values, term_counts
from etude.train.task import StepOutput, Task
from etude.train.watch.metrics import Metric


@final
class MaskedTask(Task):
    """The tokens that a batch hides.

    `model` is a `MaskedEncoder`, a `Decoder`, which sees both sides here, or maps tokens [B, T] to logits [B, T, V] of
    the same places.
    """

    def __init__(self, model: nn.Module, config: LanguageModelConfig, loss: LossFunction) -> None:
        super().__init__()
        self.model, self.config, self.loss = model, config, loss

    def scheduled_values(self) -> list[ScheduledValue]:
        """What the configs of model and loss give as schedules."""
        return scheduled_values(self.model, self.loss)

    def rate_multipliers(self) -> dict[str, float]:
        """Factors of the learning rate by the task's parameter names, where the model has some (mup)."""
        match self.model:
            case Decoder() as decoder:
                return {f"model.{name}": factor for name, factor in decoder.rate_multipliers().items()}
        return {}

    def configure_metrics(self) -> Mapping[str, Metric]:
        """Those of `task.metrics`, but for bits per byte; anew for each pass."""
        kinds: dict[str, type[Metric]] = {"perplexity": Perplexity, "accuracy": Accuracy}
        return {name: kinds[name]() for name in self.config.metrics if name in kinds}

    def count_targets(self, batch: TextBatch) -> Mapping[str, int] | None:
        """The tokens that are hidden, for each of the terms where the loss has two."""
        return term_counts(self.loss, batch.tokens)

    def training_step(self, batch: TextBatch) -> Terms:
        """The loss of each hidden token, given all others."""
        return self._loss(self.loss, self._hidden(batch), batch)

    def validation_step(self, batch: TextBatch) -> StepOutput:
        """The plain cross entropy, and the metrics."""
        hidden = self._hidden(batch)
        loss = self._loss(plain(self.loss), hidden, batch)
        if "perplexity" in self.metrics:
            first = first_term(loss)
            self.metrics["perplexity"].update(first.sum, first.count)
        if "accuracy" in self.metrics:
            self.metrics["accuracy"].update(count_right(hidden, self._output(), batch.targets), batch.tokens)
        return StepOutput(loss)

    def test_step(self, batch: TextBatch) -> StepOutput:
        """As in validation."""
        return self.validation_step(batch)

    def _hidden(self, batch: TextBatch) -> Tensor:
        """The last hidden layer [B, T, M], or the logits of a model of the user's own."""
        mask = sides_mask(batch.inputs == PAD, batch.documents, torch.float32)  # layers convert it
        match self.model:
            case MaskedEncoder() as encoder:
                return encoder.hidden(batch.inputs, mask)
            case Decoder() as decoder:
                return decoder.hidden(batch.inputs, None, batch.positions, mask=mask)
        return self.model(batch.inputs)  # type: ignore[no-any-return]

    def _output(self) -> Tensor | None:
        """The matrix that makes logits; None where they are there already."""
        match self.model:
            case MaskedEncoder() | Decoder() as model:
                return model.output_weight[: model.vocabulary]
        return None

    def _loss(self, loss: LossFunction, hidden: Tensor, batch: TextBatch) -> Terms:
        match self._output(), loss:
            case Tensor() as weight_VM, (CrossEntropy() | CrossEntropyWithZ() as fused):
                return fused.from_hidden(hidden, weight_VM, batch.targets, count=batch.tokens)
            case Tensor() as weight_VM, _:
                hidden = nn.functional.linear(hidden, weight_VM)
        return loss_of(loss, hidden, batch.targets, batch.tokens)
