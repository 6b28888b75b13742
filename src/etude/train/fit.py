"""From a job to a finished run: prepared, continued, trained, and taken apart."""

from collections.abc import Container, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from etude.base.errors import StorageError
from etude.base.progress import Progress
from etude.train.end import End, Kind
from etude.train.interrupt import Interrupts
from etude.train.job import Job, Resume, as_durations
from etude.train.loop import train
from etude.train.memory.checkpoint import read_weights
from etude.train.memory.state import seed_generators
from etude.train.prepare import prepare
from etude.train.resume import go_on, load_weights
from etude.train.run import Run
from etude.train.task import Task
from etude.train.watch.record import Row
from etude.train.world import refuse_ranks

__all__ = ["Job", "Result", "Resume", "as_durations", "fit", "load_weights", "prepare"]

Module = TypeVar("Module", bound=nn.Module)


@dataclass
class Result:
    """How a run ended."""

    end: End
    """By what, as a kind, and the sentence that tells of it."""
    progress: Progress
    metrics: Mapping[str, float]
    """What the last validation measured."""
    best: Path | None
    last: Path | None
    history: Sequence[Row] = field(repr=False)
    """Every row logged, as in `metrics.jsonl`."""
    best_weights: Mapping[str, Any] | None = field(default=None, repr=False)
    """Without a run folder: the best weights, in memory."""
    skipped: int = 0
    """Steps whose loss or gradient was not finite."""
    best_step: int | None = None
    """The step of the best validation; None where there was none."""

    @property
    def reason(self) -> str:
        """Why it ended, as a sentence; what a callback gave, where one asked for the stop."""
        return self.end.says

    def load_best(self, task: Module) -> Module:
        """Give `task`, a task or the plain module that `etude.fit` trained, the best weights.

        They are the averaged ones, where an average was kept. Raises StorageError where the run kept none.
        """
        weights = self.best_weights if self.best is None else read_weights(self.best, averaged=True)
        if weights is None:
            raise StorageError("This run kept no weights: it ended before its first save.")
        task.load_state_dict(dict(weights) if isinstance(task, Task) else _without_loss(weights, task.state_dict()))
        return task


def _without_loss(weights: Mapping[str, Any], own: Container[str]) -> dict[str, Any]:
    """The weights that a plain module has: those of the loss were its task's."""
    return {name: value for name, value in weights.items() if name in own or not name.startswith("loss.")}


def _of_validation(logged: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in logged.items() if name.startswith("val/")}


def fit(job: Job) -> Result:
    """Do the run: begin it, or go on with it where its newest sound checkpoint stands.

    Raises Interrupted (a SystemExit) after the save that follows SIGTERM, Ctrl-C or a signal of `job.requeue`.
    """
    refuse_ranks()
    with ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts(job.requeue))
        run = prepare(job, interrupts)
        for close in (run.saves.keeper.close, run.record.close, job.train.close):
            stack.callback(close)
        if job.val is not None:
            stack.callback(job.val.close)
        try:
            seed_generators(job.seed)
            go_on(job, run)
            end = train(run)
        except BaseException as error:
            run.events.exception(error)
            raise
        result = _result(run, end)
    ending = interrupts.ending(result)
    if ending is not None and end.kind is Kind.INTERRUPTED:
        raise ending
    job.after(result)
    return result


def _result(run: Run, end: End) -> Result:
    keeper = run.saves.keeper
    return Result(
        end=end,
        progress=run.state.progress,
        metrics=run.validation.metrics or _of_validation(run.record.last),
        best=keeper.best,
        last=keeper.last,
        history=run.record.rows,
        best_weights=keeper.best_weights,
        skipped=run.state.skipped,
        best_step=run.validation.stopping.best_step,
    )
