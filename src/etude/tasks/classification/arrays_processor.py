"""What a run over arrays keeps: means and deviations of their features, and what is predicted."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar, final

import numpy as np
import torch
from torch import Tensor, nn

from etude.base.errors import DataError, RefusedError, StorageError
from etude.base.files import read_json, whole_folder, write_json
from etude.data.files.arrays import array_of, read_array
from etude.data.files.lines import Flaw, is_blank
from etude.data.store.arrays import Features
from etude.data.store.targets import Targets, targets_of
from etude.model.frames.classifier import FrameClassifier
from etude.model.frames.encoders import build_encoder
from etude.tasks.classification.audio_config import Pooled
from etude.tasks.classification.inputs import SampleProcessor
from etude.tasks.classification.task import Inputs, Reader

ARRAYS = "arrays.json"
A = TypeVar("A")


@final
@dataclass(frozen=True)
class ArrayProcessor(SampleProcessor):
    """Statistics of features, and what is predicted."""

    features: Features
    targets: Targets

    def save(self, folder: Path) -> None:
        """Write both, all or nothing; a run keeps those it began with."""
        if folder.is_dir():
            return
        with whole_folder(folder, "write", replace=True) as part:
            write_json(part / ARRAYS, {"features": self.features.plain(), "targets": self.targets.plain()})

    @classmethod
    def stored(cls, folder: Path) -> Self:
        """What `save` wrote. Raises RefusedError where it is not there, StorageError where it is damaged."""
        path = folder / ARRAYS
        if not path.exists():
            raise RefusedError(f"{folder} does not hold the features of a run: {ARRAYS} is missing.")
        plain = read_json(path)
        try:
            return cls(Features.of(plain["features"]), targets_of(plain["targets"]))
        except (KeyError, TypeError, ValueError) as error:
            raise StorageError(f"{path} is damaged: {error!r}.") from error

    def reader(self) -> Reader:
        """Reads an array a line."""
        return ArrayReader(self.features)

    def offered(self) -> Mapping[str, object]:
        """How many features a place has."""
        return {"features": len(self.features.means)}

    def model(self, config: Any, outputs: int) -> nn.Module:
        """The classifier of the config's encoder."""
        given: Pooled = config.model
        encoder = build_encoder(config.model, len(self.features.means))
        return FrameClassifier(encoder, outputs, given.pooling, given.cut)

    def sizes(self, config: Any) -> str:
        """The type of the model."""
        return f'The sizes of model.type = "{config.model.type}"'


@final
class ArrayReader(Reader):
    """Arrays: a line names an .npy file, or is a JSON list of numbers, or of lists of them."""

    def __init__(self, features: Features) -> None:
        self._features = features

    def line_of(self, given: Any) -> Any:
        """An array as a JSON list; a path as it is."""
        match given:
            case np.ndarray() | Tensor():
                return json.dumps(given.tolist())
            case list():
                return json.dumps(given)
            case Path():
                return str(given)
        return given

    def answered(
        self, lines: Sequence[str], batch_size: int, answer: Callable[[Inputs], Sequence[A]], nothing: A
    ) -> Sequence[A]:
        """Answer arrays in batches, in order; `nothing` of a line that is blank."""
        found = [nothing] * len(lines)
        rows = [(place, self._read(line)) for place, line in enumerate(lines) if not is_blank(line)]
        for begin in range(0, len(rows), batch_size):
            batch = rows[begin : begin + batch_size]
            arrays = [array for _, array in batch]
            inputs = nn.utils.rnn.pad_sequence(arrays, batch_first=True), torch.tensor([*map(len, arrays)])
            for (place, _), one in zip(batch, answer(inputs), strict=True):
                found[place] = one
        return found

    def _read(self, line: str) -> Tensor:
        array = _listed(line) if line.lstrip().startswith("[") else read_array(Path(line.strip()))
        standard = array if isinstance(array, Flaw) else self._features.standard(array)
        if isinstance(standard, Flaw):
            raise DataError(f"{standard.reason}.")
        return torch.from_numpy(standard)


def _listed(line: str) -> Any:
    try:
        return array_of(json.loads(line))
    except (ValueError, RecursionError) as error:
        return Flaw(f"the line is no JSON: {error}")
