"""Classification and regression: what is predicted of whole samples, whatever a sample is.

Legend: B batch, K outputs of the model.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Protocol, TypeVar, final

from torch import Tensor, nn

from etude.base.errors import ConfigError, RefusedError
from etude.data.files.lines import is_blank
from etude.metrics.groups import BY_GROUP, ByGroup
from etude.metrics.thresholds import ThresholdSearch
from etude.tasks.classification.goals.goal import NOTHING, Answer, Goal
from etude.tasks.parts import Terms
from etude.tasks.sharing import Places, consecutive
from etude.tasks.task_type import Questions
from etude.train.evaluate import evaluating
from etude.train.task import StepOutput, Task
from etude.train.watch.metrics import Metric

A = TypeVar("A")
Inputs = tuple[Tensor, ...]
"""What a model is called with: [B, ...] each."""
CHOSEN = "goal.thresholds."
"""What the names of chosen thresholds among the weights begin with."""
THRESHOLDS = "thresholds"
"""The name of the metric that chooses thresholds."""


class SampleBatch(Protocol):
    """Some samples."""

    @property
    def inputs(self) -> Inputs:
        """What a model is called with."""

    @property
    def targets(self) -> Tensor:
        """What is true of each: [B] numbers of labels, or [B, K]."""

    @property
    def groups(self) -> Sequence[str]:
        """What metrics are by, of each sample; empty where they are of all."""

    @property
    def told(self) -> Mapping[str, Tensor]:
        """Further columns of saved outputs."""

    def __len__(self) -> int: ...


class Reader(Protocol):
    """Makes a model's inputs of what predictions are asked for."""

    def begins(self, line: str) -> bool:
        """Take in the first line of an input; whether it only says what the others hold, and is no sample.

        Raises DataError where it says what cannot be used.
        """
        del line
        return False

    def windows(self, questions: Questions) -> Iterator[list[str]]:
        """What is asked of, in windows of what is there: lines, unless overridden."""
        return questions.lines()

    def line_of(self, given: Any) -> Any:
        """What Python gives as a sample, as a line."""
        return given

    def answered(
        self, lines: Sequence[str], batch_size: int, answer: Callable[[Inputs], Sequence[A]], nothing: A
    ) -> Sequence[A]:
        """Answer lines in batches, in order; `nothing` of one that is blank.

        Raises DataError for one that cannot be read.
        """

    def together(self, lines: Sequence[str], batch_size: int) -> list[Places]:
        """Which lines, by their places, are answered together: those that follow each other, unless overridden."""
        return consecutive([place for place, line in enumerate(lines) if not is_blank(line)], batch_size)


@final
class ClassificationTask(Task):
    """A loss of what is true of each sample in training; metrics of what is predicted in validation and test.

    `model` maps the inputs of a batch to outputs [B, K], which `goal` reads. With `by_group`, metrics are of each group
    of the batches too. Without a reader there is no `predict`.
    """

    def __init__(self, model: nn.Module, goal: Goal, *, reader: Reader | None = None, by_group: bool = False) -> None:
        super().__init__()
        self.model = model
        self.goal = goal
        self.reader = reader
        self._by_group = by_group

    def configure_metrics(self) -> Mapping[str, Metric]:
        """What the goal asks for; anew for each pass. One that chooses thresholds comes first, and feeds the others."""
        metrics = self.goal.metrics()
        if self._by_group:
            metrics[BY_GROUP] = ByGroup(self.goal.metrics, self.goal.measure)
        if self.goal.thresholds is None or not self.goal.thresholds.choosing:
            return metrics
        return {THRESHOLDS: ThresholdSearch(self.goal.best_thresholds, partial(self._measure, metrics)), **metrics}

    def training_step(self, batch: SampleBatch) -> Terms:
        """The loss of each sample, smoothed and weighted as is asked for."""
        return self.goal.training_loss(self.model(*batch.inputs), batch.targets)

    def validation_step(self, batch: SampleBatch) -> StepOutput:
        """The plain loss; `outputs` holds what the goal keeps, [B, K]."""
        outputs_BK = self.model(*batch.inputs)
        kept_BK = self.goal.kept(outputs_BK)
        if THRESHOLDS in self.metrics:
            self.metrics[THRESHOLDS].update(batch.targets, kept_BK, batch.groups)
        elif self.metrics:
            self._measure(self.metrics, batch.targets, kept_BK, batch.groups)
        return StepOutput(self.goal.plain_loss(outputs_BK, batch.targets), outputs=kept_BK)

    def _measure(self, metrics: Mapping[str, Metric], targets: Tensor, kept_BK: Tensor, groups: Sequence[str]) -> None:
        self.goal.measure(metrics, targets, kept_BK)
        if BY_GROUP in metrics:
            metrics[BY_GROUP].update(groups, targets, kept_BK)

    def predict_step(self, batch: SampleBatch) -> list[Answer]:
        """What is predicted of each sample."""
        return self._answers(batch.inputs)

    def output_columns(self, batch: SampleBatch, outputs: Tensor | None) -> Mapping[str, Any]:
        """For saved outputs: target, prediction, scores and loss."""
        return {**self.goal.columns(batch.targets, outputs), **batch.told}

    def predict(self, lines: Iterable[str], *, batch_size: int = 64, window: int = 1024) -> Iterator[list[Answer]]:
        """Answer lines as they come, in order: for each what is predicted, as the only prediction.

        Up to `window` lines are read ahead, so that texts of similar length share a batch; a blank one has an empty
        answer. Raises ConfigError without a reader.
        """
        if self.reader is None:
            raise ConfigError("predict needs the tokenizer that the task was trained with: pass it to the task.")
        given = iter(lines)
        with evaluating(self):
            while block := list(islice(given, window)):
                found = self.reader.answered(block, batch_size, self._answers, NOTHING)
                yield from ([one] for one in found)

    def together(self, lines: Sequence[str], *, batch_size: int = 64) -> list[Places]:
        """Which of some lines, by their places, `predict` answers together."""
        return [] if self.reader is None else self.reader.together(lines, batch_size)

    @property
    def predicts_late(self) -> bool:
        """Whether a validation chooses the thresholds that its own samples are judged by."""
        return self.goal.thresholds is not None and self.goal.thresholds.late

    def fitting(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Weights without the thresholds that a run has chosen, where this task's are given.

        Raises RefusedError where they are to be among the weights, and are not.
        """
        given = {name: value for name, value in weights.items() if not name.startswith(CHOSEN)}
        if not self.predicts_late:
            return given
        if len(given) == len(weights):
            raise RefusedError(
                'task.thresholds = "f1" needs weights that were trained with it, which hold what was chosen: give '
                "numbers, or train anew."
            )
        return weights

    def predicted(self, kept_BK: Tensor) -> list[str]:
        """What is predicted of each sample, of what a validation or test step gave."""
        return [answer.text for answer in self.goal.answers(kept_BK)]

    def _answers(self, inputs: Inputs) -> list[Answer]:
        device = next(self.model.parameters()).device
        return self.goal.answers(self.goal.kept(self.model(*(part.to(device) for part in inputs))))
