"""Training a run from its config: what `etude train` and `etude.train` do."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from etude.app.build import (
    build_callbacks,
    build_slots,
    build_terms,
)
from etude.app.interrupted import telling
from etude.app.layout import batches
from etude.app.runs.folder import check_data, has_checkpoint
from etude.app.runs.saving import build_outputs, save_rest
from etude.app.stages.stage import run_stage, run_stages
from etude.app.stages.table import stages_of
from etude.base.config.loading import Loaded
from etude.base.says import Say, surely
from etude.base.schedules.values import ScheduledValue
from etude.callbacks.config import build_loggers, build_progress
from etude.data.feeds.feed import Feed
from etude.tasks.config import Config, LoadedConfig, load_config
from etude.tasks.kept import keep_processor, stored_processor
from etude.tasks.own import task_type
from etude.tasks.task_type import SKIPPED, TOKENIZERS, Data, Processor, TaskType
from etude.train.config import TrainConfig
from etude.train.device import choose_device
from etude.train.fit import Job, Result, as_durations
from etude.train.interrupt import requeued
from etude.train.length import expect
from etude.train.lock import claimed
from etude.train.step.precision import Precision


def train(config: str | Path, overrides: Mapping[str, object] | None = None) -> Result:
    """Train the run that a config file describes, as `etude train` does; the same call again goes on with it.

    `overrides` maps dotted keys to values: `{"optimizer.learning_rate": 3e-4}`. Raises ConfigError, DataError and
    the other errors of `etude.errors`, each a sentence. Ctrl-C is a KeyboardInterrupt, after the save.
    """
    loaded, say = load_config(config, overrides or {}), surely(print)
    with telling(loaded.config.folder, say):
        with loaded.naming_places():
            say(computes_with(loaded.config))
        return train_run(loaded, say=say)


def computes_with(config: Config) -> str:
    """What the run computes with."""
    device, train = choose_device(config.train.device), config.train
    precision = Precision(train.precision, device)
    size, unit = (train.batch_size, "samples") if train.batch_tokens is None else _padded(train)
    share = f"{size:,} {unit} at most" if isinstance(size, int) else f"{unit} by schedule"
    judged = precision.judged(validates=config.has_val)
    return f"Device: {device}, {precision.name}; 1 rank, whole batches ({share}){judged}."


def _padded(train: TrainConfig) -> tuple[object, str]:
    return train.batch_tokens, "tokens with padding"


def train_run(loaded: LoadedConfig, *, say: Say = print) -> Result:
    """Train, continue or find finished the run that `loaded` describes."""
    say, run = surely(say), loaded.config.run
    with requeued(run.requeue_signals), loaded.naming_places(), claimed(loaded.config.folder) as folder:
        earlier, training = stages_of(loaded, folder, build_job)
        artifacts = run_stages(earlier, lambda _: folder, say)
        return run_stage(training, folder, artifacts, say).result


def build_job(loaded: Loaded[Config], folder: Path, say: Say) -> Job:
    """Read the data and make every part of the run."""
    config = loaded.config
    callbacks, loggers = build_callbacks(config), build_loggers(config.log, folder)
    kind = task_type(config)
    data = _opened(kind, config, folder, say)
    task = kind.task(config, data.processor)
    data.attend(task)
    feeds = _Feeds(config, data, say)
    say(f"Run folder: {folder}")
    say(f"Data: {data.told()}; {task.parameters_told()}; {batches(feeds.train.batches or 0)} per epoch.")
    say(_tokens_told(config.train, feeds.train))
    if data.skipped:
        say(f"{data.skipped} bad samples were left out; skipped.jsonl lists them.")
    terms = build_terms(config, task)
    job = Job(
        task=task,
        train=feeds.train,
        val=feeds.val,
        config=config.train,
        optimizers=build_slots(config, say),
        folder=folder,
        seed=config.run.seed,
        stage=config.run.stage or "",
        requeue=config.run.requeue_signals,
        values=[*task.scheduled_values(), *terms.scheduled, *feeds.planned()],
        extra_terms=terms.extra,
        term_weights=terms.weights,
        callbacks=[*callbacks, *build_outputs(config.train, folder, say, data), *build_progress(config.log)],
        callback_names=list(config.callbacks) if isinstance(config.callbacks, Mapping) else (),
        components=data.sources(),
        loggers=loggers,
        say=say,
        about=loaded.data,
    )
    job.after = lambda result: save_rest(job, result, feeds.again(), data)
    return job


def _opened(kind: TaskType[Config, Processor], config: Config, folder: Path, say: Say) -> Data[Processor]:
    """The splits of a run: what it keeps of them is in its folder, and is what it has begun with."""
    kept = folder / TOKENIZERS
    processor = stored_processor(kind, config, kept) if has_checkpoint(folder) and kept.is_dir() else None
    data = kind.open(config, ["train", "val"] if config.has_val else ["train"], say, processor)
    check_data(folder, data.fingerprints())
    keep_processor(data.processor, kept, made=processor is None)
    data.write_skipped(folder / SKIPPED)
    return data


class _Feeds:
    """The batches of a run; with `train.overfit` it is judged on what it is trained on."""

    def __init__(self, config: Config, data: Data[Processor], say: Say) -> None:
        self._config, self._data, self._say = config, data, say
        self._judged = "val" if config.train.overfit is None else "train"
        self.train = data.feed("train", training=True, say=say)
        self.val = data.feed(self._judged, say=say) if self._judged in data.splits else None

    def planned(self) -> Sequence[ScheduledValue]:
        """What the batches of an epoch are planned by; that epochs differ by it is said."""
        values, feed, train = self._data.scheduled_values(self.train), self.train, self._config.train
        if values:
            expect(feed, values, as_durations(train.max_duration), train.accumulate)
            self._say(
                f"Epochs differ with {' and '.join(value.key for value in values)}: on average {feed.batches:,} "
                f"batches and {feed.samples:,} samples. Schedules to the end of the run use this estimate."
            )
        return values

    def again(self) -> dict[str, Callable[[], Feed]]:
        """What makes, for each split of the run, the batches of one more pass."""
        held = {"train": "train"} if self.val is None else {"train": "train", "val": self._judged}
        return {name: partial(self._data.feed, split, say=self._say) for name, split in held.items()}


def _tokens_told(train: TrainConfig, feed: Feed) -> str:
    """What "tokens" means in durations and metrics, and what in `batch_tokens`."""
    if feed.targets is not None and feed.targets == feed.samples:
        return f"Tokens: durations and metrics count one for each sample, {feed.targets:,.0f} per epoch."
    counted = "" if feed.targets is None else f", {feed.targets:,.0f} per epoch"
    held = "" if train.batch_tokens is None else f"; train.batch_tokens ({_shown_size(train)}) includes padding"
    return f"Tokens: durations and metrics count targets, without padding{counted}{held}."


def _shown_size(train: TrainConfig) -> str:
    return f"{train.batch_tokens:,}" if isinstance(train.batch_tokens, int) else "by schedule"
