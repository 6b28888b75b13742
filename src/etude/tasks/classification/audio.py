"""Recordings as inputs."""

from collections.abc import Sequence
from pathlib import Path
from typing import final

from etude.base.says import Say
from etude.tasks.best_lines import BestLines
from etude.tasks.classification.answering import Labels
from etude.tasks.classification.audio_config import SoundRun
from etude.tasks.classification.audio_data import Sounds, prepare
from etude.tasks.classification.audio_processor import SoundProcessor
from etude.tasks.classification.build import build_task
from etude.tasks.classification.flags import FLAGS
from etude.tasks.classification.own_form import data_of
from etude.tasks.classification.task import ClassificationTask
from etude.tasks.own_form import write_own_form
from etude.tasks.recordings import heard
from etude.tasks.task_type import Kept, Predictor, TaskType
from etude.train.task import Task


@final
class Audio(TaskType[SoundRun, SoundProcessor]):
    """Recordings in, labels or numbers out."""

    config = SoundRun
    flags = FLAGS

    def example(self, config: SoundRun) -> str:
        """A recording."""
        del config
        return "recording.wav"

    def processor(self, config: SoundRun, folder: Path) -> SoundProcessor:
        """How a run hears, and what it predicts."""
        return SoundProcessor.stored(folder, config.data)

    def open(
        self, config: SoundRun, splits: Sequence[str], say: Say, processor: SoundProcessor | None = None
    ) -> Sounds:
        """Open and read splits."""
        return prepare(config, splits, say, processor)

    def task(self, config: SoundRun, processor: SoundProcessor) -> Task:
        """The task with its model, initialised."""
        return build_task(config, processor)

    def predictor(self, task: Task) -> Predictor:
        """Answers recordings."""
        match task:
            case ClassificationTask():
                return Labels(task)
        return BestLines(task)

    def export(self, task: Task, kept: Kept, folder: Path) -> str:
        """Write Etude's own form: transformers has no such model."""
        data = data_of(kept)
        return write_own_form(task, kept, folder, {"data": {**data["data"], **heard(kept.plain["data"])}})


AUDIO = Audio()
