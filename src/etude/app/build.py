"""From a config to the objects of a run."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from etude.app.config import Config, PairsConfig, SamplesConfig, TextConfig
from etude.app.corpus import Corpus
from etude.app.pairs import Pairs, longest_trained
from etude.base.config.components import Imported
from etude.base.config.imports import check_signature, resolve_import
from etude.base.config.reading import shown
from etude.base.errors import ConfigError, DataError, EtudeError
from etude.base.horizon import Horizon
from etude.base.schedules.values import ScheduledValue
from etude.data.files.parallel import SIDES
from etude.data.tokens.tokenizers import PAD
from etude.model.initialisers import initialise
from etude.model.losses import CrossEntropy, CrossEntropyWithZ, LossConfig, MeanSquaredError, MeanSquaredErrorConfig
from etude.model.losses.penalties import ImportedTerm, L2Config, l1, l2
from etude.model.rates import initial, is_constant, loss_weight
from etude.model.transformer import Transformer, TransformerConfig
from etude.tasks.translation.task import TranslationConfig, TranslationTask
from etude.train.optim.build import build_imported, build_optimizer
from etude.train.optim.slot import Slot
from etude.train.step.regularisers import OfParameters, Regulariser, chosen
from etude.train.task import Task
from etude.train.watch.callback import check_callback

Say = Callable[[str], None]


def build_task(config: Config, corpus: Corpus) -> Task:
    """The task with its model, initialised from (seed, names) alone; no weights are loaded."""
    if isinstance(config, TextConfig):
        from etude.app.build_text import build_text_task
        from etude.app.texts import Texts

        assert isinstance(corpus, Texts)
        return build_text_task(config, corpus)
    if isinstance(config, SamplesConfig):
        from etude.app.samples import Samples

        assert isinstance(corpus, Samples)
        return corpus.task
    assert isinstance(config, PairsConfig)
    assert isinstance(corpus, Pairs)
    return _pairs_task(config, corpus)


def _pairs_task(config: PairsConfig, pairs: Pairs) -> Task:
    """A task over pairs of texts."""
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
        task = imported_task(config.task, parts)
    if isinstance(task, TranslationTask):
        trained = "train" in pairs.splits
        for name in ("val", "test"):
            if trained or name in pairs.splits:
                task.use_references(name, pairs.held(name).references)
    return task


def imported_task(entry: Any, offered: Mapping[str, Any]) -> Task:
    """A task of the user's own. Raises ConfigError where what is named makes none."""
    task = imported(entry, offered, "task")
    if not isinstance(task, Task):
        raise ConfigError(f"task.type {entry.type} must make an etude.Task, but makes {type(task).__name__}.")
    return task


