"""The whole config: every section, and the tables of names that `type` chooses from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from etude.base.config.components import Imported, component
from etude.base.config.fields import PathField
from etude.base.config.loading import Loaded, load
from etude.base.config.section import Section
from etude.base.errors import ConfigError
from etude.callbacks.config import LogConfig
from etude.data.config import DataConfig
from etude.data.tokenizer_config import BpeConfig, TokenizerField, TokenizerPair
from etude.model.initialisers import InitConfig
from etude.model.losses import ImportedLoss, LossConfig, MeanSquaredErrorConfig
from etude.model.transformer import TransformerConfig
from etude.tasks.text_metrics import TEXT_METRICS
from etude.tasks.translation import TranslationConfig
from etude.train.config import TrainConfig
from etude.train.optim.config import OPTIMIZERS, AdamWConfig, OptimizerConfig

TASKS: dict[str, type[Section]] = {"translation": TranslationConfig}
MODELS: dict[str, type[Section]] = {"transformer": TransformerConfig}
LOSSES: dict[str, type[Section]] = {"cross_entropy": LossConfig, "mse": MeanSquaredErrorConfig}


class RunConfig(Section):
    """What the run is called, where it lies, and the seed of all its randomness."""

    name: str = ""
    """The run's folder below `dir`; the config file's stem unless given."""
    dir: PathField = Path("runs")
    """Where runs lie."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    """Everything random is computed from it."""

    @field_validator("name")
    @classmethod
    def _is_a_folder_name(cls, name: str) -> str:
        if name in {".", ".."} or any(sign in name for sign in "/\\\0\n"):
            raise ValueError("must be the name of one folder, without slashes")
        return name


CallbackField = Annotated[Imported, component({})]


class Config(Section):
    """A run."""

    run: RunConfig = Field(default_factory=RunConfig)  # made anew: its folder follows the current one
    task: Annotated[TranslationConfig | Imported, component(TASKS)]
    data: DataConfig = DataConfig()
    tokenizer: TokenizerField = BpeConfig()
    model: Annotated[TransformerConfig | Imported, component(MODELS, "transformer")] = TransformerConfig()
    init: InitConfig = InitConfig()
    loss: Annotated[
        LossConfig | MeanSquaredErrorConfig | ImportedLoss, component(LOSSES, "cross_entropy", ImportedLoss)
    ] = LossConfig()
    optimizer: Annotated[OptimizerConfig | Imported, component(OPTIMIZERS, "adamw")] = AdamWConfig()
    train: TrainConfig = TrainConfig()
    callbacks: list[CallbackField] | dict[str, CallbackField] = Field(default_factory=list)
    """The user's own, each by import path: `["package.module:Class"]`, or a table `[callbacks.NAME]` with arguments."""
    log: LogConfig = LogConfig()

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        """Find, before any data is read, what one section says against another."""
        shares = isinstance(self.model, TransformerConfig) and self.model.share_embeddings
        if shares and isinstance(self.tokenizer, TokenizerPair):
            raise ValueError("model.share_embeddings needs one tokenizer for both sides, but [tokenizer] has two")
        if self.train.patience is not None and self.data.val is None and self.train.overfit is None:
            raise ValueError("train.patience needs validation data, but data.val is not set")
        of_numbers = isinstance(self.loss, MeanSquaredErrorConfig)
        if of_numbers and isinstance(self.task, TranslationConfig):
            raise ValueError('loss.type "mse" compares numbers, but translation predicts tokens: take "cross_entropy"')
        silent = isinstance(self.task, TranslationConfig) and self.task.eval_search_samples == 0
        if silent and self.train.monitor in {f"val/{name}" for name in TEXT_METRICS}:
            raise ValueError(
                f"train.monitor cannot be {self.train.monitor} with task.eval_search_samples = 0: nothing is translated"
            )
        return self

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.run.dir / self.run.name


@dataclass(frozen=True)
class LoadedConfig(Loaded[Config]):
    """A run's config, and what should be said about how it was composed."""

    notes: tuple[str, ...] = ()


def load_config(path: Path | str | None, overrides: Any = ()) -> LoadedConfig:
    """Compose and check a run's config; a run without a name is called after its file.

    Data of one's own on the command line takes the place of a recipe's generated corpus in every split. Raises
    ConfigError with every problem at once.
    """
    loaded = load(Config, path, overrides)
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
