"""What a config says of a run of speech recognition: how it searches and what it measures, losses, model and files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from etude.base.config.components import Imported, component
from etude.base.config.fields import PathField, Switch
from etude.base.config.meaning import means
from etude.base.config.section import Section
from etude.data.files.names import TRANSCRIBED, ColumnField
from etude.data.tokens.config import TOKENIZERS, CharConfig, TokenizerConfig, TokenizerKind
from etude.model.frames.attention import AttentionConfig
from etude.model.frames.blstm import BlstmConfig
from etude.model.frames.cnn import CnnConfig
from etude.model.frames.conformer import ConformerConfig
from etude.model.frames.transducer import TransducerConfig
from etude.model.losses import ImportedLoss
from etude.model.losses.config import LossSection
from etude.model.rates import Rate, is_constant
from etude.tasks.config import Config, TaskSection
from etude.tasks.recordings import RecordingsSection
from etude.train.config import Split, SplitsField, TrainConfig

ErrorRate = Literal["token_error_rate", "word_error_rate", "character_error_rate"]
HeadName = Literal["ctc", "transducer", "attention", "framewise"]
Framed = Literal["linear", "transducer"]
USUAL: tuple[ErrorRate, ...] = ("word_error_rate", "character_error_rate")
SAVED: tuple[Split, ...] = ("val", "test")
"""Splits whose outputs are saved unless the config says otherwise."""


class SpeechConfig(TaskSection):
    """`[task] type = "speech_recognition"`."""

    type: Literal["speech_recognition"] = "speech_recognition"
    beam_size: Annotated[int, means("validation", resumable=True)] = Field(1, ge=1)
    """Width of the beam in test and predict; 1 is greedy search. Validation searches greedily."""
    symbols_a_frame: Annotated[int, means("validation")] = Field(10, ge=1)
    """Most labels that a transducer says in one frame when it searches."""
    ctc_weight: Annotated[float, means("validation", resumable=True)] = Field(0.3, ge=0, le=1)
    """Share of CTC where attention and CTC search together (Watanabe et al. 2017)."""
    language_model: Annotated[Switch[PathField], means("validation", resumable=True)] = None
    """Fused with a beam: an n-gram model in ARPA form, or the folder of a run of the task `language_model`."""
    language_model_unit: Annotated[Literal["word", "token"], means("validation", resumable=True)] = "word"
    """What the words of an n-gram model are."""
    language_model_weight: Annotated[float, means("validation", resumable=True)] = Field(0.3, ge=0, allow_inf_nan=False)
    """Its log-probability counts times this."""
    token_bonus: Annotated[float, means("validation", resumable=True)] = Field(0.0, allow_inf_nan=False)
    """Added in nats for each token where a language model is fused, which likes few."""
    hot_words: Annotated[list[str], means("validation", resumable=True)] = Field(default_factory=list)
    """Words that are expected: a beam gives each of their tokens `hot_word_bonus`."""
    hot_word_bonus: Annotated[float, means("validation", resumable=True)] = Field(2.0, allow_inf_nan=False)
    """In nats, for each token of a hot word."""
    metrics: Annotated[list[ErrorRate], means("validation")] = Field(default_factory=lambda: list(USUAL))
    """Error rates to measure; each also counts insertions, deletions and substitutions."""
    by: Annotated[Switch[ColumnField], means("validation")] = None
    """A column of the data; error rates are also of each of its values, as `word_error_rate/by/VALUE`."""


class CtcConfig(LossSection):
    """`type = "ctc"`: connectionist temporal classification (Graves et al. 2006)."""

    type: Literal["ctc"] = "ctc"


class TransducerLossConfig(LossSection):
    """`type = "transducer"`: of a predictor and a joint network over the frames (Graves 2012)."""

    type: Literal["transducer"] = "transducer"
    joint_megabytes: int = Field(512, ge=1)
    """Logits of the joint network and their gradient are held up to this; of more they are made piece by piece."""


class AttentionLossConfig(LossSection):
    """`type = "attention"`: cross entropy of a decoder that attends to the frames."""

    type: Literal["attention"] = "attention"
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of each target's mass spread over all classes, in training only."""


class FramewiseConfig(LossSection):
    """`type = "framewise"`: cross entropy of each frame's class in an alignment."""

    type: Literal["framewise"] = "framewise"
    alignments: PathField
    """What `etude align` wrote: the `alignments` folder of a run, in which `train` and `val` are found by their names,
    or the folder of one alignment, which is that of the training data."""
    max_missing: int = Field(0, ge=0)
    """Most recordings of a split that may have no alignment, or one of another length; they are left out."""
    head: Framed = "linear"
    """What gives the classes: a linear layer over frames, or a transducer along the aligned path, which has the network
    of `type = "transducer"` and says a blank or one label in each frame."""
    label_smoothing: Rate = 0.0
    """Share of each frame's mass spread over all classes, in training only."""


