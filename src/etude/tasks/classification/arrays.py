"""Arrays of numbers as inputs."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import final

from etude.base.says import Say, unheard
from etude.tasks.classification.arrays_config import ArrayRun
from etude.tasks.classification.arrays_data import Arrays, open_split, prepare
from etude.tasks.classification.arrays_processor import ArrayProcessor
from etude.tasks.classification.sample_type import SampleType


@final
class ArrayInputs(SampleType[ArrayRun, ArrayProcessor]):
    """Arrays in, labels or numbers out."""

    config = ArrayRun

    def processor(self, config: ArrayRun, folder: Path) -> ArrayProcessor:
        """The statistics that a run has kept."""
        del config
        return ArrayProcessor.stored(folder)

    def open(
        self, config: ArrayRun, splits: Sequence[str], say: Say, processor: ArrayProcessor | None = None
    ) -> Arrays:
        """Open and standardise splits."""
        return prepare(config, splits, say, processor)

    def files(self, config: ArrayRun, split: str) -> Iterable[Path]:
        """The table, and the files that it names."""
        if config.data.split_of(split) is None:
            return ()
        return [*super().files(config, split), *open_split(config, split, unheard).files()]


ARRAYS = ArrayInputs()
