"""What a config says of a run of speech recognition: how it searches and what it measures, losses, model and files."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from etude.base.config.components import Imported, component
from etude.base.config.fields import Switch
from etude.base.config.meaning import means
from etude.base.config.section import Section
from etude.data.files.names import TRANSCRIBED, ColumnField
from etude.data.tokens.config import TOKENIZERS, CharConfig, TokenizerConfig, TokenizerKind
from etude.model.frames.blstm import BlstmConfig
from etude.model.frames.conformer import ConformerConfig
from etude.model.losses import ImportedLoss
from etude.model.losses.config import LossSection
from etude.tasks.config import Config, TaskSection
from etude.tasks.recordings import RecordingsSection
from etude.train.config import Split, SplitsField, TrainConfig

ErrorRate = Literal["token_error_rate", "word_error_rate", "character_error_rate"]
USUAL: tuple[ErrorRate, ...] = ("word_error_rate", "character_error_rate")
SAVED: tuple[Split, ...] = ("val", "test")
"""Splits whose outputs are saved unless the config says otherwise."""


class SpeechConfig(TaskSection):
    """`[task] type = "speech_recognition"`."""

    type: Literal["speech_recognition"] = "speech_recognition"
    beam_size: Annotated[int, means("validation", resumable=True)] = Field(1, ge=1)
    """Width of the beam in test and predict; 1 is greedy search. Validation searches greedily."""
    metrics: Annotated[list[ErrorRate], means("validation")] = Field(default_factory=lambda: list(USUAL))
    """Error rates to measure; each also counts insertions, deletions and substitutions."""


class CtcConfig(LossSection):
    """`type = "ctc"`: connectionist temporal classification (Graves et al. 2006)."""

    type: Literal["ctc"] = "ctc"


LOSSES: dict[str, type[Section]] = {"ctc": CtcConfig}
MODELS: dict[str, type[Section]] = {"conformer": ConformerConfig, "blstm": BlstmConfig}


class SpeechDataConfig(RecordingsSection):
    """Recordings with what is said in them."""

    foreign = dict.fromkeys(
        ("source", "difficulty", "max_difficulty", "easy_first_epochs"),
        'it is for pairs of texts, as of task.type = "translation"',
    ) | dict.fromkeys(
        ("document_separator", "split", "split_by", "block_size", "packing"),
        'it is for text, as of task.type = "language_model"',
    )
    roles = TRANSCRIBED

    transcript: ColumnField = "transcript"
    """The column of what is said; it may be empty."""

    max_length: Switch[Annotated[int, Field(ge=1)]] = None
    """Most tokens of a transcript; a longer one makes a bad sample."""

    @property
    def text_column(self) -> str | int:
        """The column of what is said in a recording."""
        return self.transcript


class SpeechTrainConfig(TrainConfig):
    """How to train on speech: as on anything else, but its outputs are saved unless said otherwise."""

    save_outputs: SplitsField = Field(default_factory=lambda: list(SAVED))


class SpeechRun(Config):
    """A run over transcribed recordings."""

    kind = "speech_recognition"

    task: Annotated[SpeechConfig | Imported, component({"speech_recognition": SpeechConfig})]
    data: SpeechDataConfig = SpeechDataConfig()
    tokenizer: Annotated[
        TokenizerConfig,
        TokenizerKind(TOKENIZERS, "char"),
        means(shared="never", why="the weights belong to the tokens they were trained on"),
    ] = CharConfig()
    model: Annotated[ConformerConfig | BlstmConfig | Imported, component(MODELS, "conformer")] = ConformerConfig()
    loss: Annotated[CtcConfig | ImportedLoss, component(LOSSES, "ctc", ImportedLoss)] = CtcConfig()
    train: SpeechTrainConfig = SpeechTrainConfig()

    @model_validator(mode="after")
    def _loss_is_ours(self) -> Self:
        match self.task, self.loss:
            case SpeechConfig(), ImportedLoss():
                raise ValueError("loss.type of a custom loss needs a task of your own, since this one has its heads")
        return self
