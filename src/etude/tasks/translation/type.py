"""Translation, and every other task from a sequence to a sequence, as a type of task."""

from collections.abc import Sequence
from pathlib import Path
from typing import final

from etude.base.says import Say
from etude.tasks.best_lines import BestLines
from etude.tasks.own_form import write_own_form
from etude.tasks.parts import is_own_loss
from etude.tasks.task_type import Kept, Predictor, TaskType
from etude.tasks.translation.build import build_task
from etude.tasks.translation.config import TranslationRun
from etude.tasks.translation.data import Pairs, prepare
from etude.tasks.translation.flags import FLAGS
from etude.tasks.translation.predictor import Translations
from etude.tasks.translation.processor import PairProcessor
from etude.tasks.translation.task import TranslationTask
from etude.train.task import Task


@final
class TranslationType(TaskType[TranslationRun, PairProcessor]):
    """Pairs of texts in, translations out."""

    config = TranslationRun
    flags = FLAGS

    def processor(self, config: TranslationRun, folder: Path) -> PairProcessor:
        """The tokenizers that a run has kept."""
        del config
        return PairProcessor.stored(folder)

    def open(
        self, config: TranslationRun, splits: Sequence[str], say: Say, processor: PairProcessor | None = None
    ) -> Pairs:
        """Open and tokenise splits."""
        return prepare(config, splits, say, processor)

    def task(self, config: TranslationRun, processor: PairProcessor) -> Task:
        """The task with its model, initialised."""
        return build_task(config, processor)

    def counts_all_targets(self, config: TranslationRun) -> bool:
        """Whether the loss is Etude's own."""
        return is_own_loss(config)

    def predictor(self, task: Task) -> Predictor:
        """Translates lines."""
        match task:
            case TranslationTask():
                return Translations(task)
        return BestLines(task)

    def export(self, task: Task, kept: Kept, folder: Path) -> str:
        """Write Etude's own form: transformers has no such model."""
        return write_own_form(task, kept, folder)


TRANSLATION = TranslationType()
