"""What tasks are built of: the user's own parts, models with their first weights, losses, scheduled values."""

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from etude.base.config.components import Imported
from etude.base.config.imports import check_signature, resolve_import
from etude.base.errors import ConfigError, DataError, EtudeError, StorageError
from etude.base.schedules.values import ScheduledValue
from etude.data.tokens.tokenizers import Tokenizer, load_tokenizer
from etude.model.initialisers import initialise, seed_everything
from etude.model.loss import Loss, Mean
from etude.model.losses import (
    CROSS_ENTROPY,
    Z_LOSS,
    CrossEntropy,
    CrossEntropyWithZ,
    ImportedLoss,
    LossConfig,
    MeanSquaredError,
    MeanSquaredErrorConfig,
)
from etude.model.losses.torchs import Called, LossFunction
from etude.tasks.config import Config
from etude.train.step.failures import in_memory
from etude.train.task import Task, Tells

Terms = Loss | Mapping[str, Loss]


def imported(entry: Imported, offered: Mapping[str, object], where: str) -> Any:
    """Call what an import path names with its own arguments and what it asks for of `offered`."""
    make = resolve_import(entry.type, f"{where}.type")
    if not callable(make):
        raise ConfigError(f"{where}.type {entry.type} is not something that can be called.")
    arguments = {**_asked_for(make, offered), **entry.arguments}
    if not _takes_any(make):
        check_signature(make, arguments, where)
    try:
        return make(**arguments)
    except EtudeError:
        raise
    except Exception as error:
        said = " ".join(str(error).split()) or "no message"
        raise ConfigError(f"{where}.type {entry.type} failed: {type(error).__name__}: {said}.") from error


def _asked_for(make: Callable[..., object], offered: Mapping[str, object]) -> dict[str, object]:
    """What of `offered` has the name of an argument of `make`; all, for `build_model(epoch, **config)`."""
    wanted = inspect.signature(make).parameters
    if "epoch" in wanted and _takes_any(make):
        return dict(offered)
    return {name: value for name, value in offered.items() if name in wanted}


def _takes_any(make: Callable[..., object]) -> bool:
    return any(one.kind is inspect.Parameter.VAR_KEYWORD for one in inspect.signature(make).parameters.values())


def imported_task(entry: Imported, offered: Mapping[str, object]) -> Task:
    """A task of the user's own. Raises ConfigError where what is named makes none."""
    task = imported(entry, offered, "task")
    if not isinstance(task, Task):
        raise ConfigError(f"task.type {entry.type} must make an etude.Task, but makes {type(task).__name__}.")
    return task


def made_model(config: Config, make: Callable[[], object], sizes: str) -> nn.Module:
    """What `make` gives, drawn from the seed alone. Raises ConfigError for no module, and for `sizes` too large."""
    with torch.random.fork_rng(devices=[]):
        seed_everything(config.run.drawn_from)
        try:
            model = make()
        except (RuntimeError, MemoryError) as error:
            said = str(error).split(".")[0].split("] ")[-1]
            raise ConfigError(f"{sizes} cannot be made: {said}.") from error
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model.type must make a torch.nn.Module, but makes {type(model).__name__}.")
    return model if model.training else model.train()  # one that was evaluated as a whole is trained as a whole


def initialised(config: Config, model: nn.Module, *, scheme: bool = False) -> nn.Module:
    """The model with its first weights, a function of (seed, names): a user's own where `[init]` asks for it alone.

    With `scheme`, the model knows the schemes of `init.scheme`.
    """
    if config.init.weights or not isinstance(config.model, Imported):
        chosen = config.init.scheme if scheme else "default"
        with in_memory("the first weights of the model"):
            initialise(model, config.run.seed, config.init.weights, config.run.stage or "", scheme=chosen)
    return model


def stored_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer that a run keeps. Raises StorageError where it is damaged."""
    try:
        return load_tokenizer(path)
    except DataError as error:
        raise StorageError(f"The run's tokenizer is damaged: {error}") from error


# -- losses ------------------------------------------------------------------------------------------------------------


def build_loss(config: Config, ignored: int) -> LossFunction:
    """The training loss; targets that are `ignored` count for nothing."""
    match config.loss:
        case LossConfig() as given:
            has_z = given.z_loss != 0  # a schedule is not 0 either
            return (CrossEntropyWithZ if has_z else CrossEntropy).of(given, ignore_index=ignored)
        case MeanSquaredErrorConfig():
            return MeanSquaredError()
        case ImportedLoss() as own:
            return _own_loss(own, ignored)
        case other:
            raise ConfigError(f"loss.type: {type(other).__name__} is the loss of another task.")


def _own_loss(entry: ImportedLoss, ignored: int) -> LossFunction:
    made = resolve_import(entry.type, "loss.type")
    offered = {"ignore_index": ignored}
    if inspect.isfunction(made) and not _is_factory(made, entry.arguments):
        return functools.partial(made, **{**_asked_for(made, offered), **entry.arguments})
    loss: LossFunction = imported(entry, offered, "loss")
    if not callable(loss):
        raise ConfigError(f"loss.type must make a function of logits and targets, but makes {type(loss).__name__}.")
    return loss


def _is_factory(function: Callable[..., object], arguments: Mapping[str, object]) -> bool:
    """Whether a function makes a loss, rather than being one: it can be called with the config's arguments alone."""
    needed = [
        name
        for name, one in inspect.signature(function).parameters.items()
        if one.default is inspect.Parameter.empty and one.kind not in {one.VAR_POSITIONAL, one.VAR_KEYWORD}
    ]
    return all(name in arguments or name == "ignore_index" for name in needed)


def is_own_loss(config: Config) -> bool:
    """Whether the loss is Etude's cross entropy, which counts every target."""
    return isinstance(config.loss, LossConfig)


def term_counts(loss: LossFunction, targets: int) -> Mapping[str, int] | None:
    """How many targets each term of a loss has, where it has two; None where one count says it all."""
    return {CROSS_ENTROPY: targets, Z_LOSS: targets} if isinstance(loss, CrossEntropyWithZ) else None


def loss_of(loss: LossFunction, logits: Tensor, targets: Tensor, count: int) -> Terms:
    """The terms of any loss: logits [B, T, V], targets [B, T], of which `count` are counted.

    Torch's own losses want classes in the second place, so they are given logits [N, V] in float32 and targets [N];
    they count what they divide by.
    """
    match loss:
        case CrossEntropy() | CrossEntropyWithZ():
            return loss(logits, targets, count=count)
    match Called(loss).on_last(logits, targets):
        case Tensor() as mean:
            return Loss.mean(mean, count)
        case Mean() as mean:
            return mean.as_loss()
        case value:
            return value


def first_term(loss: Terms) -> Loss:
    """The term that perplexity is of."""
    return next(iter(loss.values())) if isinstance(loss, Mapping) else loss


def scheduled_values(*parts: object) -> list[ScheduledValue]:
    """What the configs of a task's parts give as schedules."""
    return [value for part in parts if isinstance(part, Tells) for value in part.scheduled_values()]
