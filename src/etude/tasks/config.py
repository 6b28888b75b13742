"""What the configs of all tasks share, and how a config is loaded: as the class that its task has for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, reduce
from math import ceil
from operator import or_
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, cast

from pydantic import Field, PrivateAttr, create_model, model_validator
from pydantic.fields import FieldInfo

from etude.base.config.command import Override, Overrides, parse
from etude.base.config.components import Component, Imported, component
from etude.base.config.composing import Layer, compose, subject
from etude.base.config.lines import Key
from etude.base.config.loading import Loaded, validated
from etude.base.config.meaning import Mark, means
from etude.base.config.nest import value_at
from etude.base.config.section import Section
from etude.base.config.structure import annotated, component_of
from etude.base.errors import ConfigError
from etude.base.paths import user_path
from etude.base.schedules.structural import Structural, begun, in_epoch, put, shaping, turns
from etude.callbacks.config import LogConfig
from etude.data.order.plan import ALONE, Share
from etude.data.tokens.config import BpeConfig, TokenizerField
from etude.model.growth import Growth
from etude.model.initialisers import InitConfig
from etude.model.losses import ImportedLoss, LossConfig, MeanSquaredErrorConfig
from etude.model.losses.config import LossSection
from etude.tasks.own import type_of
from etude.tasks.pipelines import tables
from etude.tasks.run_config import RunConfig
from etude.tasks.run_files import home_of
from etude.tasks.sweeps import SweepConfig, without_sweep
from etude.tasks.table import built_in, named
from etude.tasks.task_type import CACHE
from etude.train.config import TrainConfig
from etude.train.optim.config import OPTIMIZERS, AdamWConfig, OptimizerConfig
from etude.train.world.config import DistributedConfig

LOSSES: dict[str, type[Section]] = {"cross_entropy": LossConfig, "mse": MeanSquaredErrorConfig}
STAGES = "stage"
"""The list of tables, in a config, of the stages that it is made of."""
OWN_SECTIONS = ("task", "data", "model")
"""Sections whose keys are another task's with another task."""
DECLARED = (*OWN_SECTIONS, "loss")
"""Sections that a task may declare anew."""


class TaskSection(Section):
    """`[task]`; each task adds its own keys."""

    type: str
    """The task's name in the table or, of one of the user's own, its import path."""


