"""A classifier or regressor as ONNX.

Legend: B samples, K labels or numbers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast, final

from torch import Tensor, nn

from etude.base.errors import ConfigError
from etude.model.encoder import EncoderConfig
from etude.tasks.classification.arrays_processor import ArrayProcessor
from etude.tasks.classification.audio_processor import SoundProcessor
from etude.tasks.classification.goals.goal import Goal
from etude.tasks.classification.goals.numbers import NumbersGoal
from etude.tasks.classification.goals.one_label import OneLabelGoal
from etude.tasks.classification.inputs import SampleProcessor
from etude.tasks.classification.processor import LabelProcessor
from etude.tasks.classification.tabular_processor import TabularProcessor
from etude.tasks.classification.task import ClassificationTask
from etude.tasks.onnx_form import BATCH, LENGTH, Drawing, Given, refuse_own, write_onnx
from etude.tasks.task_type import Kept, Processor
from etude.train.task import Task

LENGTHS = Given("lengths", "lengths", (BATCH,), about="how many of the places are a sample's own")


@final
class Outputs(nn.Module):
    """A model, and what its goal hands on of what it gives."""

    def __init__(self, model: nn.Module, goal: Goal) -> None:
        super().__init__()
        self.model = model
        self._goal = goal

    def forward(self, sample: Tensor, beside: Tensor | None = None) -> Tensor:
        """[B, K]; the exporter wants each input by a name of its own."""
        inputs = (sample,) if beside is None else (sample, beside)
        return self._goal.kept(self.model(*inputs))


def write_classifier(task: Task, kept: Kept, folder: Path) -> str:
    """Write it, and say what it is. Raises ConfigError."""
    match task:
        case ClassificationTask():
            _refuse(kept.plain["model"])
            processor = cast("SampleProcessor", kept.processor)
            return write_onnx(drawing_of(task, processor, _longest(kept)), kept, folder)
    raise refuse_own(kept)


def drawing_of(task: ClassificationTask, processor: SampleProcessor, longest: int) -> Drawing:
    """What a sample is in; log-probabilities, logits or standardised numbers out."""
    facts = {**_facts(processor), "targets": processor.targets.plain(), **_thresholds(task.goal, processor)}
    network = Outputs(task.model, task.goal)
    return Drawing(network, _inputs(processor), _outputs(task.goal), facts, longest)


def _inputs(processor: Processor) -> Sequence[Given]:
    match processor:
        case LabelProcessor(tokenizer=tokenizer):
            return [
                Given("tokens", "ids", (BATCH, LENGTH), tokenizer.size, "ids of tokens, 0 behind the end of a text")
            ]
        case TabularProcessor(inputs=columns):
            sizes = [column.size for column in columns.categories]
            numbers = Given("numbers", "gaps", (BATCH, len(columns.numbers)), about="standardised; NaN: missing")
            categories = Given("categories", "ids", (BATCH, len(sizes)), min(sizes, default=1), "0: not in training")
            return [numbers, categories]
        case SoundProcessor(front_end=front_end):
            return [Given("features", "numbers", (BATCH, LENGTH, front_end.width), about=str(front_end)), LENGTHS]
        case ArrayProcessor(features=features):
            sides = (BATCH, LENGTH, len(features.means))
            return [Given("features", "numbers", sides, about="standardised by means and deviations"), LENGTHS]
    raise TypeError(f"A {type(processor).__name__} has no inputs that are known.")


def _outputs(goal: Goal) -> Mapping[str, str]:
    match goal:
        case OneLabelGoal():
            return {"log_probabilities": "of each label, [batch, labels]"}
        case NumbersGoal():
            return {"standardised": "times the deviation of a number, and its mean added, [batch, numbers]"}
    return {"logits": "of each label, [batch, labels]; its probability is 1 / (1 + exp(-logit))"}


def _facts(processor: Processor) -> Mapping[str, object]:
    match processor:
        case LabelProcessor(tokenizer=tokenizer):
            return {"tokens": tokenizer.spell(range(tokenizer.size))}
        case TabularProcessor(inputs=columns):
            return {"columns": columns.plain()}
        case SoundProcessor(front_end=front_end):
            return {"rate": front_end.rate, "features": front_end.config.model_dump(mode="json")}
        case ArrayProcessor(features=features):
            return {"features": features.plain()}
    return {}


def _thresholds(goal: Goal, processor: SampleProcessor) -> Mapping[str, object]:
    """From which probability on labels are predicted, where that decides; of two labels that of the second."""
    if goal.thresholds is None:
        return {}
    values = goal.thresholds.in_force.tolist()
    return {"thresholds": dict(zip(processor.targets.names[-len(values) :], values, strict=True))}


def _refuse(model: Mapping[str, object]) -> None:
    """Refuse what is known to be exported for one size alone. Raises ConfigError that names the key."""
    match model:
        case {"type": "gru"}:
            raise ConfigError('model.type = "gru" has no ONNX form of any length: train with "lstm".')
        case {"windows": Mapping()}:
            raise ConfigError(
                "model.windows has no ONNX form of any length: cut into windows outside, and train without."
            )


def _longest(kept: Kept) -> int:
    """The longest batch that the model takes, as far as that matters here."""
    match kept.config:
        case object(model=EncoderConfig(positions="learned", max_positions=most)):
            return most
    return Drawing.longest
