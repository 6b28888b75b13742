"""Another run's model, used by a task: a language model that a recogniser's search is told of."""

from pathlib import Path
from typing import NamedTuple

from etude.base.config.imports import code_of
from etude.base.errors import ConfigError
from etude.tasks.config import load_config
from etude.tasks.kept import stored_processor
from etude.tasks.own import task_type
from etude.tasks.run_files import CONFIG
from etude.tasks.task_type import TOKENIZERS, Processor
from etude.train.fit import load_weights
from etude.train.memory.checkpoint import read_weights
from etude.train.memory.checkpoint.store import BEST, LAST, Store
from etude.train.task import Task


class Other(NamedTuple):
    """What of a run is used."""

    task: Task
    """With its best weights, ready to evaluate."""
    processor: Processor


def other_run(folder: Path, key: str) -> Other:
    """The task of a run with its best weights, by the folder that `key` of the config names; no code of its own runs.

    Raises ConfigError where it is no run, StorageError where it is damaged.
    """
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"{key} names {folder}, which is not a run folder: it has no {CONFIG}.")
    with code_of(folder, allowed=False):
        config = load_config(folder / CONFIG).config
        kind = task_type(config)
        processor = stored_processor(kind, config, folder / TOKENIZERS)
        task = kind.task(config, processor)
    store = Store(folder / "checkpoints")
    checkpoint = store.link(BEST) or store.link(LAST)
    if checkpoint is None:
        raise ConfigError(f"{key} names the run {folder}, which has no checkpoint yet.")
    load_weights(task, read_weights(checkpoint, averaged=True), checkpoint)
    return Other(task.eval(), processor)