class DataSection(Section):
    """`[data]`; each task adds its own keys, and says what may stand for a split."""

    replaced_whole = ("train", "val", "test")

    train: object = None
    """What is trained on."""
    val: object = None
    """What training is judged by."""
    test: object = None
    """What is looked at once training is over."""

    def split_of(self, name: str) -> object:
        """What the config says of the split `name`; None where it is not set."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]

    def without_workers(self) -> Self:
        """The same data, loaded in the training process."""
        return self.model_copy(update={"workers": 0} if "workers" in type(self).model_fields else {})


OTHER_TASK = means(shared="never", why="the weights belong to the task they were trained for")
OTHER_OPTIMIZER = means(shared="never", why="an optimizer cannot use the state of another type")
CallbackField = Annotated[Imported, component({})]


def _marks(field: FieldInfo) -> list[Mark]:
    """What a field says of its meaning."""
    return [mark for mark in field.metadata if isinstance(mark, Mark)]


class Config(Section):
    """A run. What its task, data and models may be is told by the `Config` of each task."""

    kind: ClassVar[str] = ""
    """The task's name in the table; empty for one of the user's own."""
    _cache: Path | None = PrivateAttr(default=None)
    _epoch: int = PrivateAttr(default=0)
    _share: Share = PrivateAttr(default=ALONE)

    run: RunConfig = Field(default_factory=RunConfig)  # made anew: its folder follows the current one
    task: Annotated[TaskSection | Imported, means(governs=("weights",), of_type=OTHER_TASK)]
    data: Annotated[DataSection, means(shared="epoch")]
    tokenizer: Annotated[
        TokenizerField, means(shared="never", why="the weights belong to the tokens they were trained on")
    ] = BpeConfig()
    model: Annotated[Section, means(governs=("weights",))]
    init: Annotated[InitConfig, means(shared="never", why="weights are initialised only before the first step")] = (
        InitConfig()
    )
    growth: Growth = Growth()
    loss: Annotated[
        LossSection,
        component(LOSSES, "cross_entropy", ImportedLoss),
        means(governs=("weights",), of_type=means(governs=("stopping",))),
    ] = LossConfig()
    optimizer: Annotated[
        OptimizerConfig | Imported,
        component(OPTIMIZERS, "adamw"),
        means(governs=("optimizer",), of_type=OTHER_OPTIMIZER),
    ] = AdamWConfig()
    train: TrainConfig = TrainConfig()
    distributed: Annotated[DistributedConfig, means("result", resumable=True)] = DistributedConfig()
    callbacks: list[CallbackField] | dict[str, CallbackField] = Field(default_factory=list)
    """Callbacks, each by import path: `["package.module:Class"]`, or a table `[callbacks.NAME]` with arguments."""
    log: Annotated[LogConfig, means("none")] = LogConfig()
    sweep: Annotated[SweepConfig, means("none")] = SweepConfig()

    @classmethod
    def __pydantic_init_subclass__(cls, **_: object) -> None:
        """Let the sections that a task declares anew mean what they mean here."""
        for name in DECLARED:
            field = cls.model_fields[name]
            if not _marks(field):
                field.metadata.extend(_marks(Config.model_fields[name]))

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        """Find, before any data is read, what one section says against another."""
        if self.train.patience is not None and not self.validates:
            raise ValueError("train.patience needs validation data, but data.val is not set")
        if self.train.batch_size is None and self.train.batch_tokens is None:
            raise ValueError("train.batch_size and train.batch_tokens are both off: give one of them")
        return self

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.run.dir / self.run.name

    @property
    def cache(self) -> Path:
        """Where data is kept prepared: beside the runs, unless `with_cache` has said where."""
        return self._cache or self.run.dir / CACHE

    def with_cache(self, folder: Path) -> Self:
        """The same, whose prepared data lies in `folder`."""
        made = self.model_copy()
        made._cache = folder  # noqa: SLF001 - a copy of its own
        return made

    @property
    def epoch(self) -> int:
        """The epoch, counted from 0, at whose begin the run takes this config up, where it is one of several."""
        return self._epoch

    def in_epoch(self, epoch: int) -> Self:
        """The same, taken up at the begin of an epoch."""
        made = self.model_copy()
        made._epoch = epoch  # noqa: SLF001 - a copy of its own
        return made

    @property
    def share(self) -> Share:
        """Which part of every training batch this process takes."""
        return self._share

    @property
    def has_val(self) -> bool:
        """Whether there is a validation split."""
        return self.data.val is not None

    @property
    def validates(self) -> bool:
        """Whether there is something to validate on."""
        return self.has_val or self.train.overfit is not None


class TokensConfig(Config):
    """A run whose task predicts tokens."""

    @model_validator(mode="after")
    def _tokens_are_predicted(self) -> Self:
        if isinstance(self.loss, MeanSquaredErrorConfig) and not isinstance(self.task, Imported):
            raise ValueError(  # noqa: TRY004 - the value of one key against that of another
                f'loss.type "mse" compares numbers, but {self.task.type} predicts tokens: take "cross_entropy"'
            )
        return self


@cache
def any_config() -> type[Config]:
    """What a config of any task may hold, which has no order of reading: for the JSON Schema.

    The keys of every task's sections are accepted beside each other.
    """
    configs = [config for task_type in built_in().values() for config in task_type.configs()]
    merged = {name: _either([one.model_fields[name] for one in configs]) for name in DECLARED}
    about = "A run. What its data and models may be depends on the task."
    made: type[Config] = create_model("Config", __base__=Config, __doc__=about, **merged, **tables())  # type: ignore[call-overload]
    return made


def class_of(data: Mapping[str, object]) -> type[Config]:
    """What composed plain values are read as: by their task or, for one of the user's own, by what that says."""
    found = type_of(data)
    return _misnamed() if found is None else found.config_of(data)


