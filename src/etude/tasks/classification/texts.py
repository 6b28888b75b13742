"""Texts as inputs."""

from collections.abc import Sequence
from pathlib import Path
from typing import final

from etude.base.says import Say
from etude.tasks.best_lines import BestLines
from etude.tasks.classification.answering import Labels
from etude.tasks.classification.build import build_task
from etude.tasks.classification.flags import FLAGS
from etude.tasks.classification.own_form import data_of
from etude.tasks.classification.processor import LabelProcessor
from etude.tasks.classification.task import ClassificationTask
from etude.tasks.classification.texts_config import ClassificationRun
from etude.tasks.classification.texts_data import LabelledTexts, prepare
from etude.tasks.own_form import write_own_form
from etude.tasks.parts import is_own_loss
from etude.tasks.task_type import Kept, Predictor, TaskType
from etude.train.task import Task


@final
class Texts(TaskType[ClassificationRun, LabelProcessor]):
    """Texts in, labels or numbers out."""

    config = ClassificationRun
    flags = FLAGS

    def processor(self, config: ClassificationRun, folder: Path) -> LabelProcessor:
        """The tokenizer and the labels that a run has kept."""
        del config
        return LabelProcessor.stored(folder)

    def open(
        self, config: ClassificationRun, splits: Sequence[str], say: Say, processor: LabelProcessor | None = None
    ) -> LabelledTexts:
        """Open and tokenise splits."""
        return prepare(config, splits, say, processor)

    def task(self, config: ClassificationRun, processor: LabelProcessor) -> Task:
        """The task with its model, initialised."""
        return build_task(config, processor)

    def counts_all_targets(self, config: ClassificationRun) -> bool:
        """Whether the loss is Etude's own."""
        return is_own_loss(config)

    def predictor(self, task: Task) -> Predictor:
        """Classifies lines."""
        match task:
            case ClassificationTask():
                return Labels(task)
        return BestLines(task)

    def export(self, task: Task, kept: Kept, folder: Path) -> str:
        """Write Etude's own form: transformers has no such model."""
        return write_own_form(task, kept, folder, data_of(kept))


TEXTS = Texts()
