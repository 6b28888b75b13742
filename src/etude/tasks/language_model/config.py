"""What a config says of a language model: how it completes, what text it learns from, and how that comes in batches."""

import math
from typing import Annotated, Literal, Self, cast, get_args

from pydantic import Field, StringConstraints, field_validator, model_validator

from etude.base.config.components import Imported, component
from etude.base.config.fields import PathField, PathOr, Switch
from etude.base.config.meaning import means
from etude.base.config.section import Section
from etude.base.schedules import largest, scheduled
from etude.data.feeds.text_masks import Shares
from etude.data.files.skipped import AllowanceField, Policy
from etude.data.files.text_split import SplitRule
from etude.data.tokens.config import TokenizerPair
from etude.data.tokens.tokenizers import BOS, EOS, PAD, UNK
from etude.model.decoder_config import DecoderConfig
from etude.model.encoder import EncoderConfig
from etude.model.recurrent import RecurrentConfig
from etude.search.next_token import Options
from etude.tasks.config import DataSection, TaskSection, TokensConfig

LanguageMetric = Literal["perplexity", "bits_per_byte", "accuracy"]
MODELS: dict[str, type[Section]] = {
    "decoder": DecoderConfig,
    "lstm": RecurrentConfig,
    "gru": RecurrentConfig,
    "encoder": EncoderConfig,
}
WHOLE_SUM = 1e-9


def text_corpus_names() -> list[str]:
    """Name the corpora that are found at run time."""
    from etude.data.corpora.python_sources import NAMES

    return sorted(NAMES)


PathOrName = Annotated[PathField | str, PathOr(text_corpus_names)]


class WeighedText(Section):
    """A part of a mixture."""

    path: PathOrName | Annotated[tuple[PathField, ...], Field(min_length=1)]
    """A file, a folder, a list of them, or a corpus by name."""

    weight: scheduled(ge=0) = 1.0  # type: ignore[valid-type]
    """Share of all rows drawn from it, relative to the other weights; read at the beginning of an epoch."""


def _adds_up(shares: tuple[float, ...]) -> bool:
    return len(shares) in {2, 3} and min(shares) > 0 and math.isclose(sum(shares), 1, abs_tol=WHOLE_SUM)


TextField = (
    PathOrName
    | Annotated[tuple[WeighedText, ...], Field(min_length=1)]
    | Annotated[tuple[PathField, ...], Field(min_length=1)]
)


class MasksConfig(Section):
    """`[task.masks]`: how tokens are hidden that are to be predicted from both sides (Devlin et al. 2019)."""

    share: float = Field(0.15, gt=0, le=1)
    """The share of tokens that are predicted."""
    hidden: float = Field(0.8, ge=0, le=1)
    """The share of these that are hidden; ..."""
    replaced: float = Field(0.1, ge=0, le=1)
    """... and the share that stand as another token, drawn from all. The others stand as they are."""

    @model_validator(mode="after")
    def _are_shares_of_one(self) -> Self:
        if self.hidden + self.replaced > 1 + WHOLE_SUM:
            raise ValueError("hidden and replaced must be at most 1 together")
        return self

    def shares(self) -> Shares:
        """The same for the data."""
        return Shares(self.share, self.hidden, self.replaced)