def _composed(path: Path | None, overrides: Sequence[Override]) -> tuple[type[Config], Layer]:
    """What is composed, and what it is read as where the run begins.

    Which keys a layer may change hangs on the class, so it is composed for any class first.
    """
    try:
        data = begun(compose(Config, path, overrides).data)
    except ConfigError:
        root = named(next(iter(built_in()))).config  # what is wrong is said below
    else:
        if STAGES in data:
            raise ConfigError(f"{path} has stages: train, plan, check and show take it; elsewhere name a stage's run.")
        root = class_of(data)
    return root, compose(root, path, overrides)


@cache
def _misnamed() -> type[Config]:
    """For a config whose task is missing or unknown: loading it says which tasks there are."""
    base = next(iter(built_in().values())).config
    task = any_config().model_fields["task"]
    fields: dict[str, Any] = {"task": (task.annotation, task)}
    return create_model("Misnamed", __base__=base, **fields)


def _either(fields: list[FieldInfo]) -> object:
    """One field that holds what any of several may; where they are components, one component of all their types."""
    default = ... if fields[0].is_required() else fields[0].default
    parts = [part for part in map(component_of, map(annotated, fields)) if part is not None]
    union = reduce(or_, [field.annotation for field in fields])
    return Annotated[(union, *([_joined(parts)] if parts else []), *_marks(fields[0]))], default


def _joined(parts: list[Component]) -> Component:
    table: dict[str, type[Section]] = {}
    for part in parts:
        for name, section in part.table.items():
            table[name] = _of_both(table.get(name, section), section)
    return Component(table, parts[0].default, parts[0].imported)


def _of_both(one: type[Section], other: type[Section]) -> type[Section]:
    """A section with the keys of both, which two tasks have under one name."""
    if issubclass(one, other):
        return one
    return cast("type[Section]", create_model(one.__name__, __base__=(one, other), __doc__=one.__doc__))


@dataclass(frozen=True)
class LoadedConfig(Loaded[Config]):
    """A run's config, and what should be said about how it was composed."""

    notes: tuple[str, ...] = ()
    later: tuple["LoadedConfig", ...] = ()
    """The configs that take its place at the begin of later epochs, where a schedule shapes the run."""

    def with_share(self, share: Share) -> "LoadedConfig":
        """The same for a process that takes a part of every training batch."""
        config = self.config.model_copy()
        config._share = share  # noqa: SLF001 - a copy of its own
        return replace(self, config=config, later=tuple(later.with_share(share) for later in self.later))

    def at(self, epoch: int) -> "LoadedConfig":
        """The config in force in an epoch."""
        begun = [one for one in self.later if one.config.epoch <= epoch]
        return begun[-1] if begun else self


def load_config(path: Path | str | None, overrides: Overrides = ()) -> LoadedConfig:
    """Compose and check a run's config; a run without a name is called after its file.

    Data of one's own on the command line takes the place of a recipe's generated corpus in every split. A task of the
    user's own is imported, since it may have a config of its own. The config of a run folder describes the run that
    lies there, wherever it has been moved or copied to. Where schedules shape the run, it is checked as it is in each
    epoch. Raises ConfigError with every problem at once.
    """
    file = None if path is None else user_path(path)
    return of_layer(*_composed(file, [*home_of(path), *parse(overrides)]), path)


def of_layer(root: type[Config], layer: Layer, path: Path | str | None) -> LoadedConfig:
    """Check what was composed of a file, and is read as a config of this class. Raises ConfigError."""
    file = None if path is None else user_path(path)
    found = _shaping(root, layer)
    first = _finished(validated(root, replace(layer, data=in_epoch(layer.data, found, 0)), file), path)
    if not found:
        return first
    later = [_in_epoch(layer, found, epoch, file, path) for epoch in turns(found, _epochs(first.config.train))]
    whole = _with_schedules(first, later, found)
    _leave_to_their_types(whole, layer.data, found)
    return replace(first, data=whole, later=tuple(later))


def _shaping(root: type[Config], layer: Layer) -> dict[Key, Structural]:
    """The schedules that shape the run. Raises ConfigError, which says where the wrong one stands."""
    try:
        return shaping(root, layer.data)
    except ConfigError as error:
        raise ConfigError([_placed(problem, layer) for problem in error.problems]) from None


