"""What a config says of a run over texts with labels or numbers: which files hold them, and its models."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from etude.base.config.components import Imported, component
from etude.base.config.fields import PathField, PathOr, Switch
from etude.base.config.meaning import means
from etude.base.config.section import Section
from etude.data.files.header import Choice
from etude.data.files.names import ColumnField, ColumnName, labelled_corpus_names
from etude.data.files.skipped import AllowanceField, Policy
from etude.data.files.table_file import TableForm
from etude.data.tokens.config import TokenizerPair
from etude.model.classifier import TextEncoderConfig
from etude.model.encoder import EmbeddingConfig, EncoderConfig
from etude.model.recurrent_encoder import RecurrentEncoderConfig
from etude.tasks.classification.config import SampleRun
from etude.tasks.classification.tabular_config import Names, several
from etude.tasks.config import DataSection

MODELS: dict[str, type[Section]] = {
    "encoder": EncoderConfig,
    "embedding": EmbeddingConfig,
    "lstm": RecurrentEncoderConfig,
    "gru": RecurrentEncoderConfig,
}
Source = Annotated[Path | str, PathOr(labelled_corpus_names)] | Annotated[tuple[PathField, ...], Field(min_length=1)]
"""What holds one part of the data: a file, several, or a generated corpus by name."""


class LabelledDataConfig(DataSection):
    """Files of labelled texts, and what to do about bad samples."""

    exclusive = (("labels", "targets"),)
    foreign = dict.fromkeys(
        ("source", "target", "difficulty", "max_difficulty", "easy_first_epochs"),
        'it is for pairs of texts, as of task.type = "translation"',
    ) | dict.fromkeys(
        ("document_separator", "split", "split_by", "block_size", "packing"),
        'it is for text, as of task.type = "language_model"',
    )

    type: Literal["text"] = "text"
    """What samples are; `"tabular"` reads rows of numbers and categories."""

    train: Switch[Source] = None
    """Training data: a .tsv, .csv, .txt, .jsonl or .ndjson file, a list of them, or a generated corpus by name."""

    val: Annotated[Switch[Source], means("validation", shared="always", governs=("stopping",))] = None
    """Validation data, given like `train`."""

    test: Annotated[Switch[Source], means("none", shared="always")] = None
    """Test data, given like `train`."""

    text: ColumnField = "text"
    """The column or field of the text; a number counts columns from 1 and says that the file names none."""

    label: ColumnField = "label"
    """The column or field of the label."""

    labels: Switch[Names] = None
    """In place of `label`, with several labels a text: a column for each, or the one that lists them."""

    separator: Annotated[str, Field(min_length=1)] = ";"
    """What stands between the labels of a text."""

    targets: Switch[Names] = None
    """In place of `label`: columns of numbers that are predicted."""

    header: Choice = "auto"
    """Whether the first line of a table names its columns; `"auto"` looks for `text` and `label` in it."""

    quotes: Choice = "auto"
    """Whether cells of a table may stand in quotes, as spreadsheets write them; `"auto"` is true for a .csv file and
    for a table with tabs whose every quote says so."""

    workers: Annotated[int, means("none", shared="always")] = Field(default=0, ge=0)
    """Processes that load batches in parallel with training; 0 loads in the training process."""

    max_length: Switch[Annotated[int, Field(ge=1)]] = None
    """Most tokens of a text (the end not counted); a longer sample is a bad sample."""

    on_bad_sample: Literal["error", "skip"] = "error"
    """What to do with a bad sample: end the run with its place and reason, or leave it out and list it."""

    max_skipped: AllowanceField = "1%"
    """How many samples may be left out, as a number or as a share of the data; more are an error."""

    @property
    def predicted(self) -> tuple[ColumnName, ...]:
        """The columns of what is predicted."""
        names = self.labels or self.targets
        return (self.label,) if names is None else several(names)

    @property
    def further(self) -> tuple[ColumnName, ...]:
        """Those of several, which are read beside the text."""
        return self.predicted if len(self.predicted) > 1 else ()

    @property
    def target(self) -> ColumnName:
        """The column that is read with the text; of several none is, and it is the text's own."""
        return self.text if self.further else self.predicted[0]

    @property
    def form(self) -> TableForm:
        """How tables are written."""
        return TableForm(self.header, self.quotes)

    @property
    def policy(self) -> Policy:
        """What the section says about bad samples."""
        return Policy(self.max_length, self.on_bad_sample, self.max_skipped)


class ClassificationRun(SampleRun):
    """A run over labelled texts."""

    data: LabelledDataConfig = LabelledDataConfig()
    model: Annotated[TextEncoderConfig | Imported, component(MODELS, "encoder")] = EncoderConfig()

    @model_validator(mode="after")
    def _one_tokenizer(self) -> Self:
        match self.tokenizer:
            case TokenizerPair():
                raise ValueError("tokenizer must be one for all text, but has a source and a target")
        return self
