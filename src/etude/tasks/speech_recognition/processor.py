"""What a run of speech recognition keeps: its tokenizer, and how it hears."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from etude.base.errors import RefusedError, StorageError
from etude.base.files import read_json, whole_folder, write_json
from etude.data.tokens.tokenizers import PAD, Tokenizer
from etude.tasks.parts import stored_tokenizer
from etude.tasks.recordings import Sound
from etude.tasks.task_type import Processor

SHARED, SOUND = "shared.json", "sound.json"
BLANK = PAD
"""The class of CTC and transducers that is no label: padding, which no transcript holds."""


@dataclass(frozen=True)
class SpeechProcessor(Processor):
    """A tokenizer for transcripts, and rate and statistics of audio."""

    tokenizer: Tokenizer
    sound: Sound

    def save(self, folder: Path) -> None:
        """Write both, all or nothing; a run keeps those it began with."""
        if folder.is_dir():
            return
        with whole_folder(folder, "write", replace=True) as part:
            self.tokenizer.save(part / SHARED)
            write_json(part / SOUND, self.sound.facts())

    @classmethod
    def stored(cls, folder: Path) -> Self:
        """What `save` wrote. Raises RefusedError where it is not there, StorageError where it is damaged."""
        missing = next((name for name in (SHARED, SOUND) if not (folder / name).exists()), None)
        if missing is not None:
            raise RefusedError(f"{folder} does not hold what a run of speech recognition keeps: {missing} is missing.")
        try:
            sound = Sound.of(read_json(folder / SOUND))
        except (KeyError, TypeError, ValueError) as error:
            raise StorageError(f"{folder / SOUND} is damaged: it must hold a rate and statistics.") from error
        return cls(stored_tokenizer(folder / SHARED), sound)
