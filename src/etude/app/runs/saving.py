"""Saved outputs of a run: what writes them while it goes, and the passes that are left for its end."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from etude.base.errors import ConfigError
from etude.callbacks.outputs import Beside, SavedOutputs, complete
from etude.data.feeds.feed import Feed
from etude.tasks.task_type import Data
from etude.train.config import TrainConfig
from etude.train.device import choose_device
from etude.train.evaluate import evaluate
from etude.train.fit import Job, Result
from etude.train.step.pieces import evaluated, sharing
from etude.train.step.precision import Precision
from etude.train.task import Task
from etude.train.turns import in_turns
from etude.train.world import World

Say = Callable[[str], None]
Feeds = Mapping[str, Callable[[], Feed]]
AnyData: TypeAlias = Data[Any]


class HasBeside(Protocol):
    """What knows what stands beside a batch."""

    def beside(self, split: str, batch: Any) -> Mapping[str, Any]:
        """By name."""


def build_outputs(
    config: TrainConfig, folder: Path | None, say: Say, data: "HasBeside | None" = None
) -> list[SavedOutputs]:
    """What writes the outputs that `train.save_outputs` asks for: one, or none.

    Raises ConfigError where they have no place, or samples come in pieces.
    """
    if not config.save_outputs:
        return []
    if folder is None:
        raise ConfigError("train.save_outputs needs a run folder to write to: give run_dir.")
    if config.tbptt_steps is not None:
        raise ConfigError("train.save_outputs cannot be used with train.tbptt_steps, which splits samples into pieces.")
    beside: Beside = (lambda _split, _batch: {}) if data is None else data.beside
    return [SavedOutputs(folder, config.save_outputs, every=config.save_outputs_every, say=say, beside=beside)]


def save_rest(job: Job, result: Result, world: World, feeds: Feeds, data: AnyData | None = None) -> None:
    """Write what `train.save_outputs` asks for and the run itself did not: the training split, by the best weights.

    Of several ranks all take their turns at the batches, and the first writes.
    """
    task = job.task

    def run_pass(split: str, feed: Feed, told: Callable[[Any, Any], None]) -> None:
        loop, device = job.config, choose_device(job.config.device)
        steps, carry = loop.tbptt_steps, loop.carry_hiddens
        among = sharing(world, steps=steps, carry=carry)
        step, deliveries = evaluated(task, task.validation_step, in_turns(feed, among), steps=steps, carry=carry)
        with _judging(task, data, split):
            evaluate(
                task,
                deliveries,
                step,
                prefix=split,
                device=device,
                seed=job.seed,
                forward=Precision(loop.precision, device).for_evaluation().forward,
                after=told,
                world=among,
            )

    best = result.progress.step if result.best_step is None else result.best_step
    for saved in job.callbacks:
        if isinstance(saved, SavedOutputs) and result.best is not None:
            load = partial(result.load_best, task)
            complete(saved, task, best, feeds, load_best=load, run_pass=run_pass, say=job.say, world=world)


@contextmanager
def _judging(task: Task, data: AnyData | None, split: str) -> Iterator[None]:
    """Let the validation step compare with the samples of the split that it is given here."""
    if data is None or split == "val":
        yield
        return
    data.attend(task, judged=split)
    try:
        yield
    finally:
        data.attend(task)