def _placed(problem: str, layer: Layer) -> str:
    origin = layer.origin_of(subject(problem)[0])
    return problem if origin is None else f"{problem.removesuffix('.')} ({origin})."


def _epochs(train: TrainConfig) -> int | None:
    """How many epochs a run has at most, where that is said."""
    lengths = train.max_duration if isinstance(train.max_duration, list) else [train.max_duration]
    return min((ceil(one.amount) for one in lengths if one.unit == "epochs"), default=None)


def _in_epoch(
    layer: Layer, found: Mapping[Key, Structural], epoch: int, file: Path | None, path: Path | str | None
) -> LoadedConfig:
    """The config that is taken up at the begin of an epoch. Raises ConfigError, which names the epoch."""
    data = in_epoch(layer.data, found, epoch)
    try:
        loaded = _finished(validated(class_of(data), replace(layer, data=data), file), path)
    except ConfigError as error:
        raise ConfigError([f"From epoch {epoch} on: {problem}" for problem in error.problems]) from None
    return replace(loaded, config=loaded.config.in_epoch(epoch))


def _with_schedules(
    first: LoadedConfig, later: Sequence[LoadedConfig], found: Mapping[Key, Structural]
) -> dict[str, Any]:
    """The composed config as it is written, with its schedules, whose values are written as they are read."""
    whole = in_epoch(first.data, {}, 0)
    plain = {one.config.epoch: one.data for one in (first, *later)}
    for place, schedule in found.items():
        put(whole, place, schedule.written(lambda epoch, place=place: value_at(plain[epoch], place)))  # type: ignore[misc]
    return whole


def _leave_to_their_types(whole: dict[str, Any], given: Mapping[str, Any], found: Mapping[Key, Structural]) -> None:
    """Leave out of tables whose type changes what nobody gave, which another type may not know."""
    for place in found:
        *above, last = place
        if last == "type":
            table, said = value_at(whole, tuple(above)), value_at(given, tuple(above))
            put(whole, tuple(above), {key: value for key, value in table.items() if key in said})


def _finished(loaded: Loaded[Config], path: Path | str | None) -> LoadedConfig:
    """The config with a name, without a sweep, and without a recipe's generated data where other data replaced it."""
    loaded = without_sweep(loaded if loaded.config.run.name else _named(loaded, path))
    left_out = [split for split in ("val", "test") if _is_another_corpus(loaded, split)]
    notes = tuple(
        f"data.{split} is ignored: the recipe's generated corpus does not match your data.train; set --data.{split}."
        for split in left_out
    )
    config, data = _without(loaded, left_out) if left_out else (loaded.config, loaded.data)
    return LoadedConfig(config, data, loaded.path, loaded.origins, notes)


def _named(loaded: Loaded[Config], path: Path | str | None) -> Loaded[Config]:
    """The run called after its file. Raises ConfigError where there is none."""
    if path is None:
        raise ConfigError("run.name must be given where there is no config file to take it from.")
    run = loaded.config.run.model_copy(update={"name": user_path(path).stem})
    data = {**loaded.data, "run": {**loaded.data["run"], "name": run.name}}
    return replace(loaded, config=loaded.config.model_copy(update={"run": run}), data=data)


def _without(loaded: Loaded[Config], splits: list[str]) -> tuple[Config, dict[str, Any]]:
    """The config and its plain values with no data for these splits."""
    held = loaded.config.data.model_copy(update=dict.fromkeys(splits))
    data = {**loaded.data, "data": {**loaded.data["data"], **dict.fromkeys(splits, False)}}
    return loaded.config.model_copy(update={"data": held}), data


def _is_another_corpus(loaded: Loaded[Config], split: str) -> bool:
    """Whether a split is still a recipe's generated corpus while the command line has replaced the training data."""
    data = loaded.config.data
    replaced = loaded.origin("data.train").flag is not None and not isinstance(data.train, str)
    return replaced and isinstance(data.split_of(split), str) and loaded.origin(f"data.{split}").flag is None
