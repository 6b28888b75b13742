"""Tables of numbers and categories as inputs."""

from collections.abc import Sequence
from pathlib import Path
from typing import final

from etude.base.says import Say
from etude.tasks.classification.sample_type import SampleType
from etude.tasks.classification.tabular_config import TabularRun
from etude.tasks.classification.tabular_data import Rows, prepare
from etude.tasks.classification.tabular_processor import TabularProcessor


@final
class Tabular(SampleType[TabularRun, TabularProcessor]):
    """Rows in, labels or numbers out."""

    config = TabularRun

    def example(self, config: TabularRun) -> str:
        """Rows of a table."""
        del config
        return "rows.csv"

    def processor(self, config: TabularRun, folder: Path) -> TabularProcessor:
        """The columns that a run has kept."""
        del config
        return TabularProcessor.stored(folder)

    def open(
        self, config: TabularRun, splits: Sequence[str], say: Say, processor: TabularProcessor | None = None
    ) -> Rows:
        """Open and encode splits."""
        return prepare(config, splits, say, processor)


TABULAR = Tabular()
