"""What a language model's run keeps: its tokenizer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from etude.base.errors import RefusedError
from etude.base.files import whole_folder
from etude.data.tokens.tokenizers import Tokenizer
from etude.tasks.parts import stored_tokenizer
from etude.tasks.task_type import Processor

SHARED = "shared.json"


@dataclass(frozen=True)
class TextProcessor(Processor):
    """One tokenizer for all text."""

    tokenizer: Tokenizer

    def save(self, folder: Path) -> None:
        """Write the tokenizer; a run keeps the one it began with."""
        if folder.is_dir():
            return
        with whole_folder(folder, "write", replace=True) as part:
            self.tokenizer.save(part / SHARED)

    @classmethod
    def stored(cls, folder: Path) -> Self:
        """What `save` wrote. Raises RefusedError where it is not there, StorageError where it is damaged."""
        path = folder / SHARED
        if not path.exists():
            raise RefusedError(f"{folder} does not hold the tokenizer of a run: {SHARED} is missing.")
        return cls(stored_tokenizer(path))
