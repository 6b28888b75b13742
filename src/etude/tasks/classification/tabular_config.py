"""What a config says of a run over tables of numbers and categories: which files hold them, and its model."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from etude.base.config.components import Imported, component
from etude.base.config.fields import PathField, PathOr, Switch
from etude.base.config.meaning import means
from etude.base.config.section import Section
from etude.data.files.header import Choice
from etude.data.files.names import tabular_corpus_names
from etude.data.files.skipped import AllowanceField, Policy
from etude.model.tabular import TabularConfig
from etude.tasks.classification.config import SampleRun
from etude.tasks.config import DataSection

MODELS: dict[str, type[Section]] = {"tabular": TabularConfig}
Source = Annotated[Path | str, PathOr(tabular_corpus_names)] | Annotated[tuple[PathField, ...], Field(min_length=1)]
"""What holds one part of the data: a file, several, or a generated corpus by name."""
Name = Annotated[str, Field(min_length=1)]
Names = Name | Annotated[tuple[Name, ...], Field(min_length=1)]


class TabularDataConfig(DataSection):
    """Tables of numbers and categories with labels or numbers to predict, and what to do about bad samples."""

    exclusive = (("label", "labels", "targets"),)

    type: Literal["tabular"]
    """Says that samples are rows of a table; without it they are texts."""

    train: Switch[Source] = None
    """Training data: a .csv, .tsv, .txt, .jsonl, .ndjson or .parquet file, a list of them, or a generated corpus."""

    val: Annotated[Switch[Source], means("validation", shared="always", governs=("stopping",))] = None
    """Validation data, given like `train`."""

    test: Annotated[Switch[Source], means("none", shared="always")] = None
    """Test data, given like `train`."""

    inputs: Switch[Names] = None
    """The columns that the model sees; default: all but those that are predicted."""

    categories: tuple[Name, ...] = ()
    """Columns whose numbers are names, such as postcodes; those of words are found without it."""

    label: Switch[Name] = "label"
    """The column of the label."""

    labels: Switch[Names] = None
    """In place of `label`, with several labels a sample: a column for each, or the one that lists them."""

    separator: Name = ";"
    """What stands between labels in the one column that lists them."""

    targets: Switch[Names] = None
    """In place of `label`: columns of numbers that are predicted."""

    quotes: Choice = "auto"
    """Whether cells of a table may stand in quotes, as spreadsheets write them; `"auto"` is true for a .csv file and
    for a table with tabs whose every quote says so."""

    workers: Annotated[int, means("none", shared="always")] = Field(default=0, ge=0)
    """Processes that load batches in parallel with training; 0 loads in the training process."""

    on_bad_sample: Literal["error", "skip"] = "error"
    """What to do with a bad sample: end the run with its place and reason, or leave it out and list it."""

    max_skipped: AllowanceField = "1%"
    """How many samples may be left out, as a number or as a share of the data; more are an error."""

    @property
    def policy(self) -> Policy:
        """What the section says about bad samples."""
        return Policy(None, self.on_bad_sample, self.max_skipped)

    @property
    def predicted(self) -> tuple[str, ...]:
        """The columns that are predicted."""
        return several(self.labels or self.targets or self.label)


def several(names: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """One name, or several, as several."""
    match names:
        case None:
            return ()
        case str():
            return (names,)
    return names


class TabularRun(SampleRun):
    """A run over tables."""

    data: TabularDataConfig = TabularDataConfig(type="tabular")
    model: Annotated[TabularConfig | Imported, component(MODELS, "tabular")] = TabularConfig()
