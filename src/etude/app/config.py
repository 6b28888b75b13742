"""The whole config: every section, and the tables of names that `type` chooses from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from etude.base.config.command import parse
from etude.base.config.components import Imported, component, is_import_path
from etude.base.config.composing import compose
from etude.base.config.fields import PathField
from etude.base.config.loading import Loaded, load
from etude.base.config.meaning import means
from etude.base.config.section import Section
from etude.base.errors import ConfigError
from etude.base.schedules import largest
from etude.callbacks.config import LogConfig
from etude.data.config import DataConfig
from etude.data.text_config import TextDataConfig
from etude.data.tokens.config import BpeConfig, TokenizerField, TokenizerPair
from etude.metrics.text import TEXT_METRICS
from etude.model.decoder_config import DecoderConfig
from etude.model.initialisers import InitConfig
from etude.model.losses import ImportedLoss, LossConfig, MeanSquaredErrorConfig
from etude.model.recurrent import RecurrentConfig
from etude.model.transformer import TransformerConfig
from etude.tasks.hf.config import HfConfig, HfDataConfig
from etude.tasks.hf.folder import HfModelConfig
from etude.tasks.language_model.task import LanguageModelConfig
from etude.tasks.translation.task import TranslationConfig
from etude.train.config import TrainConfig
from etude.train.optim.config import OPTIMIZERS, AdamWConfig, OptimizerConfig

TASKS: dict[str, type[Section]] = {
    "translation": TranslationConfig,
    "language_model": LanguageModelConfig,
    "hf": HfConfig,
}
PAIR_MODELS: dict[str, type[Section]] = {"transformer": TransformerConfig}
TEXT_MODELS: dict[str, type[Section]] = {"decoder": DecoderConfig, "lstm": RecurrentConfig, "gru": RecurrentConfig}
HF_MODELS: dict[str, type[Section]] = {"hf": HfModelConfig}
LOSSES: dict[str, type[Section]] = {"cross_entropy": LossConfig, "mse": MeanSquaredErrorConfig}


class RunConfig(Section):
    """What the run is called, where it lies, and the seed of all its randomness."""

    name: Annotated[str, means("none", place=True)] = ""
    """The run's folder below `dir`; the config file's stem unless given."""
    dir: Annotated[PathField, means("none", place=True)] = Path("runs")
    """Where runs lie."""
    seed: Annotated[int, Field(ge=0, lt=2**63), means(shared="epoch")] = 1
    """Everything random is computed from it."""

    @field_validator("name")
    @classmethod
    def _is_a_folder_name(cls, name: str) -> str:
        if name in {".", ".."} or any(sign in name for sign in "/\\\0\n"):
            raise ValueError("must be the name of one folder, without slashes")
        return name


OTHER_TASK = means(shared="never", why="the weights belong to the task they were trained for")
OTHER_OPTIMIZER = means(shared="never", why="an optimizer cannot go on from the state of another kind")
CallbackField = Annotated[Imported, component({})]


class Config(Section):
    """A run. What its data and models may be depends on the task: `PairsConfig` and `TextConfig` say what."""

    run: RunConfig = Field(default_factory=RunConfig)  # made anew: its folder follows the current one
    task: Annotated[
        TranslationConfig | LanguageModelConfig | HfConfig | Imported,
        component(TASKS),
        means(governs=("weights",), of_type=OTHER_TASK),
    ]
    data: Annotated[DataConfig | TextDataConfig | HfDataConfig, means(shared="epoch")] = DataConfig()
    tokenizer: Annotated[
        TokenizerField, means(shared="never", why="the weights belong to the tokens they were trained on")
    ] = BpeConfig()
    model: Annotated[
        TransformerConfig | DecoderConfig | RecurrentConfig | HfModelConfig | Imported,
        component({**PAIR_MODELS, **TEXT_MODELS, **HF_MODELS}, "transformer"),
        means(governs=("weights",)),
    ] = TransformerConfig()
    init: Annotated[InitConfig, means(shared="never", why="weights are initialised before the first step alone")] = (
        InitConfig()
    )
    loss: Annotated[
        LossConfig | MeanSquaredErrorConfig | ImportedLoss,
        component(LOSSES, "cross_entropy", ImportedLoss),
        means(governs=("weights",), of_type=means(governs=("stopping",))),
    ] = LossConfig()
    optimizer: Annotated[
        OptimizerConfig | Imported,
        component(OPTIMIZERS, "adamw"),
        means(governs=("optimizer",), of_type=OTHER_OPTIMIZER),
    ] = AdamWConfig()
    train: TrainConfig = TrainConfig()
    callbacks: list[CallbackField] | dict[str, CallbackField] = Field(default_factory=list)
    """The user's own, each by import path: `["package.module:Class"]`, or a table `[callbacks.NAME]` with arguments."""
    log: Annotated[LogConfig, means("none")] = LogConfig()

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        """Find, before any data is read, what one section says against another."""
        if self.train.patience is not None and not self.validates:
            raise ValueError("train.patience needs validation data, but data.val is not set")
        if self.train.batch_size is None and self.train.batch_tokens is None:
            raise ValueError("train.batch_size and train.batch_tokens are both off: give one of them")
        if isinstance(self.loss, MeanSquaredErrorConfig) and not isinstance(self.task, Imported):
            raise ValueError(  # noqa: TRY004 - the value of one key against that of another
                f'loss.type "mse" compares numbers, but {self.task.type} predicts tokens: take "cross_entropy"'
            )
        return self

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.run.dir / self.run.name

    @property
    def has_val(self) -> bool:
        """Whether there is a validation split."""
        return self.data.val is not None

    @property
    def validates(self) -> bool:
        """Whether there is something to validate on."""
        return self.has_val or self.train.overfit is not None


