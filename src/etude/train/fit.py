"""From a job to a finished run: prepared, continued, trained, and taken apart."""

from collections.abc import Container, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from etude.base.errors import StorageError
from etude.base.progress import Progress
from etude.data.nest import move
from etude.train.end import End, Kind
from etude.train.interrupt import Interrupts
from etude.train.job import Job, Resume, as_durations
from etude.train.learner import Learner
from etude.train.loop import train
from etude.train.memory.checkpoint import read_weights
from etude.train.memory.portable import structure_of
from etude.train.memory.state import seed_generators
from etude.train.prepare import prepare
from etude.train.resume import go_on, load_weights
from etude.train.run import Run
from etude.train.same import check_same
from etude.train.step.failures import in_memory
from etude.train.task import Task
from etude.train.watch.record import Row
from etude.train.world import World, begin_together, refuse_ranks

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
    """The best checkpoint; the last one, where no validation gave a number."""
    last: Path | None
    history: Sequence[Row] = field(repr=False)
    """Every row logged, as in `metrics.jsonl`."""
    best_weights: Mapping[str, Any] | None = field(default=None, repr=False)
    """Without a run folder: the best weights, in memory."""
    skipped: int = 0
    """Steps whose loss or gradient was not finite."""
    best_step: int | None = None
    """The step of the best validation; None where there was none."""
    learner: Learner | None = field(default=None, repr=False, compare=False)
    """What learned, of a run that grows: its task may be of another structure than at its best."""

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
        if self.learner is not None and task is self.learner.task and self.best is not None:
            self.learner.restructure(structure_of(self.best))
        task.load_state_dict(dict(weights) if isinstance(task, Task) else _without_loss(weights, task.state_dict()))
        return task


def _without_loss(weights: Mapping[str, Any], own: Container[str]) -> dict[str, Any]:
    """The weights that a plain module has: those of the loss were its task's."""
    return {name: value for name, value in weights.items() if name in own or not name.startswith("loss.")}


def _of_validation(logged: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in logged.items() if name.startswith("val/")}


def fit(job: Job) -> Result:
    """Do the run: begin it, or go on with it where its newest sound checkpoint stands.

    Raises Interrupted (a SystemExit) after the save that follows SIGTERM, Ctrl-C or a signal of `job.requeue`; after
    Ctrl-C it is a KeyboardInterrupt as well.
    """
    refuse_ranks()
    world = begin_together()
    if world.size == 1 and job.distributed.processes > 1:
        job.say(
            f"distributed.processes is {job.distributed.processes}, but only etude train starts ranks, of a config "
            f"without stages: this run is trained in one process."
        )
    with ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts(job.requeue))
        with in_memory("the model and its optimizer"):
            run = prepare(job, interrupts, world)
        for close in (run.saves.keeper.close, run.record.close, job.train.close):
            stack.callback(close)
        if job.val is not None:
            stack.callback(job.val.close)
        try:
            check_same(world, job)
            seed_generators(job.seed)
            go_on(job, run)
            end = _told_of_stage(job, run)
        except BaseException as error:
            run.events.exception(error)
            raise
        result = _result(run, end)
    ending = interrupts.ending(result)
    if ending is not None and end.kind is Kind.INTERRUPTED:
        raise ending
    result = _of_the_first(world, result)
    job.after(result, world)
    return result


def _of_the_first(world: World, result: Result) -> Result:
    """The result with the checkpoints of the first rank, which alone keeps them."""
    if world.size == 1:
        return result
    weights = move(result.best_weights, "cpu") if world.is_first else None
    best, last, weights = world.gather((result.best, result.last, weights))[0]
    return replace(result, best=best, last=last, best_weights=weights)


def _told_of_stage(job: Job, run: Run) -> End:
    """Train; whoever listens is told where a stage of a pipeline begins in this process, and where it ends."""
    if not job.stage:
        return train(run)
    run.events.stage_start(job.stage)
    end = train(run)
    if not end.goes_on:
        run.events.stage_end(job.stage)
    return end


def _result(run: Run, end: End) -> Result:
    keeper = run.saves.keeper
    best, weights = keeper.best, keeper.best_weights
    has_none = best is None and weights is None and not end.goes_on
    if run.world.gather(has_none)[0]:
        best, weights = _instead_of_the_best(run)
    return Result(
        end=end,
        progress=run.state.progress,
        metrics=run.validation.metrics or _of_validation(run.record.last),
        best=best,
        last=keeper.last,
        history=run.record.rows,
        best_weights=weights,
        skipped=run.state.skipped,
        best_step=run.validation.stopping.best_step,
        learner=run.learner if run.learner.shape.may_change else None,
    )


def _instead_of_the_best(run: Run) -> tuple[Path | None, dict[str, Tensor] | None]:
    """What takes the place of the best weights where no validation gave a number: the last, in folder or memory."""
    if run.validation.feed is None:
        return None, None
    run.say(f"No validation gave a finite {run.validation.stopping.monitor}: the last weights take the best's place.")
    keeper = run.saves.keeper
    in_memory = run.world.gather(keeper.folder is None)[0]
    return (None, _last_weights(run)) if in_memory else (keeper.last, None)


def _last_weights(run: Run) -> dict[str, Tensor]:
    """The weights as they are, averaged where an average is kept, to be kept in memory."""
    learner = run.learner
    weights = learner.average.weights() or learner.task.state_dict()
    return {name: value.detach().clone() for name, value in learner.among.sharding.whole(weights).items()}
