"""Training a run from its config: what `etude train` and `etude.train` do."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from etude.app.build import build_callbacks, build_slots, build_terms, imported_files
from etude.app.held import Held, Phase
from etude.app.interrupted import telling
from etude.app.layout import batches
from etude.app.phases import Phases, epochs_of, tell_of_growth
from etude.app.ranks import beside, follow, ranks_of, sharing
from etude.app.runs.first_weights import fingerprints, load_first_weights, read_sources
from etude.app.runs.pipelines import refuse_sweep
from etude.app.runs.saving import build_outputs, save_rest
from etude.app.stages.stage import run_stage, run_stages
from etude.app.stages.table import stages_of
from etude.base.files import sha256_of
from etude.base.says import Say, surely, unheard
from etude.callbacks.config import build_loggers, build_progress
from etude.data.feeds.feed import Feed
from etude.tasks.config import Config, LoadedConfig, load_config
from etude.tasks.task_type import Processor, TaskType
from etude.train.config import TrainConfig
from etude.train.device import choose_device
from etude.train.fit import Job, Result, fit
from etude.train.interrupt import requeued
from etude.train.lock import claimed
from etude.train.step.precision import Precision
from etude.train.structure import Structured
from etude.train.task import Task


def train(config: str | Path, overrides: Mapping[str, object] | None = None) -> Result:
    """Train the run that a config file describes, as `etude train` does; the same call again goes on with it.

    `overrides` maps dotted keys to values: `{"optimizer.learning_rate": 3e-4}`. Raises ConfigError, DataError and
    the other errors of `etude.errors`, each a sentence. Ctrl-C is a KeyboardInterrupt, after the save.
    """
    loaded, say = load_config(config, overrides or {}), surely(print)
    with telling(loaded.config.folder, say):
        return train_run(loaded, say=say)


def computes_with(config: Config, ranks: int = 1) -> str:
    """What the run computes with."""
    device, train = choose_device(config.train.device), config.train
    precision = Precision(train.precision, device)
    size, unit = (train.batch_size, "samples") if train.batch_tokens is None else _padded(train)
    share = f"{size:,} {unit} at most" if isinstance(size, int) else f"{unit} by schedule"
    judged = precision.judged(validates=config.has_val)
    return f"Device: {device}, {precision.name}; {_shares(ranks)} ({share}){judged}."


def _shares(ranks: int) -> str:
    """What each rank takes of a batch."""
    return "1 rank, whole batches" if ranks == 1 else f"{ranks} ranks, each with 1/{ranks} of every batch"


def _padded(train: TrainConfig) -> tuple[object, str]:
    return train.batch_tokens, "tokens with padding"


def train_run(loaded: LoadedConfig, *, say: Say = print) -> Result:
    """Train, continue or find finished the run that `loaded` describes; of several ranks, as one of them."""
    config, say = loaded.config, surely(say)
    with (
        ranks_of(config.distributed, config.folder) as here,
        requeued(config.run.requeue_signals),
        loaded.naming_places(),
    ):
        if here is None or here.world.is_first:
            say(computes_with(config, 1 if here is None else here.place.size))
            return _train_first(loaded if here is None else sharing(loaded, here), say)
        return follow(loaded, here, _train_beside)


def _train_first(loaded: LoadedConfig, say: Say) -> Result:
    """Train as the process that has the run folder."""
    refuse_sweep(loaded.config.folder)
    with claimed(loaded.config.folder) as folder:
        earlier, training = stages_of(loaded, folder, build_job)
        artifacts = run_stages(earlier, lambda _: folder, say)
        return run_stage(training, folder, artifacts, say).result


def _train_beside(loaded: LoadedConfig, folder: Path) -> Result:
    """Train as a rank that follows, with a folder of its own for what it would write; nobody is told of anything."""
    return fit(beside(build_job(loaded, folder, unheard)))


MakesTask = Callable[[TaskType[Any, Any], Config, Processor], Task]
"""Makes the task of a config with what a run keeps of its data."""


def made(kind: TaskType[Any, Any], config: Config, processor: Processor) -> Task:
    """The task with its weights."""
    return kind.task(config, processor)


def build_job(loaded: LoadedConfig, folder: Path, say: Say, task_of: MakesTask = made) -> Job:
    """Read the data and make every part of the run; its task is made by `task_of`."""
    config = loaded.config
    callbacks, loggers = build_callbacks(config), build_loggers(config.log, folder)
    sources = read_sources(config, folder)
    held = Held(loaded, folder, say, fingerprints(sources))
    make = partial(_learns, held, say, task_of)
    learns = make(config)
    load_first_weights(learns.task, sources, folder, say)
    task, phase = learns.task, held.now
    phases = Phases(loaded, lambda config: _planned(make(config), held.now), held.bare)
    say(f"Run folder: {folder}")
    say(f"Data: {phase.data.told()}; {task.parameters_told()}; {batches(phase.train.batches or 0)} per epoch.")
    say(_tokens_told(config.train, phase.train))
    if phase.data.skipped:
        say(f"{phase.data.skipped} bad samples were left out; skipped.jsonl lists them.")
    epochs = epochs_of(config.train, phase.train)
    tell_of_growth(phases, epochs, folder, say)
    job = Job(
        task=task,
        train=phase.train,
        val=phase.val,
        config=config.train,
        optimizers=learns.optimizers,
        folder=folder,
        distributed=config.distributed,
        seed=config.run.seed,
        stage=config.run.stage or "",
        requeue=config.run.requeue_signals,
        values=_planned(learns, phase).values,
        extra_terms=learns.extra_terms,
        term_weights=learns.term_weights,
        structure=phases,
        horizon=held.horizon(epochs),
        callbacks=[*callbacks, *build_outputs(config.train, folder, say, held), *build_progress(config.log)],
        callback_names=list(config.callbacks) if isinstance(config.callbacks, Mapping) else (),
        components=held.sources(),
        loggers=loggers,
        say=say,
        about=loaded.data,
        contents={**held.contents, **{str(file): sha256_of(file) for file in imported_files(config)}},
    )
    job.after = lambda result, world: save_rest(job, result, world, held.now.again(), held.now.data)
    return job


def _learns(held: Held, say: Say, task_of: MakesTask, config: Config) -> Structured:
    """The task of a config, and what trains it; the data are the run's from then on."""
    phase = held.take_up(config)
    task = task_of(phase.kind, config, phase.data.processor)
    phase.data.attend(task)
    terms = build_terms(config, task)
    return Structured(
        task=task,
        train=phase.train,
        val=phase.val,
        optimizers=build_slots(config, say),
        values=[*task.scheduled_values(), *terms.scheduled],
        extra_terms=terms.extra,
        term_weights=terms.weights,
    )


def _planned(learns: Structured, phase: Phase) -> Structured:
    """With what the batches of an epoch are planned by."""
    return replace(learns, values=[*learns.values, *phase.planned])


def _tokens_told(train: TrainConfig, feed: Feed) -> str:
    """What "tokens" means in durations and metrics, and what in `batch_tokens`."""
    if feed.targets is not None and feed.targets == feed.samples:
        return f"Tokens: durations and metrics count one for each sample, {feed.targets:,.0f} per epoch."
    counted = "" if feed.targets is None else f", {feed.targets:,.0f} per epoch"
    held = "" if train.batch_tokens is None else f"; train.batch_tokens ({_shown_size(train)}) includes padding"
    return f"Tokens: durations and metrics count targets, without padding{counted}{held}."


def _shown_size(train: TrainConfig) -> str:
    return f"{train.batch_tokens:,}" if isinstance(train.batch_tokens, int) else "by schedule"
