"""Tables of numbers and categories as inputs."""

from collections.abc import Sequence
from pathlib import Path
from typing import final

from etude.base.says import Say
from etude.tasks.best_lines import BestLines
from etude.tasks.classification.answering import Labels
from etude.tasks.classification.build import build_task
from etude.tasks.classification.flags import FLAGS
from etude.tasks.classification.own_form import data_of
from etude.tasks.classification.tabular_config import TabularRun
from etude.tasks.classification.tabular_data import Rows, prepare
from etude.tasks.classification.tabular_processor import TabularProcessor
from etude.tasks.classification.task import ClassificationTask
from etude.tasks.own_form import write_own_form
from etude.tasks.task_type import Kept, Predictor, TaskType
from etude.train.task import Task


@final
class Tabular(TaskType[TabularRun, TabularProcessor]):
    """Rows in, labels or numbers out."""

    config = TabularRun
    flags = FLAGS

    def example(self, config: TabularRun) -> str:
        """Rows of a table."""
        del config
        return "rows.csv"

    def processor(self, config: TabularRun, folder: Path) -> TabularProcessor:
        """The columns that a run has kept."""
        del config
        return TabularProcessor.stored(folder)

    def open(
        self, config: TabularRun, splits: Sequence[str], say: Say, processor: TabularProcessor | None = None
    ) -> Rows:
        """Open and encode splits."""
        return prepare(config, splits, say, processor)

    def task(self, config: TabularRun, processor: TabularProcessor) -> Task:
        """The task with its model, initialised."""
        return build_task(config, processor)

    def predictor(self, task: Task) -> Predictor:
        """Answers rows."""
        match task:
            case ClassificationTask():
                return Labels(task)
        return BestLines(task)

    def export(self, task: Task, kept: Kept, folder: Path) -> str:
        """Write Etude's own form: transformers has no such model."""
        return write_own_form(task, kept, folder, data_of(kept))


TABULAR = Tabular()
