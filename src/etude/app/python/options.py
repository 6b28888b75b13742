"""What a trainer is told in Python: the options of `[train]` and `[optimizer]`, read as a config is."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, TypeVar

import torch
from pydantic import Field

from etude.base.config.components import Imported, component
from etude.base.config.fields import RequeueSignals
from etude.base.config.loading import Loaded, load
from etude.base.config.meaning import means
from etude.base.config.other_words import hint
from etude.base.config.section import Section
from etude.base.errors import ConfigError
from etude.base.near import nearest
from etude.base.signals import BEFORE_THE_END
from etude.train.config import TrainConfig
from etude.train.optim.config import OPTIMIZERS, AdamWConfig, OptimizerConfig
from etude.train.watch.events import check_callback
from etude.train.world.config import DistributedConfig

OWN = (
    "optimizer",
    "learning_rate",
    "distributed",
    "callbacks",
    "loggers",
    "run_dir",
    "resume",
    "check_data",
    "requeue_signals",
    "seed",
    "progress",
    "say",
)
"""The trainer's options beside those of `[train]`."""
OF_FIT = ("loss", "teacher_forcing")
_SHORT = {"lr": "learning_rate", "optim": "optimizer", "verbose": "progress"}
_OPTIONS = {
    "optimizer.learning_rate": "learning_rate",
    "optimizer": "optimizer",
    "log.progress": "progress",
    "log": "loggers",
    "distributed": "distributed",
    "run.seed": "seed",
    "run": "run_dir",
}
"""What the trainer calls keys of a config, or whole sections."""
_IN_PYTHON = {
    "model": "{} in a config, and sets it in the model here",
    "loss": "{} in a config, and sets it in the loss here",
    "data": "{} in a config, and takes data as it is here: fit(task, train=..., val=...)",
    "tokenizer": "{} in a config, and takes data as it is here: fit(task, train=..., val=...)",
}
"""What has the place of a section where there is no config."""
_PLACE = re.compile(r' \(overrides\["[^"]*"\]\)')

Root = TypeVar("Root", bound=Section)


class _RunOptions(Section):
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    requeue_signals: Annotated[RequeueSignals, means("none")] = BEFORE_THE_END


class TrainerOptions(Section):
    """What a trainer is told, as the `config.toml` of its run folder holds it."""

    run: _RunOptions = _RunOptions()
    train: TrainConfig = TrainConfig()
    distributed: Annotated[DistributedConfig, means("result", resumable=True)] = DistributedConfig()
    optimizer: Annotated[OptimizerConfig | Imported, component(OPTIMIZERS, "adamw")] = AdamWConfig()


def read_options(
    options: Mapping[str, object],
    optimizer: Mapping[str, object],
    distributed: Mapping[str, object] | None = None,
    **run: object,
) -> Loaded[TrainerOptions]:
    """Check every option; `optimizer` and `distributed` hold the keys of those sections, `run` those of another.

    Raises ConfigError with all problems at once.
    """
    given = {**_section("train", options), **_section("optimizer", optimizer), **_section("run", run)}
    loaded = load_given(TrainerOptions, given | _section("distributed", distributed or {}))
    if loaded.config.distributed.processes > 1:
        raise ConfigError(
            "distributed.processes is for the shell: a script does not start itself again. Start it with "
            "torchrun --nproc-per-node N SCRIPT."
        )
    return loaded


def _section(name: str, given: Mapping[str, object]) -> dict[str, object]:
    """The keys of a section, dotted, as a config holds them."""
    return {f"{name}.{key}": _plain(value) for key, value in given.items()}


def _plain(value: object) -> object:
    match value:
        case torch.device():
            return str(value)
    return value


def load_given(root: type[Root], overrides: Mapping[str, object]) -> Loaded[Root]:
    """The config that is made of what was given in Python. Raises ConfigError, which names neither file nor line."""
    try:
        return load(root, None, overrides)
    except ConfigError as error:
        raise ConfigError([_PLACE.sub("", problem).replace("?.", "?") for problem in error.problems]) from None


def refuse_unknown(options: Mapping[str, object]) -> None:
    """Raise ConfigError for every name that is no option, each with the nearest, or with what Etude calls it."""
    problems = [_unknown(name, value) for name, value in options.items() if name not in TrainConfig.model_fields]
    if problems:
        raise ConfigError(problems)


def _unknown(name: str, value: object) -> str:
    near = _SHORT.get(name)
    said = hint(name, value, option_for) if near is None else ""
    if said:
        return f"{name} is not an option of the trainer; {said}."
    return f"{name} is not an option of the trainer; did you mean {near or _nearest(name)}?"


def option_for(key: str) -> str:
    """What the trainer calls a key of a config, or what has the key's place in Python.

    >>> option_for("train.clip_grad"), option_for("log.progress"), option_for("model.heads")
    ('clip_grad (train.clip_grad in a config)', 'progress', 'model.heads in a config, and sets it in the model here')
    """
    section, _, name = key.partition(".")
    if section == "train":
        return f"{name} ({key} in a config)"
    return _own_option(key) or _IN_PYTHON.get(section, "{}").format(key)


def _own_option(key: str) -> str:
    """The option beside those of `[train]` that has the place of a key; empty where none has."""
    return next((option for begin, option in _OPTIONS.items() if f"{key}.".startswith(f"{begin}.")), "")


def _nearest(name: str) -> str:
    known = [*TrainConfig.model_fields, *OWN]
    return nearest(name, [*known, *OF_FIT]) or f"one of {', '.join(known)}"


def check_resume(resume: str, *, folder: object) -> None:
    """Refuse an unknown word, and a run without a folder that must be resumed."""
    if resume not in {"auto", "never", "must"}:
        raise ConfigError(f'resume must be "auto", "never" or "must", but is {resume!r}.')
    if resume == "must" and folder is None:
        raise ConfigError('resume="must" needs a run_dir: without one there is nothing to resume.')


def read_callbacks(callbacks: object) -> list[object]:
    """The callbacks, each checked. Raises ConfigError for what is no list of them."""
    match callbacks:
        case Sequence() if not isinstance(callbacks, str):
            listed = list(callbacks)
        case _:
            raise ConfigError(f"callbacks must be a list of objects, but is a {type(callbacks).__name__}.")
    for callback in listed:
        check_callback(callback)
    return listed
