"""What a config says of a run of the hf task: how it predicts, and what it is tuned on."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from etude.base.config.components import Imported, component
from etude.base.config.fields import Switch
from etude.base.config.meaning import means
from etude.data.files.names import ColumnField, SplitField
from etude.data.files.skipped import AllowanceField, Policy
from etude.tasks.config import DataSection, TaskSection, TokensConfig
from etude.tasks.hf.folder import HfModelConfig
from etude.tasks.hf.generate import Options
from etude.tasks.hf.samples import Fields

Name = Annotated[str, Field(min_length=1)]


class HfConfig(TaskSection):
    """`[task] type = "hf"`: fine-tune a model of the transformers library."""

    type: Literal["hf"] = "hf"
    chat_template: bool = True
    """Put prompts through the tokenizer's chat template, where it has one; else the answer follows the prompt as is."""
    system: str = ""
    """What the system says before a prompt, in the chat template."""
    max_tokens: int = Field(256, ge=1)
    """The longest prediction."""
    temperature: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Of prediction; 0 takes the likeliest token each time."""
    top_k: Switch[int] = Field(None, ge=1)
    """With a temperature, draw from so many of the likeliest tokens."""
    top_p: float = Field(1.0, gt=0, le=1)
    """With a temperature, draw from the likeliest tokens that together have this probability."""
    repetition_penalty: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Divides the scores of tokens that are there already (Keskar et al. 2019)."""
    beam_size: Annotated[int, means("validation", resumable=True)] = Field(1, ge=1)
    """Width of the beam in prediction; 1 searches greedily."""
    length_penalty: Annotated[float, means("validation", resumable=True)] = Field(1.0, allow_inf_nan=False)
    """With a beam, predictions are ranked by log-probability / length^length_penalty."""
    seed: int = Field(1, ge=0)
    """Of what a temperature draws."""

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
    """What a model of the transformers library is tuned on."""

    train: Switch[SplitField] = None
    """What is trained on: text files (each a document), JSON lines (texts, prompts with answers, or conversations), a
    folder or a list of them, a .tsv file or two aligned files (prompts and answers), or a generated corpus by name."""

    val: Annotated[Switch[SplitField], means("validation", shared="always", governs=("stopping",))] = None
    """What training is judged by, given like `train`."""

    test: Annotated[Switch[SplitField], means("none", shared="always")] = None
    """What is looked at once training is over, given like `train`."""

    text: Name = "text"
    """The field of JSON lines that holds a text."""

    prompt: Name = "prompt"
    """The field that holds a prompt, ..."""

    answer: Name = "answer"
    """... and the one of its answer, on which alone the loss is."""

    messages: Name = "messages"
    """The field that holds a conversation: a list of messages with role and content; the loss is on the assistant's."""

    source: ColumnField = "source"
    """The column or field of the prompt, of tables and of JSON lines without the fields above."""

    target: ColumnField = "target"
    """The column or field of the answer there."""

    block_size: Switch[int] = Field(None, ge=1)
    """Tokens of a row of text; longer texts are cut. Unless given 1024, or the model's positions where it has fewer."""

    packing: Switch[Literal["documents"]] = None
    """Whether a row holds several texts, conversations or prompts up to `block_size` tokens, none of which sees
    another; a row then counts as one sample."""

    max_length: Switch[int] = Field(None, ge=1)
    """The longest prompt with its answer, and the longest conversation, in tokens, that is no bad sample."""

    workers: Annotated[int, means("none", shared="always")] = Field(default=0, ge=0)
    """How many processes load batches beside training; 0 loads in the training process."""

    on_bad_sample: Literal["error", "skip"] = "error"
    """What a sample that cannot be used does: end the run with its place and reason, or be left out and listed."""

    max_skipped: AllowanceField = "1%"
    """How many samples may be left out, as a number or as a share of the data; more are an error."""

    @property
    def fields(self) -> Fields:
        """What the fields of JSON lines are called."""
        return Fields(self.text, self.prompt, self.answer, self.messages)

    @property
    def policy(self) -> Policy:
        """What the section says about bad samples."""
        return Policy(self.max_length, self.on_bad_sample, self.max_skipped)


class HfRun(TokensConfig):
    """A run that tunes a model of the transformers library; the model brings its tokenizer."""

    kind = "hf"

    task: Annotated[HfConfig | Imported, component({"hf": HfConfig})]
    data: HfDataConfig = HfDataConfig()
    model: Annotated[HfModelConfig, component({"hf": HfModelConfig}, "hf")]
