"""Going on with a run where its newest sound checkpoint stands."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from etude.base.errors import EtudeError, RefusedError, StorageError
from etude.base.progress import Progress
from etude.train.end import End, Kind
from etude.train.job import Job
from etude.train.memory.checkpoint import read
from etude.train.memory.checkpoint.naming import checkpoint_step
from etude.train.memory.fitting import differences
from etude.train.memory.state import completed
from etude.train.optim.slot import Slot
from etude.train.run import Run
from etude.train.task import Task
from etude.train.watch.record import Mark


def go_on(job: Job, run: Run) -> None:
    """Load the newest sound checkpoint, if there is one, and open the record where it stood."""
    keeper = run.saves.keeper
    found = run.world.agree(keeper.newest(job.say))
    if found is None:
        if job.resume == "must":
            raise RefusedError(f"There is nothing to resume in {job.folder}: it holds no checkpoint.")
        run.record.open(cut=0)
        return
    if job.resume == "never":
        raise RefusedError(f"{job.folder} already holds a run; give another folder, or resume it.")
    _load(found, run, job.say)
    mark = Mark(run.state.record, run.state.record_hash)
    run.record.open(cut=mark.bytes if run.finished is None else None, mark=mark)
    run.record.last = run.world.gather(run.record.last)[0]
    _settle(checkpoint_step(found), run, job.say)
    job.say(_where_it_stands(run, found))
    run.events.load(found)


def _settle(step: int, run: Run, complain: Callable[[str], None]) -> None:
    """Let the checkpoint of `step` be the last, and without validations the best."""
    stopping = run.validation.stopping
    best = step if run.validation.feed is None else stopping.best_step
    run.saves.keeper.settle(step, best=best, ranking=stopping.ranking, complain=complain)


def _where_it_stands(run: Run, found: Path) -> str:
    if run.finished is not None:
        return f"Nothing to do: the run is finished ({run.finished.says})."
    progress = run.state.progress
    return f"Resuming from step {progress.step:,} (epoch {progress.epochs:.2f}) of {found.name}."


def _load(found: Path, run: Run, say: Callable[[str], None]) -> None:
    """Bring the run to where a checkpoint stands, or raise StorageError or RefusedError where it does not fit."""
    stored, weights, averaged = read(found, mapped=run.learner.among.sharding.is_sharded)
    with _fitting(found):
        state = completed(stored)
        if run.learner.restructure(state["part structure"]["name"]):
            run.take_up_data()
    check_weights(run.learner.task, weights, found)
    with _fitting(found):
        run.learner.load_state_dict({"model": weights, "averaged": averaged, "optimizers": state["optimizers"]})
        run.state.load_state_dict(state)
        if not run.state.go_on_as(run.world.rank, run.world.size, state):
            say(
                f"The hidden states that are carried are those of {len(state.get('ranks', ())) or 1} ranks; since "
                f"nothing tells which of their dimensions has the batch's rows, of {run.world.size} ranks they begin "
                f"anew."
            )
        _tell_of_another_length(run, state.get("horizon"), say)
        run.finished = _what_finished(run, state)


@contextmanager
def _fitting(found: Path) -> Iterator[None]:
    """Tell of a state that is not of this run as a StorageError."""
    try:
        yield
    except EtudeError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise StorageError(f"The state in {found} does not fit this run ({type(error).__name__}: {error}).") from error


def _tell_of_another_length(run: Run, before: float | None, say: Callable[[str], None]) -> None:
    """Say how the schedules change when the run has become longer or shorter since its checkpoint."""
    now, progress = run.state.horizon, run.state.progress
    if before is None or now is None or before == now:
        return
    changes = [_changed_rate(slot, progress) for slot in run.learner.slots]
    say(
        f"The run is now {now:,.0f} steps long instead of {before:,.0f}, and schedules to its end change with it: "
        f"the learning rate goes from {', '.join(changes)} at step {progress.step + 1:,}."
    )


def _changed_rate(slot: Slot, progress: Progress) -> str:
    """Set the rates of a slot anew; from what to what its learning rate goes."""
    old = slot.learning_rate
    slot.set_rates(progress)
    return f"{old:.3g} to {slot.learning_rate:.3g}"


def _what_finished(run: Run, state: Mapping[str, Any]) -> End | None:
    """What had ended the run, if nothing since gives it more to do."""
    end = run.state.end
    if end is None or end.goes_on:
        return run.ending()
    run.events.requested = None  # it ended the run, and a longer one goes on
    repeated = run.ending()
    if repeated is not None:
        return repeated
    # Nothing in State repeats a stop that was asked for: it holds for as long as the run is to be as long.
    same = list(run.state.until) == list(state["ended"]["until"])
    return end if end.kind is Kind.ASKED and same else None


def load_weights(task: Task, weights: Mapping[str, Tensor], source: Path) -> None:
    """Give `task` the weights read from `source`, or refuse naming the first differences; never a part of them."""
    weights = task.fitting(weights)
    check_weights(task, weights, source)
    task.load_state_dict(dict(weights))


def check_weights(task: Task, weights: Mapping[str, Tensor], source: Path) -> None:
    """Raise RefusedError, naming the first differences, for weights that are not those of `task`."""
    if problems := differences(task.state_dict(), weights):
        raise RefusedError(f"The weights in {source} do not fit this model: {problems}.")