class PairsConfig(Config):
    """A run over pairs of texts."""

    data: Annotated[DataConfig, means(shared="epoch")] = DataConfig()
    model: Annotated[
        TransformerConfig | Imported, component(PAIR_MODELS, "transformer"), means(governs=("weights",))
    ] = TransformerConfig()

    @model_validator(mode="after")
    def _sides_fit(self) -> Self:
        shares = isinstance(self.model, TransformerConfig) and self.model.share_embeddings
        if shares and isinstance(self.tokenizer, TokenizerPair):
            raise ValueError("model.share_embeddings needs one tokenizer for both sides, but [tokenizer] has two")
        silent = isinstance(self.task, TranslationConfig) and self.task.eval_search_samples == 0
        if silent and self.train.monitor in {f"val/{name}" for name in TEXT_METRICS}:
            raise ValueError(
                f"train.monitor cannot be {self.train.monitor} with task.eval_search_samples = 0: nothing is translated"
            )
        return self


class TextConfig(Config):
    """A run over text: language models."""

    data: Annotated[TextDataConfig, means(shared="epoch")] = TextDataConfig()
    model: Annotated[
        DecoderConfig | RecurrentConfig | Imported, component(TEXT_MODELS, "decoder"), means(governs=("weights",))
    ] = DecoderConfig()

    @model_validator(mode="after")
    def _one_tokenizer(self) -> Self:
        several = isinstance(self.tokenizer, TokenizerPair)
        if several:
            raise ValueError("tokenizer must be one for all text, but has a source and a target")
        return self

    @model_validator(mode="after")
    def _a_state_is_there_to_carry(self) -> Self:
        for key in ("tbptt_steps", "carry_hiddens"):
            if isinstance(self.model, DecoderConfig) and getattr(self.train, key):
                raise ValueError(
                    f"train.{key} is for a model that hands a state on, but a decoder has none: take "
                    'model.type = "lstm" or "gru", or switch it off'
                )
        return self

    @model_validator(mode="after")
    def _a_state_goes_on_in_its_text(self) -> Self:
        if self.train.carry_hiddens and isinstance(self.task, LanguageModelConfig):
            if self.data.order == "shuffled":
                raise ValueError(
                    "train.carry_hiddens hands a state on to the next batch, but data.order is shuffled: take "
                    '"contiguous", or leave it out'
                )
            if self.data.packing == "documents":
                raise ValueError(
                    "train.carry_hiddens hands a state on to the next batch, but with data.packing = "
                    '"documents" each document begins with none: take "stream"'
                )
        return self

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


class SamplesConfig(Config):
    """A run that tunes a model of the transformers library; the model brings its tokenizer."""

    data: Annotated[HfDataConfig, means(shared="epoch")] = HfDataConfig()
    model: Annotated[HfModelConfig, component(HF_MODELS, "hf"), means(governs=("weights",))]


TEXT_KEYS = frozenset(TextDataConfig.model_fields) - frozenset(DataConfig.model_fields)
"""Keys of `[data]` that tell text from pairs where the task is the user's own."""


def kind_of(path: Path | None, overrides: Any) -> type[Config]:
    """What a config is read as: by its task or, for a task of the user's own, by its data and model."""
    try:
        data = compose(Config, path, parse(overrides)).data
    except ConfigError:
        return PairsConfig  # what is wrong is said when it is loaded
    task, model, part = (_table(data.get(name)) for name in ("task", "model", "data"))
    if is_import_path(task.get("type")):
        return TextConfig if model.get("type") in TEXT_MODELS or TEXT_KEYS & set(part) else PairsConfig
    kinds: dict[Any, type[Config]] = {"language_model": TextConfig, "hf": SamplesConfig}
    return kinds.get(task.get("type"), PairsConfig)


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {"type": value}


@dataclass(frozen=True)
class LoadedConfig(Loaded[Config]):
    """A run's config, and what should be said about how it was composed."""

    notes: tuple[str, ...] = ()


def load_config(path: Path | str | None, overrides: Any = ()) -> LoadedConfig:
    """Compose and check a run's config; a run without a name is called after its file.

    Data of one's own on the command line takes the place of a recipe's generated corpus in every split. Raises
    ConfigError with every problem at once.
    """
    file = None if path is None else Path(path)
    loaded = load(kind_of(file, overrides), path, overrides)
    config, data = loaded.config, loaded.data
    if not config.run.name:
        if path is None:
            raise ConfigError("run.name must be given where there is no config file to take it from.")
        run = config.run.model_copy(update={"name": Path(path).stem})
        config = config.model_copy(update={"run": run})
        data = {**data, "run": {**data["run"], "name": run.name}}
    left_out = [split for split in ("val", "test") if _is_another_corpus(loaded, split)]
    if left_out:
        off = dict.fromkeys(left_out)
        config = config.model_copy(update={"data": config.data.model_copy(update=off)})
        data = {**data, "data": {**data["data"], **dict.fromkeys(left_out, False)}}
    notes = tuple(
        f"data.{split} is left out: the recipe's generated corpus is no match for your data.train; set --data.{split}."
        for split in left_out
    )
    return LoadedConfig(config, data, loaded.path, loaded.origins, notes)


def _is_another_corpus(loaded: Loaded[Config], split: str) -> bool:
    """Whether a split is still a recipe's generated corpus while the command line has replaced the training data."""
    replaced = loaded.origin("data.train").flag is not None and not isinstance(loaded.config.data.train, str)
    return (
        replaced and isinstance(getattr(loaded.config.data, split), str) and loaded.origin(f"data.{split}").flag is None
    )
