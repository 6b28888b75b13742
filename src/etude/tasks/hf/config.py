"""What a config says of a run of the hf task: how it predicts, and what it is tuned on."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from etude.base.config.components import Imported, component
from etude.base.config.fields import Switch
from etude.base.config.meaning import means
from etude.data.files.header import Choice
from etude.data.files.names import ColumnField, SplitField
from etude.data.files.skipped import AllowanceField, Policy
from etude.data.files.table_file import TableForm
from etude.tasks.config import DataSection, TaskSection, TokensConfig
from etude.tasks.hf.folder import HfModelConfig
from etude.tasks.hf.generate import Options
from etude.tasks.hf.samples import Fields

Name = Annotated[str, Field(min_length=1)]


class HfConfig(TaskSection):
    """`[task] type = "hf"`: fine-tune a model of the transformers library."""

    type: Literal["hf"] = "hf"
    chat_template: bool = True
    """Put prompts through the tokenizer's chat template, if it has one; else the answer directly follows the prompt."""
    system: str = ""
    """System message before a prompt, in the chat template."""
    max_tokens: int = Field(256, ge=1)
    """Most tokens of a prediction."""
    temperature: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Temperature of prediction; 0 takes the most likely token each time."""
    top_k: Switch[int] = Field(None, ge=1)
    """With a temperature, sample from this many most likely tokens."""
    top_p: float = Field(1.0, gt=0, le=1)
    """With a temperature, sample from the most likely tokens with this total probability."""
    repetition_penalty: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Divides the scores of tokens that have occurred (Keskar et al. 2019)."""
    beam_size: Annotated[int, means("validation", resumable=True)] = Field(1, ge=1)
    """Width of the beam in prediction; 1 is greedy search."""
    length_penalty: Annotated[float, means("validation", resumable=True)] = Field(1.0, allow_inf_nan=False)
    """With a beam, predictions are ranked by log-probability / length^length_penalty."""
    seed: int = Field(1, ge=0)
    """Seed of the sampling with a temperature."""

    @field_validator("top_k", mode="before")
    @classmethod
    def _zero_is_off(cls, value: object) -> object:
        """Read the configs of older runs, in which 0 stood for all tokens."""
        return None if value == 0 else value

    @model_validator(mode="after")
    def _draws_or_searches(self) -> Self:
        if self.temperature > 0 and self.beam_size > 1:
            raise ValueError("temperature and beam_size exclude each other: set beam_size = 1, or temperature = 0")
        return self

    @property
    def options(self) -> Options:
        """How predictions are chosen."""
        return Options(
            self.max_tokens,
            self.temperature,
            self.top_k,
            self.top_p,
            self.repetition_penalty,
            self.beam_size,
            self.length_penalty,
            self.seed,
        )


class HfDataConfig(DataSection):
    """Data to fine-tune a model of the transformers library on."""

    train: Switch[SplitField] = None
    """Training data: text files (each a document), JSON lines (texts, prompts with answers, or conversations), a
    folder or a list of them, a .tsv or .csv file or two aligned files (prompts and answers), or a generated corpus by
    name."""

    val: Annotated[Switch[SplitField], means("validation", shared="always", governs=("stopping",))] = None
    """Validation data, given like `train`."""

    test: Annotated[Switch[SplitField], means("none", shared="always")] = None
    """Test data, given like `train`."""

    text: Name = "text"
    """The field of JSON lines that holds a text."""

    prompt: Name = "prompt"
    """The field that holds a prompt, ..."""

    answer: Name = "answer"
    """... and the field of its answer; only the answer counts in the loss."""

    messages: Name = "messages"
    """The field that holds a conversation: a list of messages with role and content; the loss is on the assistant's."""

    source: ColumnField = "source"
    """The column or field of the prompt, of tables and of JSON lines without the fields above."""

    target: ColumnField = "target"
    """The column or field of the answer there."""

    header: Choice = "auto"
    """Whether the first line of a table names its columns; `"auto"` looks for `source` and `target` in it."""

    quotes: Choice = "auto"
    """Whether cells of a table may stand in quotes, as spreadsheets write them; `"auto"` is true for a .csv file and
    for a table with tabs whose every quote says so."""

    block_size: Switch[int] = Field(None, ge=1)
    """Tokens of a row of text; longer texts are cut. Default: 1024, or the model's positions if it has fewer."""

    packing: Switch[Literal["documents"]] = None
    """Whether a row holds several texts, conversations or prompts up to `block_size` tokens, none of which sees
    another; a row then counts as one sample."""

    max_length: Switch[int] = Field(None, ge=1)
    """Most tokens of a prompt with its answer, or of a conversation; a longer one is a bad sample."""

    workers: Annotated[int, means("none", shared="always")] = Field(default=0, ge=0)
    """Processes that load batches in parallel with training; 0 loads in the training process."""

    on_bad_sample: Literal["error", "skip"] = "error"
    """What to do with a bad sample: end the run with its place and reason, or leave it out and list it."""

    max_skipped: AllowanceField = "1%"
    """How many samples may be left out, as a number or as a share of the data; more are an error."""

    @property
    def fields(self) -> Fields:
        """What the fields of JSON lines are called."""
        return Fields(self.text, self.prompt, self.answer, self.messages)

    @property
    def form(self) -> TableForm:
        """How tables are written."""
        return TableForm(self.header, self.quotes)

    @property
    def policy(self) -> Policy:
        """What the section says about bad samples."""
        return Policy(self.max_length, self.on_bad_sample, self.max_skipped)


class HfRun(TokensConfig):
    """A run that fine-tunes a model of the transformers library; the model brings its tokenizer."""

    kind = "hf"

    task: Annotated[HfConfig | Imported, component({"hf": HfConfig})]
    data: HfDataConfig = HfDataConfig()
    model: Annotated[HfModelConfig, component({"hf": HfModelConfig}, "hf")]