class SumConfig(LossSection):
    """`type = "sum"`: of several heads over one encoder, each weighted by `loss.weights`, 1 unless given."""

    type: Literal["sum"] = "sum"
    heads: tuple[HeadName, ...] = Field(("attention", "ctc"), min_length=2)
    """The heads; the first searches, attention together with CTC."""
    joint_megabytes: int = Field(512, ge=1)
    """As of `transducer`."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """As of `attention` and `framewise`."""
    alignments: Switch[PathField] = None
    """As of `framewise`, for which it must be given."""
    max_missing: int = Field(0, ge=0)
    """As of `framewise`."""
    head: Framed = "linear"
    """As of `framewise`; the head of a transducer is called so, in `weights` too."""

    @model_validator(mode="after")
    def _are_different(self) -> Self:
        if len(set(self.names)) < len(self.names):
            raise ValueError('heads must name each head once; "framewise" with head = "transducer" is "transducer"')
        if ("framewise" in self.heads) != (self.alignments is not None):
            raise ValueError('alignments must be given for the head "framewise", and only for it')
        return self

    @property
    def names(self) -> tuple[HeadName, ...]:
        """What the heads are called in the model, in order."""
        return tuple(map(self._called, self.heads))

    def _called(self, name: HeadName) -> HeadName:
        return "transducer" if (name, self.head) == ("framewise", "transducer") else name


def aligned_loss(loss: LossSection) -> FramewiseConfig | None:
    """What a loss says of an alignment that it learns from; None where it learns from none."""
    match loss:
        case FramewiseConfig():
            return loss
        case SumConfig(alignments=Path() as alignments, max_missing=most, head=head, label_smoothing=share):
            return FramewiseConfig(alignments=alignments, max_missing=most, head=head, label_smoothing=share)
    return None


LOSSES: dict[str, type[Section]] = {
    "ctc": CtcConfig,
    "framewise": FramewiseConfig,
    "transducer": TransducerLossConfig,
    "attention": AttentionLossConfig,
    "sum": SumConfig,
}


SpeechLoss = CtcConfig | FramewiseConfig | TransducerLossConfig | AttentionLossConfig | SumConfig


class Headed(Section):
    """What heads are made with, as far as the loss asks for them."""

    transducer: TransducerConfig = TransducerConfig()
    attention: AttentionConfig = AttentionConfig()


class SpeechConformerConfig(ConformerConfig, Headed):
    """`[model] type = "conformer"`: a Conformer (Gulati et al. 2020), and heads over it."""


class SpeechBlstmConfig(BlstmConfig, Headed):
    """`[model] type = "blstm"`: LSTMs in both directions or one, and heads over them."""


class SpeechCnnConfig(CnnConfig, Headed):
    """`[model] type = "cnn"`: convolutions, which see as far as their kernels reach: quick; and heads over them."""


MODELS: dict[str, type[Section]] = {
    "conformer": SpeechConformerConfig,
    "blstm": SpeechBlstmConfig,
    "cnn": SpeechCnnConfig,
}


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
    model: Annotated[
        SpeechConformerConfig | SpeechBlstmConfig | SpeechCnnConfig | Imported, component(MODELS, "conformer")
    ] = SpeechConformerConfig()
    loss: Annotated[SpeechLoss | ImportedLoss, component(LOSSES, "ctc", ImportedLoss)] = CtcConfig()
    train: SpeechTrainConfig = SpeechTrainConfig()

    @model_validator(mode="after")
    def _loss_is_ours(self) -> Self:
        match self.task, self.loss:
            case SpeechConfig(), ImportedLoss():
                raise ValueError("loss.type of a custom loss needs a task of your own, since this one has its heads")
        return self

    @model_validator(mode="after")
    def _speaks_one_at_a_time(self) -> Self:
        if self.data.augment.mix != 0:
            raise ValueError("data.augment.mix is for classification: two transcripts at once cannot be learned")
        return self

    @model_validator(mode="after")
    def _frames_are_as_aligned(self) -> Self:
        told = 'loss.type "framewise"' if isinstance(self.loss, FramewiseConfig) else 'the head "framewise"'
        if aligned_loss(self.loss) is not None:
            for key, advice in self._not_aligned():
                raise ValueError(f"{key} cannot be used with {told}: {advice}")
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
        if isinstance(self.loss, SumConfig) and self.loss.heads[0] != "framewise":
            return  # another head searches
        match self.task:
            case SpeechConfig(beam_size=width) if width > 1:
                yield "task.beam_size above 1", "its search is greedy"
            case SpeechConfig(language_model=fused, hot_words=hot) if fused or hot:
                yield "task.language_model or task.hot_words", "its search is greedy"
