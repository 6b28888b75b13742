"""Arrays of numbers as inputs."""

from collections.abc import Sequence
from pathlib import Path
from typing import final

from etude.base.says import Say
from etude.tasks.best_lines import BestLines
from etude.tasks.classification.answering import Labels
from etude.tasks.classification.arrays_config import ArrayRun
from etude.tasks.classification.arrays_data import Arrays, prepare
from etude.tasks.classification.arrays_processor import ArrayProcessor
from etude.tasks.classification.build import build_task
from etude.tasks.classification.flags import FLAGS
from etude.tasks.classification.own_form import data_of
from etude.tasks.classification.task import ClassificationTask
from etude.tasks.own_form import write_own_form
from etude.tasks.task_type import Kept, Predictor, TaskType
from etude.train.task import Task


@final
class ArrayInputs(TaskType[ArrayRun, ArrayProcessor]):
    """Arrays in, labels or numbers out."""

    config = ArrayRun
    flags = FLAGS

    def processor(self, config: ArrayRun, folder: Path) -> ArrayProcessor:
        """The statistics that a run has kept."""
        del config
        return ArrayProcessor.stored(folder)

    def open(
        self, config: ArrayRun, splits: Sequence[str], say: Say, processor: ArrayProcessor | None = None
    ) -> Arrays:
        """Open and standardise splits."""
        return prepare(config, splits, say, processor)

    def task(self, config: ArrayRun, processor: ArrayProcessor) -> Task:
        """The task with its model, initialised."""
        return build_task(config, processor)

    def predictor(self, task: Task) -> Predictor:
        """Answers arrays."""
        match task:
            case ClassificationTask():
                return Labels(task)
        return BestLines(task)

    def export(self, task: Task, kept: Kept, folder: Path) -> str:
        """Write Etude's own form: transformers has no such model."""
        return write_own_form(task, kept, folder, data_of(kept))


ARRAYS = ArrayInputs()
