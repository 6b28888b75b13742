"""What all kinds of input of the classification are as types of task."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from etude.tasks.best_lines import BestLines
from etude.tasks.classification.answering import Labels
from etude.tasks.classification.build import build_task
from etude.tasks.classification.config import SampleRun
from etude.tasks.classification.flags import FLAGS
from etude.tasks.classification.inputs import SampleProcessor
from etude.tasks.classification.own_form import data_of
from etude.tasks.classification.task import ClassificationTask
from etude.tasks.own_form import write_own_form
from etude.tasks.task_type import Kept, Predictor, TaskType
from etude.train.task import Task

C_contra = TypeVar("C_contra", bound=SampleRun, contravariant=True)
P = TypeVar("P", bound=SampleProcessor)


class SampleType(TaskType[C_contra, P]):
    """Samples in, labels or numbers out; an input adds its config, how it is opened, and what is kept of it."""

    flags = FLAGS

    def task(self, config: C_contra, processor: P) -> Task:
        """The task with its model, initialised."""
        return build_task(config, processor)

    def predictor(self, task: Task) -> Predictor:
        """Answers samples."""
        match task:
            case ClassificationTask():
                return Labels(task)
        return BestLines(task)

    def export(self, task: Task, kept: Kept, folder: Path) -> str:
        """Write Etude's own form: transformers has no such model."""
        return write_own_form(task, kept, folder, {"data": {**data_of(kept), **self.read_by(kept)}})

    def read_by(self, kept: Kept) -> Mapping[str, object]:
        """Further keys of `[data]` that an exported model is used with."""
        del kept
        return {}
