"""Classification as a type of task: what depends on a kind of input is asked of that."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, final

from etude.base.errors import ConfigError
from etude.base.says import Say
from etude.tasks.classification.arrays import ARRAYS
from etude.tasks.classification.audio import AUDIO
from etude.tasks.classification.config import SampleRun
from etude.tasks.classification.flags import FLAGS
from etude.tasks.classification.onnx import write_classifier
from etude.tasks.classification.tabular import TABULAR
from etude.tasks.classification.texts import TEXTS
from etude.tasks.classification.texts_config import ClassificationRun, LabelledDataConfig
from etude.tasks.config import Config
from etude.tasks.task_type import Data, Kept, Predictor, Processor, TaskType
from etude.train.task import Task

Input = TaskType[Any, Any]
INPUTS: Mapping[str, Input] = {"text": TEXTS, "tabular": TABULAR, "audio": AUDIO, "arrays": ARRAYS}
"""Kinds of input, by the name that `data.type` takes; the first is taken unless the config names one."""


class MistypedData(LabelledDataConfig):
    """What `[data]` is read as that names no input, so that it is said which there are."""

    type: Literal["text", "tabular", "audio", "arrays"] = "text"  # type: ignore[assignment]


class MistypedRun(ClassificationRun):
    """A run over such data, which is never made."""

    data: MistypedData = MistypedData()


@final
class ClassificationType(TaskType[Any, Any]):
    """Samples in, labels or numbers out."""

    config = TEXTS.config
    flags = FLAGS

    def configs(self) -> Sequence[type[Config]]:
        """Those of all inputs."""
        return [found.config for found in INPUTS.values()]

    def config_of(self, config: Mapping[str, object]) -> type[Config]:
        """That of the input that `data.type` names; where there is none, reading it says which there are."""
        match config:
            case {"data": {"type": str() as name}} if name in INPUTS:
                return INPUTS[name].config
            case {"data": {"type": _}}:
                return MistypedRun
        return TEXTS.config

    def example(self, config: Config) -> str:
        """That of the input."""
        return _of(config).example(config)

    def recognises(self, config: Mapping[str, object]) -> bool:
        """Whether the data name a kind of input."""
        match config:
            case {"data": {"type": str() as name}}:
                return name in INPUTS
        return False

    def processor(self, config: Config, folder: Path) -> Processor:
        """What a run has kept."""
        found: Processor = _of(config).processor(config, folder)
        return found

    def open(self, config: SampleRun, splits: Sequence[str], say: Say, processor: Any = None) -> Data[Any]:
        """Open and prepare splits. Raises ConfigError for thresholds that nothing would choose."""
        if config.chooses_thresholds and "train" in splits and not config.validates:
            raise ConfigError('task.thresholds = "f1" is chosen by validations: give data.val, or thresholds yourself.')
        return _of(config).open(config, splits, say, processor)

    def files(self, config: Config, split: str) -> Iterable[Path]:
        """Those that the input knows."""
        return _of(config).files(config, split)

    def task(self, config: Config, processor: Processor) -> Task:
        """The task with its model, initialised."""
        return _of(config).task(config, processor)

    def counts_all_targets(self, config: Config) -> bool:
        """Whether the loss counts every sample."""
        return _of(config).counts_all_targets(config)

    def predictor(self, task: Task) -> Predictor:
        """Answers lines."""
        return TEXTS.predictor(task)

    def export(self, task: Task, kept: Kept, folder: Path) -> str:
        """Write Etude's own form."""
        return _of(kept.config).export(task, kept, folder)

    def onnx(self, task: Task, kept: Kept, folder: Path) -> str:
        """Write the model as ONNX."""
        return write_classifier(task, kept, folder)


def _of(config: Config) -> Input:
    """The input of a config."""
    return next(found for found in INPUTS.values() if isinstance(config, found.config))


CLASSIFICATION = ClassificationType()
