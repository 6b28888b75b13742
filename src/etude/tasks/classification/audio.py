"""Recordings as inputs."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import final

from etude.base.says import Say
from etude.tasks.classification.audio_config import SoundRun
from etude.tasks.classification.audio_data import Sounds, prepare
from etude.tasks.classification.audio_processor import SoundProcessor
from etude.tasks.classification.sample_type import SampleType
from etude.tasks.recordings import files_heard, heard
from etude.tasks.task_type import Kept


@final
class Audio(SampleType[SoundRun, SoundProcessor]):
    """Recordings in, labels or numbers out."""

    config = SoundRun

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

    def files(self, config: SoundRun, split: str) -> Iterable[Path]:
        """Manifests, and recordings."""
        return files_heard(config, config.data, split)

    def read_by(self, kept: Kept) -> Mapping[str, object]:
        """How a model hears."""
        return heard(kept.plain["data"])


AUDIO = Audio()
