"""Speech recognition as a type of task."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import final

from etude.base.errors import ConfigError
from etude.base.says import Say
from etude.tasks.aligners import Aligner
from etude.tasks.own_form import write_own_form
from etude.tasks.recordings import files_heard, heard
from etude.tasks.sounds import Ears
from etude.tasks.speech_recognition.aligning import SpeechAligner
from etude.tasks.speech_recognition.build import build_task
from etude.tasks.speech_recognition.config import SpeechRun
from etude.tasks.speech_recognition.data import Speech, prepare
from etude.tasks.speech_recognition.flags import FLAGS, check_stream
from etude.tasks.speech_recognition.onnx import write_recogniser
from etude.tasks.speech_recognition.predictor import Recogniser
from etude.tasks.speech_recognition.processor import SpeechProcessor
from etude.tasks.speech_recognition.task import SpeechTask
from etude.tasks.task_type import Kept, Predictor, TaskType
from etude.train.task import Task


@final
class SpeechRecognitionType(TaskType[SpeechRun, SpeechProcessor]):
    """Recordings in, transcripts out."""

    config = SpeechRun
    flags = FLAGS

    def example(self, config: SpeechRun) -> str:
        """A recording."""
        del config
        return "recording.wav"

    def processor(self, config: SpeechRun, folder: Path) -> SpeechProcessor:
        """The tokenizer and the audio's facts that a run has kept."""
        del config
        return SpeechProcessor.stored(folder)

    def open(
        self, config: SpeechRun, splits: Sequence[str], say: Say, processor: SpeechProcessor | None = None
    ) -> Speech:
        """Open and read splits."""
        return prepare(config, splits, say, processor)

    def files(self, config: SpeechRun, split: str) -> Iterable[Path]:
        """Manifests, and recordings."""
        return files_heard(config, config.data, split)

    def task(self, config: SpeechRun, processor: SpeechProcessor) -> Task:
        """The task with its model, initialised."""
        return build_task(config, processor)

    def check_flags(self, given: Mapping[str, object]) -> None:
        """Refuse flags of a stream that contradict each other."""
        check_stream(given)

    def predictor(self, task: Task) -> Predictor:
        """Transcribes recordings."""
        match task:
            case SpeechTask(ears=Ears() as ears):
                return Recogniser(task, ears)
        raise ConfigError(f"{type(task).__name__} does not predict from recordings; use its predict_step from Python.")

    def aligner(self, task: Task, config: SpeechRun, processor: SpeechProcessor) -> Aligner:
        """Aligns transcripts with recordings."""
        match task:
            case SpeechTask():
                return SpeechAligner(task, config, processor)
        return super().aligner(task, config, processor)

    def export(self, task: Task, kept: Kept, folder: Path) -> str:
        """Write Etude's own form."""
        loss = {name: value for name, value in kept.plain["loss"].items() if name not in {"terms", "weights"}}
        return write_own_form(task, kept, folder, {"data": heard(kept.plain["data"]), "loss": loss})

    def onnx(self, task: Task, kept: Kept, folder: Path) -> str:
        """Write encoder and CTC as ONNX."""
        return write_recogniser(task, kept, folder)


SPEECH_RECOGNITION = SpeechRecognitionType()
