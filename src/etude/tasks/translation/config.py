"""What a config says of a run of the translation task: how it translates, and which files hold the pairs."""

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from etude.base.config.components import Imported, component
from etude.base.config.fields import Switch
from etude.base.config.meaning import means
from etude.base.config.section import Section
from etude.base.schedules import largest, scheduled
from etude.data.files.header import Choice
from etude.data.files.names import ColumnField, SplitField
from etude.data.files.skipped import AllowanceField, Policy
from etude.data.files.table_file import TableForm
from etude.data.tokens.config import TokenizerPair
from etude.metrics.text import TEXT_METRICS
from etude.model.transformer import TransformerConfig
from etude.tasks.config import DataSection, TaskSection, TokensConfig

TextMetric = Literal["bleu", "chrf"]
MODELS: dict[str, type[Section]] = {"transformer": TransformerConfig}


class TranslationConfig(TaskSection):
    """`[task] type = "translation"`."""

    type: Literal["translation"] = "translation"
    beam_size: Annotated[int, means("validation", resumable=True)] = Field(4, ge=1)
    """Width of the beam in test and predict; 1 is greedy search."""
    length_penalty: Annotated[float, means("validation", resumable=True)] = Field(1.0, ge=0, allow_inf_nan=False)
    """Hypotheses are ranked by log-probability / ((5 + length) / 6)^length_penalty; 0 prefers short ones."""
    max_target_ratio: float = Field(2.0, gt=0, allow_inf_nan=False)
    """A translation has at most max_target_ratio x source tokens + max_target_extra tokens, ..."""
    max_target_extra: int = Field(10, ge=0)
    """... so short sources may grow, ..."""
    max_target_length: int = Field(512, ge=1)
    """... and never more than this."""
    eval_search_samples: Annotated[int, means("validation")] = Field(500, ge=0)
    """Validation translates this many first samples of the file, greedily; test translates all."""
    metrics: Annotated[list[TextMetric], means("validation")] = Field(
        default_factory=lambda: list(get_args(TextMetric))
    )
    """Text metrics, by sacrebleu."""


class DataConfig(DataSection):
    """Files of pairs, and what to do about bad samples."""

    foreign = dict.fromkeys(
        ("text", "document_separator", "split", "split_by", "block_size", "packing"),
        'it is for text, as of task.type = "language_model"',
    )

    train: Switch[SplitField] = None
    """Training data: a .tsv, .csv, .txt, .jsonl or .ndjson file, a list of them, two aligned files
    `{ source = "train.en", target = "train.de" }`, or a generated corpus by name."""

    val: Annotated[Switch[SplitField], means("validation", shared="always", governs=("stopping",))] = None
    """Validation data, given like `train`."""

    test: Annotated[Switch[SplitField], means("none", shared="always")] = None
    """Test data, given like `train`."""

    source: ColumnField = "source"
    """The column or field of the source text; a number counts columns from 1 and says that the file names none."""

    target: ColumnField = "target"
    """The column or field of the target text."""

    header: Choice = "auto"
    """Whether the first line of a table names its columns; `"auto"` looks for `source` and `target` in it."""

    quotes: Choice = "auto"
    """Whether cells of a table may stand in quotes, as spreadsheets write them; `"auto"` is true for a .csv file and
    for a table with tabs whose every quote says so."""

    workers: Annotated[int, means("none", shared="always")] = Field(default=0, ge=0)
    """Processes that load batches in parallel with training; 0 loads in the training process."""

    max_length: Switch[scheduled(ge=1, whole=True)] = None  # type: ignore[valid-type]
    """Most tokens of either side (the end not counted); a longer sample is a bad sample. As a schedule: the
    most of an epoch, read at its beginning; longer samples wait."""

    order: Literal["shuffled", "sorted", "easy_first"] = "shuffled"
    """Order of the samples in an epoch: shuffled; sorted, the easiest first; easy_first sorts at first, then
    shuffles. Easy is short or, with `difficulty`, what that says."""

    easy_first_epochs: Annotated[int, Field(ge=1)] = 1
    """How many epochs take the easiest first with `order = "easy_first"`."""

    difficulty: Switch[ColumnField] = None
    """The column or field of a number that says how difficult a sample is to learn."""

    max_difficulty: Switch[scheduled()] = None  # type: ignore[valid-type]
    """The greatest `difficulty` that takes part in training; a schedule is read at the beginning of an epoch."""

    on_bad_sample: Literal["error", "skip"] = "error"
    """What to do with a bad sample: end the run with its place and reason, or leave it out and list it."""

    max_skipped: AllowanceField = "1%"
    """How many samples may be left out, as a number or as a share of the data; more are an error."""

    @model_validator(mode="after")
    def _difficulty_is_said(self) -> Self:
        if self.max_difficulty is not None and self.difficulty is None:
            raise ValueError(
                "data.max_difficulty needs data.difficulty, which names the column of each sample's difficulty, but "
                "data.difficulty is not set"
            )
        return self

    @property
    def form(self) -> TableForm:
        """How tables are written."""
        return TableForm(self.header, self.quotes)

    @property
    def policy(self) -> Policy:
        """What the section says about bad samples; one that is only too long for the present epoch is none."""
        longest = self.max_length if isinstance(self.max_length, int) else None
        return Policy(longest, self.on_bad_sample, self.max_skipped)

    @property
    def longest(self) -> int | None:
        """The most tokens of either side that any epoch takes, as far as the config tells."""
        return None if self.max_length is None else largest(self.max_length)


class TranslationRun(TokensConfig):
    """A run over pairs of texts."""

    kind = "translation"

    task: Annotated[TranslationConfig | Imported, component({"translation": TranslationConfig})]
    data: DataConfig = DataConfig()
    model: Annotated[TransformerConfig | Imported, component(MODELS, "transformer")] = TransformerConfig()

    @model_validator(mode="after")
    def _sides_fit(self) -> Self:
        match self.model, self.tokenizer:
            case TransformerConfig(share_embeddings=True), TokenizerPair():
                raise ValueError("model.share_embeddings needs one tokenizer for both sides, but [tokenizer] has two")
        return self

    @model_validator(mode="after")
    def _what_is_watched_is_measured(self) -> Self:
        watched = self.train.monitor
        match self.task:
            case TranslationConfig(eval_search_samples=0) if watched in {f"val/{name}" for name in TEXT_METRICS}:
                raise ValueError(
                    f"train.monitor cannot be {watched} with task.eval_search_samples = 0: nothing is translated"
                )
        return self
