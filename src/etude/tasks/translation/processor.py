"""What a run over pairs keeps: the tokenizers of both sides."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from etude.base.errors import RefusedError
from etude.base.files import whole_folder
from etude.data.files.parallel import SIDES
from etude.data.tokens.tokenizers import Tokenizer
from etude.tasks.parts import stored_tokenizer
from etude.tasks.task_type import Processor

SHARED = "shared.json"


@dataclass(frozen=True)
class PairProcessor(Processor):
    """A tokenizer for each side, or one for both."""

    source: Tokenizer
    target: Tokenizer

    @property
    def tokenizers(self) -> dict[str, Tokenizer]:
        """By side."""
        return {"source": self.source, "target": self.target}

    @property
    def shared(self) -> bool:
        """Whether one tokenizer serves both sides."""
        return self.source is self.target

    def save(self, folder: Path) -> None:
        """Write both sides' tokenizers, a shared one once, all or none; a run keeps those it began with."""
        if folder.is_dir():
            return
        with whole_folder(folder, "write", replace=True) as part:
            if self.shared:
                self.source.save(part / SHARED)
                return
            for side, tokenizer in self.tokenizers.items():
                tokenizer.save(part / f"{side}.json")

    @classmethod
    def stored(cls, folder: Path) -> Self:
        """What `save` wrote. Raises RefusedError where it is not there, StorageError where it is damaged."""
        shared = folder / SHARED
        if shared.exists():
            tokenizer = stored_tokenizer(shared)
            return cls(tokenizer, tokenizer)
        missing = [side for side in SIDES if not (folder / f"{side}.json").exists()]
        if missing:
            raise RefusedError(f"{folder} does not hold the tokenizers of a run: {missing[0]}.json is missing.")
        return cls(*(stored_tokenizer(folder / f"{side}.json") for side in SIDES))
