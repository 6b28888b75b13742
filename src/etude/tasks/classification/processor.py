"""What a classification's run keeps: its tokenizer, and its labels with how often training has each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from etude.base.errors import RefusedError, StorageError
from etude.base.files import read_json, whole_folder, write_json
from etude.data.tokens.tokenizers import Tokenizer
from etude.tasks.parts import stored_tokenizer
from etude.tasks.task_type import Processor

SHARED, LABELS = "shared.json", "labels.json"


@dataclass(frozen=True)
class LabelProcessor(Processor):
    """A tokenizer for the texts, and the label set."""

    tokenizer: Tokenizer
    labels: tuple[str, ...]
    """Sorted; the number of a label is its place."""
    counts: tuple[int, ...]
    """Samples of each label in the training data."""

    def save(self, folder: Path) -> None:
        """Write both, all or nothing; a run keeps those it began with."""
        if folder.is_dir():
            return
        with whole_folder(folder, "write", replace=True) as part:
            self.tokenizer.save(part / SHARED)
            write_json(part / LABELS, {"labels": self.labels, "counts": self.counts})

    @classmethod
    def stored(cls, folder: Path) -> Self:
        """What `save` wrote. Raises RefusedError where it is not there, StorageError where it is damaged."""
        missing = next((name for name in (SHARED, LABELS) if not (folder / name).exists()), None)
        if missing is not None:
            raise RefusedError(f"{folder} does not hold the tokenizer and labels of a run: {missing} is missing.")
        match read_json(folder / LABELS):
            case {"labels": [*labels], "counts": [*counts]} if len(labels) == len(counts) > 1:
                return cls(stored_tokenizer(folder / SHARED), tuple(map(str, labels)), tuple(map(int, counts)))
        raise StorageError(f"{folder / LABELS} is damaged: it must hold labels and as many counts.")
