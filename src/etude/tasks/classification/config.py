"""What a config says of a run of the classification task: what it measures, and which files hold the samples."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from etude.base.config.components import Imported, component
from etude.base.config.fields import PathField, PathOr, Switch
from etude.base.config.meaning import means
from etude.base.config.section import Section
from etude.data.files.header import Choice
from etude.data.files.names import ColumnField, labelled_corpus_names
from etude.data.files.skipped import AllowanceField, Policy
from etude.data.files.table_file import TableForm
from etude.data.tokens.config import TokenizerPair
from etude.model.encoder import EmbeddingConfig, EncoderConfig
from etude.model.losses import LossConfig, MeanSquaredErrorConfig
from etude.tasks.config import Config, DataSection, TaskSection
from etude.train.config import Split, SplitsField, TrainConfig

ClassMetric = Literal["accuracy", "balanced_accuracy", "f1_macro", "f1_per_class"]
USUAL: tuple[ClassMetric, ...] = ("accuracy", "balanced_accuracy", "f1_macro")
SAVED: tuple[Split, ...] = ("val", "test")
"""Splits whose outputs are saved unless the config says otherwise."""
MODELS: dict[str, type[Section]] = {"encoder": EncoderConfig, "embedding": EmbeddingConfig}
Source = Annotated[Path | str, PathOr(labelled_corpus_names)] | Annotated[tuple[PathField, ...], Field(min_length=1)]
"""What holds one part of the data: a file, several, or a generated corpus by name."""


class ClassificationConfig(TaskSection):
    """`[task] type = "classification"`."""

    type: Literal["classification"] = "classification"
    class_weights: Switch[Literal["balanced"]] = None
    """Weigh each class in the training loss; balanced: by samples / (classes x samples of the class)."""
    metrics: Annotated[list[ClassMetric], means("validation")] = Field(default_factory=lambda: list(USUAL))
    """What is measured, as scikit-learn defines it; `f1_per_class` gives `f1/LABEL` of every label."""


class LabelledDataConfig(DataSection):
    """Files of labelled texts, and what to do about bad samples."""

    foreign = dict.fromkeys(
        ("source", "target", "difficulty", "max_difficulty", "easy_first_epochs"),
        'it is for pairs of texts, as of task.type = "translation"',
    ) | dict.fromkeys(
        ("document_separator", "split", "split_by", "block_size", "packing"),
        'it is for text, as of task.type = "language_model"',
    )

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
    def form(self) -> TableForm:
        """How tables are written."""
        return TableForm(self.header, self.quotes)

    @property
    def policy(self) -> Policy:
        """What the section says about bad samples."""
        return Policy(self.max_length, self.on_bad_sample, self.max_skipped)


class ClassificationTrainConfig(TrainConfig):
    """How to train a classifier: as anything else, but its outputs are saved unless said otherwise."""

    save_outputs: SplitsField = Field(default_factory=lambda: list(SAVED))


class ClassificationRun(Config):
    """A run over labelled texts."""

    kind = "classification"

    task: Annotated[ClassificationConfig | Imported, component({"classification": ClassificationConfig})]
    data: LabelledDataConfig = LabelledDataConfig()
    model: Annotated[EncoderConfig | EmbeddingConfig | Imported, component(MODELS, "encoder")] = EncoderConfig()
    train: ClassificationTrainConfig = ClassificationTrainConfig()

    @model_validator(mode="after")
    def _one_tokenizer(self) -> Self:
        match self.tokenizer:
            case TokenizerPair():
                raise ValueError("tokenizer must be one for all text, but has a source and a target")
        return self

    @model_validator(mode="after")
    def _classes_are_predicted(self) -> Self:
        match self.task, self.loss:
            case ClassificationConfig(), MeanSquaredErrorConfig():
                raise ValueError(
                    'loss.type "mse" compares numbers, but classification predicts labels: take "cross_entropy"'
                )
        return self

    @model_validator(mode="after")
    def _weights_fit_the_loss(self) -> Self:
        match self.task, self.loss:
            case ClassificationConfig(class_weights=None) | Imported(), _:
                return self
            case _, LossConfig(z_loss=0.0):
                return self
        raise ValueError('task.class_weights needs loss.type = "cross_entropy" without loss.z_loss')
