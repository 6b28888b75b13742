"""What a run over texts keeps: its tokenizer, and its labels with how often training has each, or its numbers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar, final

from torch import nn

from etude.base.errors import RefusedError, StorageError
from etude.base.files import read_json, whole_folder, write_json
from etude.data.store.targets import OneLabel, Targets, targets_of
from etude.data.tokens.tokenizers import PAD, Tokenizer
from etude.model.classifier import TextClassifier
from etude.tasks.by_length import batches_by_length, by_length, encoded, padded
from etude.tasks.classification.inputs import SampleProcessor
from etude.tasks.classification.task import Inputs, Reader
from etude.tasks.parts import stored_tokenizer
from etude.tasks.sharing import Places

SHARED, LABELS, TARGETS = "shared.json", "labels.json", "targets.json"
A = TypeVar("A")


@final
@dataclass(frozen=True)
class LabelProcessor(SampleProcessor):
    """A tokenizer for the texts, and what they are labelled with."""

    tokenizer: Tokenizer
    targets: Targets

    @property
    def labels(self) -> tuple[str, ...]:
        """Sorted; the number of a label is its place."""
        return tuple(self.targets.names)

    def save(self, folder: Path) -> None:
        """Write both, all or nothing; a run keeps those it began with."""
        if folder.is_dir():
            return
        with whole_folder(folder, "write", replace=True) as part:
            self.tokenizer.save(part / SHARED)
            match self.targets:
                case OneLabel(names=labels, counts=counts):
                    write_json(part / LABELS, {"labels": labels, "counts": counts})
                case other:
                    write_json(part / TARGETS, other.plain())

    @classmethod
    def stored(cls, folder: Path) -> Self:
        """What `save` wrote. Raises RefusedError where it is not there, StorageError where it is damaged."""
        kept = TARGETS if (folder / TARGETS).exists() else LABELS
        missing = next((name for name in (SHARED, kept) if not (folder / name).exists()), None)
        if missing is not None:
            raise RefusedError(f"{folder} does not hold the tokenizer and labels of a run: {missing} is missing.")
        return cls(stored_tokenizer(folder / SHARED), _targets(folder / kept))

    def reader(self) -> Reader:
        """Reads a text a line."""
        return TextReader(self.tokenizer)

    def offered(self) -> Mapping[str, object]:
        """Tokenizer, vocabulary and padding."""
        return {"tokenizer": self.tokenizer, "vocabulary": self.tokenizer.size, "pad": PAD}

    def model(self, config: Any, outputs: int) -> nn.Module:
        """The classifier of the config's encoder."""
        return TextClassifier(config.model, self.tokenizer.size, outputs, PAD)

    def sizes(self, config: Any) -> str:
        """The width."""
        return f"model.d_model = {config.model.d_model} and its other sizes"


@final
class TextReader(Reader):
    """Texts, those of similar length together."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def answered(
        self, lines: Sequence[str], batch_size: int, answer: Callable[[Inputs], Sequence[A]], nothing: A
    ) -> Sequence[A]:
        """Answer lines in batches, in order; `nothing` of one that is blank."""
        tokens = encoded(self._tokenizer, lines)
        return by_length(tokens, batch_size, lambda texts: answer((padded(texts),)), nothing)

    def together(self, lines: Sequence[str], batch_size: int) -> list[Places]:
        """Which lines are answered together: those of similar length."""
        return batches_by_length(encoded(self._tokenizer, lines), batch_size)


def _targets(path: Path) -> Targets:
    """What texts are labelled with, as it was kept. Raises StorageError where it is damaged."""
    match read_json(path):
        case {"labels": [*labels], "counts": [*counts]} if len(labels) == len(counts) > 1:
            return OneLabel("label", tuple(map(str, labels)), tuple(map(int, counts)))
        case {"kind": _} as plain:
            try:
                return targets_of(plain)
            except (KeyError, TypeError, ValueError) as error:
                raise StorageError(f"{path} is damaged: {error!r}.") from error
    raise StorageError(f"{path} is damaged: it must hold labels and as many counts.")
