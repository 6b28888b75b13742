"""Saved outputs of a run: what writes them while it goes, and the passes that are left for its end."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from etude.app.corpus import Corpus
from etude.app.pairs import Pairs
from etude.base.errors import ConfigError
from etude.callbacks.outputs import SavedOutputs, complete
from etude.data.feeds.batches import PairBatch
from etude.data.feeds.feed import Feed
from etude.tasks.translation.task import TranslationTask
from etude.train.config import TrainConfig
from etude.train.evaluate import evaluate
from etude.train.fit import Job, Result
from etude.train.step.pieces import evaluated
from etude.train.device import choose_device
from etude.train.task import Task

Say = Callable[[str], None]
Feeds = Mapping[str, Callable[[], Feed]]


def build_outputs(
    config: TrainConfig, folder: Path | None, say: Say, corpus: Corpus | None = None
) -> list[SavedOutputs]:
    """What writes the outputs that `train.save_outputs` asks for: one, or none.

    Raises ConfigError where they have no place, or samples come in pieces.
    """
    if not config.save_outputs:
        return []
    if folder is None:
        raise ConfigError("train.save_outputs needs a run folder to write to: give run_dir.")
    if config.tbptt_steps is not None:
        raise ConfigError("train.save_outputs cannot be used with train.tbptt_steps, which takes samples in pieces.")
    beside = _texts(corpus) if isinstance(corpus, Pairs) else (lambda _split, _batch: {})
    return [SavedOutputs(folder, config.save_outputs, every=config.save_outputs_every, say=say, beside=beside)]


def save_rest(job: Job, result: Result, feeds: Feeds, corpus: Corpus | None = None) -> None:
    """Write what `train.save_outputs` asks for and the run itself did not: the training split, by the best weights."""
    task = job.task

    def run_pass(split: str, feed: Feed, told: Callable[[Any, Any], None]) -> None:
        loop = job.config
        step, deliveries = evaluated(
            task, task.validation_step, feed.epoch(0), steps=loop.tbptt_steps, carry=loop.carry_hiddens
        )
        with _references(task, corpus, split):
            evaluate(
                task,
                deliveries,
                step,
                prefix=split,
                device=choose_device(job.config.device),
                seed=job.seed,
                after=told,
            )

    best = result.progress.step if result.best_step is None else result.best_step
    for saved in job.callbacks:
        if isinstance(saved, SavedOutputs) and result.best is not None:
            complete(saved, task, best, feeds, load_best=lambda: result.load_best(task), run_pass=run_pass, say=job.say)


@contextmanager
def _references(task: Task, pairs: Corpus | None, split: str) -> Iterator[None]:
    """Let the validation step of a translation compare with the texts of the split that it is given here."""
    if not isinstance(task, TranslationTask) or not isinstance(pairs, Pairs) or split == "val":
        yield
        return
    task.use_references("val", pairs.splits[split].references)
    try:
        yield
    finally:
        if "val" in pairs.splits:
            task.use_references("val", pairs.held("val").references)


def _texts(pairs: Pairs) -> Callable[[str, Any], dict[str, list[Any]]]:
    """For a split and a batch, each sample's number in its files and its raw texts."""

    def beside(split: str, batch: Any) -> dict[str, list[Any]]:
        held = pairs.held(split)
        if not isinstance(batch, PairBatch):
            return {}
        rows = batch.indices.tolist()
        return {
            "sample": [int(held.table.origin(row)) for row in rows],
            "source": held.sources(rows),
            "target": held.references(rows),
        }

    return beside
