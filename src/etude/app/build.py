"""From a config to the objects of a run."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from etude.app.config import Config
from etude.app.pairs import Pairs
from etude.base.config.components import Imported
from etude.base.config.imports import check_signature, resolve_import
from etude.base.config.reading import shown
from etude.base.errors import ConfigError, DataError, EtudeError
from etude.base.horizon import Horizon
from etude.base.schedules import bind
from etude.data.parallel import SIDES
from etude.data.tokenizers import PAD
from etude.model.initialisers import initialise
from etude.model.losses import CrossEntropy, LossConfig
from etude.model.rates import ScheduledValue
from etude.model.transformer import Transformer, TransformerConfig
from etude.tasks.translation import TranslationConfig, TranslationTask
from etude.train.live import Live
from etude.train.optim.build import build_imported, build_optimizer
from etude.train.optim.slot import Slot
from etude.train.task import Task

Say = Callable[[str], None]


def build_task(config: Config, pairs: Pairs) -> Task:
    """The task with its model, initialised from (seed, names) alone; no weights are loaded."""
    model = build_model(config, pairs)
    parts = {
        "model": model,
        "loss": build_loss(config),
        "source_tokenizer": pairs.tokenizers["source"],
        "target_tokenizer": pairs.tokenizers["target"],
    }
    if isinstance(config.task, TranslationConfig):
        task: Task = TranslationTask(config=config.task, **parts)
    else:
        task = _imported(config.task, parts, "task")
        if not isinstance(task, Task):
            raise ConfigError(f"task.type {config.task.type} must make an etude.Task, but makes {type(task).__name__}.")
    for name, split in pairs.splits.items():
        if name != "train" and isinstance(task, TranslationTask):
            task.use_references(name, split.references)
    return task


def build_model(config: Config, pairs: Pairs) -> nn.Module:
    """The network, initialised."""
    sizes = {side: tokenizer.size for side, tokenizer in pairs.tokenizers.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        if isinstance(config.model, TransformerConfig):
            if config.model.share_embeddings and not pairs.shared:
                raise ConfigError("model.share_embeddings needs one tokenizer for both sides, but [tokenizer] has two.")
            _check_lengths(config.model, pairs)
            model: Any = _transformer(config.model, sizes)
        else:
            offered = {"source_vocabulary": sizes["source"], "target_vocabulary": sizes["target"], "pad": PAD}
            model = _imported(config.model, offered, "model")
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model.type must make a torch.nn.Module, but makes {type(model).__name__}.")
    if isinstance(model, Transformer) or config.init.weights:
        # A user's own module may have come with weights: it is drawn anew only where [init] asks for it.
        initialise(model, config.run.seed, config.init.weights)
    return model


def _transformer(config: TransformerConfig, sizes: Mapping[str, int]) -> Transformer:
    try:
        return Transformer(config, sizes["source"], sizes["target"], PAD)
    except (RuntimeError, MemoryError) as error:
        said = str(error).split(".")[0].split("] ")[-1]
        raise ConfigError(f"model.d_model = {config.d_model} and its other sizes cannot be made: {said}.") from error


def _check_lengths(config: TransformerConfig, pairs: Pairs) -> None:
    """Find now the sample that would have no position when its batch comes."""
    for split in pairs.splits.values() if config.positions == "learned" else ():
        for side in SIDES:
            lengths = split.table.lengths(side)
            row = int(lengths.argmax())
            if lengths[row] + 1 > config.max_positions:  # with the sign of its end, or of its beginning
                place = split.source.location(split.table.origin(row))
                raise DataError(
                    f"{place} has {int(lengths[row]) + 1} tokens on the {side} side, special tokens included, more "
                    f"than model.max_positions = {config.max_positions}: raise it, lower data.max_length, or take "
                    'model.positions = "rotary".'
                )


def build_loss(config: Config) -> Any:
    """The training loss."""
    if isinstance(config.loss, LossConfig):
        return CrossEntropy.of(config.loss, ignore_index=PAD)
    made = resolve_import(config.loss.type, "loss.type")
    if inspect.isfunction(made) and not _is_factory(made, config.loss.arguments):
        return functools.partial(made, **config.loss.arguments)
    loss = _imported(config.loss, {"ignore_index": PAD}, "loss")
    if not callable(loss):
        raise ConfigError(f"loss.type must make a function of logits and targets, but makes {type(loss).__name__}.")
    return loss


def _is_factory(function: Callable[..., Any], arguments: Mapping[str, Any]) -> bool:
    """Whether a function makes a loss, rather than being one: it can be called with the config's arguments alone."""
    needed = [
        name
        for name, one in inspect.signature(function).parameters.items()
        if one.default is inspect.Parameter.empty and one.kind not in {one.VAR_POSITIONAL, one.VAR_KEYWORD}
    ]
    return all(name in arguments or name == "ignore_index" for name in needed)


def build_callbacks(config: Config) -> list[Any]:
    """The user's callbacks."""
    return [_imported(entry, {}, f"callbacks[{index}]") for index, entry in enumerate(config.callbacks)]


def build_slots(config: Config, say: Say) -> Callable[[Task, Horizon], Sequence[Slot]]:
    """A function that makes the optimizer of `[optimizer]`."""

    def make(task: Task, horizon: Horizon) -> list[Slot]:
        if not isinstance(config.optimizer, Imported):
            return [build_optimizer(task, config.optimizer, horizon, say)]
        found = resolve_import(config.optimizer.type, "optimizer.type")
        return [build_imported(task, found, config.optimizer.arguments, say, horizon)]

    return make


def build_live(config: Config, task: Task) -> Callable[[Horizon], list[Live]]:
    """A function that binds every scheduled value outside the optimizer."""
    d_model = getattr(config.model, "d_model", None)
    values: Sequence[ScheduledValue] = getattr(task, "scheduled_values", list)()

    def make(horizon: Horizon) -> list[Live]:
        return [
            Live(value.key.rpartition(".")[2], bind(value.spec, horizon, key=value.key, d_model=d_model), value.apply)
            for value in values
        ]

    return make


def _imported(entry: Any, offered: Mapping[str, Any], where: str) -> Any:
    """Call what an import path names with its own arguments and what it asks for of `offered`."""
    make = resolve_import(entry.type, f"{where}.type")
    if not callable(make):
        raise ConfigError(f"{where}.type {entry.type} is not something that can be called.")
    wanted = inspect.signature(make).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in wanted.values())
    own = {name: value for name, value in offered.items() if name in wanted and name not in entry.arguments}
    if not takes_any:
        check_signature(make, {**own, **entry.arguments}, where)
    try:
        return make(**own, **entry.arguments)
    except EtudeError:
        raise
    except Exception as error:
        said = " ".join(str(error).split()) or "no message"
        raise ConfigError(f"{where}.type {entry.type} failed: {type(error).__name__}: {said}.") from error


def imported_files(config: Config) -> list[Path]:
    """The files beside the config that its import paths name. Raises ConfigError for one that is not there."""
    parts = {"task": config.task, "model": config.model, "loss": config.loss, "optimizer": config.optimizer}
    parts |= {f"callbacks[{index}]": entry for index, entry in enumerate(config.callbacks)}
    files = []
    for where, entry in parts.items():
        name = entry.type.rpartition(":")[0] if isinstance(entry, Imported) else ""
        if name.endswith(".py"):
            files.append(Path(name))
            if not files[-1].is_file():
                raise ConfigError(f'{where}.type "{entry.type}" cannot be imported: {shown(files[-1])} is not a file.')
    return files