class LanguageModelConfig(TaskSection):
    """`[task] type = "language_model"`."""

    type: Literal["language_model"] = "language_model"
    objective: Literal["next", "masked"] = "next"
    """What is predicted: the token that comes next, or tokens that are hidden in the text, from both sides."""
    masks: MasksConfig = MasksConfig()
    max_tokens: int = Field(256, ge=1)
    """Most tokens of a completion."""
    temperature: float = Field(0.8, ge=0, allow_inf_nan=False)
    """Temperature of sampling: 1 is the model's own, lower is sharper, 0 always takes the most likely token."""
    top_k: Switch[int] = Field(None, ge=1)
    """Sample from this many most likely tokens (Fan et al. 2018)."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Sample from the most likely tokens with this total probability (Holtzman et al. 2020)."""
    min_p: float = Field(0.0, ge=0, le=1)
    """Sample from tokens at least this many times as likely as the most likely one (Nguyen et al. 2024)."""
    repetition_penalty: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Above 1: make tokens that have occurred less likely (Keskar et al. 2019)."""
    stop: list[Annotated[str, StringConstraints(min_length=1)]] = Field(default_factory=list)
    """End a completion before the first of these texts."""
    samples: int = Field(1, ge=1)
    """Completions per prompt."""
    seed: int = Field(1, ge=0)
    """Seed of the sampling: the same seed, prompt and place give the same completion."""
    prompt: Literal["beginning", "middle"] = "beginning"
    """Whether a prompt is the beginning of a text, or from somewhere in one; an empty one is always a beginning."""
    metrics: Annotated[list[LanguageMetric], means("validation")] = Field(
        default_factory=lambda: list(get_args(LanguageMetric)[:2])
    )
    """Metrics besides the loss; accuracy, the share of tokens predicted correctly, computes the logits once more.
    Of hidden tokens there are no bits per byte."""

    def options(self) -> Options:
        """How completions are searched."""
        return Options(
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            stop=tuple(self.stop),
            samples=self.samples,
            seed=self.seed,
            eos=EOS,
            banned=(PAD, UNK, BOS),
        )


class TextDataConfig(DataSection):
    """Text to train on, and how it forms batches."""

    foreign = dict.fromkeys(
        ("source", "target", "header", "quotes", "difficulty", "max_difficulty", "easy_first_epochs"),
        'it is for pairs of texts, as of task.type = "translation"',
    ) | {"max_length": "the length of a row of text is data.block_size"}

    train: Switch[TextField] = None
    """Training data: a file or folder of text, a list of them, a corpus by name (`python`, `python_docs`), or a
    mixture `[{ path = "a/", weight = 3 }, { path = "b.jsonl" }]`."""

    val: Annotated[Switch[TextField], means("validation", shared="always", governs=("stopping",))] = None
    """Validation data, given like `train`; default: a part of `train`."""

    test: Annotated[Switch[TextField], means("none", shared="always")] = None
    """Test data, given like `train`."""

    text: Annotated[str, Field(min_length=1)] = "text"
    """The field of JSON lines, and the column of Parquet, that holds the text."""

    document_separator: Switch[str] = None
    """What stands between two documents of a plain text file; without it a file is one document."""

    split: Switch[Literal["auto"] | tuple[float, ...]] = "auto"
    """The shares of train, val and, where there is a third, test, where `val` names no files. `auto` is 0.98, 0.01 and
    0.01 by document or, of fewer than 100 documents, 0.9 and 0.1 by position; `false` divides nothing."""

    split_by: Literal["auto", "document", "position"] = "auto"
    """What is divided: the documents, by a hash of how they begin, or all characters in a row, the last ones for val
    and test; `auto` is by document where the smallest part gets one."""

    block_size: scheduled(ge=1, whole=True) = 256  # type: ignore[valid-type]
    """Tokens per row of a batch; a schedule is read at the beginning of an epoch."""

    packing: Literal["stream", "documents"] = "stream"
    """Content of a row: a section of the stream of all documents, or whole documents that do not see each other."""

    order: Literal["auto", "shuffled", "contiguous"] = "auto"
    """Whether rows are shuffled, or each continues the same row of the previous batch, as carried hidden states need;
    `auto` is contiguous with `train.carry_hiddens`, else shuffled."""

    workers: Annotated[int, means("none", shared="always")] = Field(default=0, ge=0)
    """Processes that load batches in parallel with training; 0 loads in the training process."""

    on_bad_sample: Literal["error", "skip"] = "error"
    """What to do with a bad document: end the run with its place and reason, or leave it out and list it."""

    max_skipped: AllowanceField = "1%"
    """How many documents may be left out, as a number or as a share of all; more are an error."""

    @field_validator("split")
    @classmethod
    def _is_a_whole(cls, value: object) -> object:
        if isinstance(value, tuple) and not _adds_up(value):
            raise ValueError("must hold two or three positive shares that add up to 1, such as [0.9, 0.1]")
        return value

    @field_validator("train")
    @classmethod
    def _is_drawn_from(cls, value: object) -> object:
        match value:
            case (WeighedText(), *_) if all(part.weight == 0 for part in cast("tuple[WeighedText, ...]", value)):
                raise ValueError("must have a part whose weight is more than 0")
        return value

    @property
    def policy(self) -> Policy:
        """What the section says about bad documents."""
        return Policy(None, self.on_bad_sample, self.max_skipped)

    @property
    def rule(self) -> SplitRule | None:
        """How the training text is divided; None where it is not."""
        if self.val is not None or self.split is None:
            return None
        return SplitRule(self.split if isinstance(self.split, tuple) else None, self.split_by)


class TextRun(TokensConfig):
    """A run over text: language models."""

    kind = "language_model"

    task: Annotated[LanguageModelConfig | Imported, component({"language_model": LanguageModelConfig})]
    data: TextDataConfig = TextDataConfig()
    model: Annotated[DecoderConfig | RecurrentConfig | EncoderConfig | Imported, component(MODELS, "decoder")] = (
        DecoderConfig()
    )

    @model_validator(mode="after")
    def _one_tokenizer(self) -> Self:
        match self.tokenizer:
            case TokenizerPair():
                raise ValueError("tokenizer must be one for all text, but has a source and a target")
        return self

    @model_validator(mode="after")
    def _a_state_is_there_to_carry(self) -> Self:
        asked = {"tbptt_steps": self.train.tbptt_steps, "carry_hiddens": self.train.carry_hiddens}
        key = next((key for key, value in asked.items() if value), "")
        if key and isinstance(self.model, DecoderConfig | EncoderConfig):
            a = "an" if isinstance(self.model, EncoderConfig) else "a"
            raise ValueError(
                f"train.{key} needs a model with hidden states, but {a} {self.model.type} has none: take "
                'model.type = "lstm" or "gru", or switch it off'
            )
        return self

    @model_validator(mode="after")
    def _a_state_goes_on_in_its_text(self) -> Self:
        if not self.train.carry_hiddens or isinstance(self.task, Imported):
            return self
        if self.data.order == "shuffled":
            raise ValueError(
                "train.carry_hiddens carries hidden states to the next batch, but data.order is shuffled: take "
                '"contiguous", or leave it out'
            )
        if self.data.packing == "documents":
            raise ValueError(
                "train.carry_hiddens carries hidden states to the next batch, but with data.packing = "
                '"documents" each document begins with none: take "stream"'
            )
        return self

    @model_validator(mode="after")
    def _sees_what_it_predicts_from(self) -> Self:
        match self.model:
            case EncoderConfig() if self.masks is None and not isinstance(self.task, Imported):
                raise ValueError(
                    'model.type "encoder" sees the token that comes next: take task.objective = "masked", or a decoder'
                )
            case RecurrentConfig() if self.masks is not None:
                raise ValueError(
                    f'task.objective "masked" predicts from both sides, but model.type "{self.model.type}" has seen '
                    'only one: take "encoder" or "decoder"'
                )
        return self

    @property
    def masks(self) -> Shares | None:
        """How tokens are hidden; None where the next one is predicted."""
        match self.task:
            case LanguageModelConfig(objective="masked", masks=masks):
                return masks.shares()
        return None

    @property
    def contiguous(self) -> bool:
        """Whether each row goes on where that of the batch before ended."""
        auto = self.data.order == "auto"
        return self.train.carry_hiddens if auto else self.data.order == "contiguous"

    @property
    def has_val(self) -> bool:
        """Whether there is a validation split: a part of the training text, if nothing else."""
        return super().has_val or self.data.rule is not None

    @property
    def longest_block(self) -> int | None:
        """The longest row, in tokens, as far as the config tells."""
        return largest(self.data.block_size)