def build_model(config: PairsConfig, pairs: Pairs) -> nn.Module:
    """The network, initialised."""
    sizes = {side: tokenizer.size for side, tokenizer in pairs.tokenizers.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        if isinstance(config.model, TransformerConfig):
            if config.model.share_embeddings and not pairs.shared:
                raise ConfigError("model.share_embeddings needs one tokenizer for both sides, but [tokenizer] has two.")
            _check_lengths(config.model, pairs, longest_trained(config))
            model: Any = _transformer(config.model, sizes)
        else:
            offered = {"source_vocabulary": sizes["source"], "target_vocabulary": sizes["target"], "pad": PAD}
            model = imported(config.model, offered, "model")
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


def _check_lengths(config: TransformerConfig, pairs: Pairs, trained: int | None) -> None:
    """Find now the sample that would have no position when its batch comes; none above `trained` is trained on."""
    for name, split in pairs.splits.items() if config.positions == "learned" else ():
        if name == "train" and trained is not None and trained < config.max_positions:
            continue
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


def build_loss(config: Config, ignored: int = PAD) -> Any:
    """The training loss; targets that are `ignored` count for nothing."""
    if isinstance(config.loss, LossConfig):
        has_z = config.loss.z_loss != 0  # a schedule is not 0 either
        return (CrossEntropyWithZ if has_z else CrossEntropy).of(config.loss, ignore_index=ignored)
    if isinstance(config.loss, MeanSquaredErrorConfig):
        return MeanSquaredError()
    made = resolve_import(config.loss.type, "loss.type")
    if inspect.isfunction(made) and not _is_factory(made, config.loss.arguments):
        return functools.partial(made, **config.loss.arguments)
    loss = imported(config.loss, {"ignore_index": ignored}, "loss")
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


@dataclass(frozen=True)
class LossTerms:
    """What `[loss]` adds to the terms that a step returns."""

    extra: Sequence[Regulariser]
    """Those of `[loss.terms]`."""
    weights: dict[str, float]
    """Those of `[loss.weights]` now; schedules change them in place."""
    scheduled: Sequence[ScheduledValue]
    """The weights of both that follow a schedule."""


def build_terms(config: Config, task: Task) -> LossTerms:
    """The further terms of the loss, and the weights that the config gives by name."""
    terms = LossTerms([], {}, scheduled := [])
    extra = []
    for name, entry in config.loss.terms.items():
        where = f"loss.terms.{name}"
        term = Regulariser(name, _measure(config, task, entry, where), initial(entry.weight))
        extra.append(term)
        if not is_constant(entry.weight):
            apply = functools.partial(setattr, term, "weight")
            scheduled.append(ScheduledValue(f"{where}.weight", entry.weight, apply, loss_weight(name)))
    for name, weight in config.loss.weights.items():
        terms.weights[name] = initial(weight)
        if not is_constant(weight):
            apply = functools.partial(terms.weights.__setitem__, name)
            scheduled.append(ScheduledValue(f"loss.weights.{name}", weight, apply, loss_weight(name)))
    return dataclasses.replace(terms, extra=extra)


def _measure(config: Config, task: Task, entry: Any, where: str) -> Callable[[Task], Any]:
    """The function of the task that a term of `[loss.terms]` is."""
    if not isinstance(entry, ImportedTerm):
        patterns = [entry.match] if isinstance(entry.match, str) else entry.match
        decay_all = bool(getattr(config.optimizer, "decay_all", False))
        parameters = chosen(task, patterns, f"{where}.match", decay_all=decay_all)
        return OfParameters(l2 if isinstance(entry, L2Config) else l1, parameters)
    made = resolve_import(entry.type, f"{where}.type")
    if inspect.isclass(made):
        made = imported(entry, {}, where)
    elif callable(made):
        check_signature(made, entry.arguments, where, positional=1)
        made = functools.partial(made, **entry.arguments)
    if not callable(made):
        raise ConfigError(f"{where}.type {entry.type} must be a function of the task, but is a {type(made).__name__}.")
    return made  # type: ignore[no-any-return]


def build_callbacks(config: Config) -> list[Any]:
    """The user's callbacks."""
    found = []
    for where, entry in callback_entries(config).items():
        found.append(imported(entry, {}, where))
        check_callback(found[-1], f"{where}.type")
    return found


def callback_entries(config: Config) -> dict[str, Imported]:
    """The user's callbacks in order, by key: `callbacks[0]` of a list, `callbacks.NAME` of a table."""
    given = config.callbacks
    if isinstance(given, Mapping):
        return {f"callbacks.{name}": entry for name, entry in given.items()}
    return {f"callbacks[{index}]": entry for index, entry in enumerate(given)}


def build_slots(config: Config, say: Say) -> Callable[[Task, Horizon], Sequence[Slot]]:
    """A function that makes the optimizer of `[optimizer]`."""

    def make(task: Task, horizon: Horizon) -> list[Slot]:
        if not isinstance(config.optimizer, Imported):
            return [build_optimizer(task, config.optimizer, horizon, say)]
        found = resolve_import(config.optimizer.type, "optimizer.type")
        return [build_imported(task, found, config.optimizer.arguments, say, horizon)]

    return make


def imported(entry: Any, offered: Mapping[str, Any], where: str) -> Any:
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
    parts: dict[str, Any] = {
        "task": config.task,
        "model": config.model,
        "loss": config.loss,
        "optimizer": config.optimizer,
    }
    parts |= {f"loss.terms.{name}": entry for name, entry in config.loss.terms.items()}
    parts |= callback_entries(config)
    files = []
    for where, entry in parts.items():
        name = entry.type.rpartition(":")[0] if isinstance(entry, Imported) else ""
        if name.endswith(".py"):
            files.append(Path(name))
            if not files[-1].is_file():
                raise ConfigError(f'{where}.type "{entry.type}" cannot be imported: {shown(files[-1])} is not a file.')
    return files
