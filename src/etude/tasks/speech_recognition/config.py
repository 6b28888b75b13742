"""What a config says of a run of speech recognition: how it searches and what it measures, losses, model and files."""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from etude.base.config.components import Imported, component
from etude.base.config.fields import PathField, Switch
from etude.base.config.meaning import means
from etude.base.config.section import Section
from etude.data.files.names import TRANSCRIBED, ColumnField
from etude.data.tokens.config import TOKENIZERS, CharConfig, TokenizerConfig, TokenizerKind
from etude.model.frames.blstm import BlstmConfig
from etude.model.frames.conformer import ConformerConfig
from etude.model.losses import ImportedLoss
from etude.model.losses.config import LossSection
from etude.model.rates import Rate, is_constant
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


class FramewiseConfig(LossSection):
    """`type = "framewise"`: cross entropy of each frame's class in an alignment."""

    type: Literal["framewise"] = "framewise"
    alignments: PathField
    """What `etude align` wrote: the `alignments` folder of a run, in which `train` and `val` are found by their names,
    or the folder of one alignment, which is that of the training data."""
    max_missing: int = Field(0, ge=0)
    """Most recordings of a split that may have no alignment, or one of another length; they are left out."""
    label_smoothing: Rate = 0.0
    """Share of each frame's mass spread over all classes, in training only."""


LOSSES: dict[str, type[Section]] = {"ctc": CtcConfig, "framewise": FramewiseConfig}
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
    loss: Annotated[CtcConfig | FramewiseConfig | ImportedLoss, component(LOSSES, "ctc", ImportedLoss)] = CtcConfig()
    train: SpeechTrainConfig = SpeechTrainConfig()

    @model_validator(mode="after")
    def _loss_is_ours(self) -> Self:
        match self.task, self.loss:
            case SpeechConfig(), ImportedLoss():
                raise ValueError("loss.type of a custom loss needs a task of your own, since this one has its heads")
        return self

    @model_validator(mode="after")
    def _frames_are_as_aligned(self) -> Self:
        if isinstance(self.loss, FramewiseConfig):
            for key, advice in self._not_aligned():
                raise ValueError(f'{key} cannot be used with loss.type "framewise": {advice}')
        return self

    def _not_aligned(self) -> Iterator[tuple[str, str]]:
        """What would change which frames a recording has, or is asked of frames that are not known."""
        augment = self.data.augment
        for name, strength in (("speed", augment.speed), ("tempo", augment.tempo), ("shift", augment.shift)):
            if not is_constant(strength) or strength != 0:
                yield f"data.augment.{name}", "an alignment is of recordings whose sounds are left where they are"
        if self.data.join is not None:
            yield "data.join", "an alignment is of recordings as they are"
        if isinstance(self.model, Imported):
            yield "A model of one's own", "how many frames it makes is not known"
        if isinstance(self.task, SpeechConfig) and self.task.beam_size > 1:
            yield "task.beam_size above 1", "its search is greedy"
