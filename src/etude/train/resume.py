"""Going on with a run where its newest sound checkpoint stands."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from etude.base.errors import EtudeError, RefusedError, StorageError
from etude.train.end import End, Kind
from etude.train.job import Job
from etude.train.memory.checkpoint import read
from etude.train.memory.checkpoint.naming import checkpoint_step
from etude.train.memory.keeper import FolderKeeper
from etude.train.task import Task
from etude.train.training import Training


def go_on(job: Job, training: Training) -> None:
    """Load the newest sound checkpoint, if there is one, and open the record where it stood."""
    keeper = training.keeper
    assert isinstance(keeper, FolderKeeper)
    keeper.store.prepare()
    found = keeper.store.newest_sound(job.say)
    if found is None:
        if job.resume == "must":
            raise RefusedError(f"There is nothing to resume in {job.folder}: it holds no checkpoint.")
        training.record.open(cut=0)
        return
    if job.resume == "never":
        raise RefusedError(f"{job.folder} already holds a run; give another folder, or resume it.")
    state, weights, averaged = read(found)
    load_weights(job.task, weights, found)
    try:
        for slot in training.slots:
            slot.load_state_dict(state["optimizers"][slot.name])
        training.state.load_state_dict(state)
        training.average.load(averaged, {"updates": training.state.progress.step - training.state.skipped})
        _tell_of_another_length(training, state.get("horizon"), job.say)
        finished = _is_finished(training, state)
        cut = None if finished else int(state["record"]["bytes"])
    except EtudeError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise StorageError(f"The state in {found} does not fit this run ({type(error).__name__}: {error}).") from error
    training.record.open(cut=cut)
    step, stopping = checkpoint_step(found), training.stopping
    best = step if training.validation is None else stopping.best_step
    keeper.store.settle(step, best=best, ranking=stopping.ranking, complain=job.say)
    progress = training.state.progress
    job.say(
        f"Nothing to do: the run is finished ({training.finished.says})."
        if training.finished is not None
        else f"Going on from step {progress.step:,} (epoch {progress.epochs:.2f}) of {found.name}."
    )
    training.events.load(found)


def _tell_of_another_length(training: Training, before: float | None, say: Callable[[str], None]) -> None:
    """Say how the schedules change when the run has become longer or shorter since its checkpoint."""
    now = training.horizon_steps
    if before is None or now is None or before == now:
        return
    changes = []
    for slot in training.slots:
        old = slot.learning_rate
        slot.set_rates(training.state.progress)
        changes.append(f"{old:.3g} to {slot.learning_rate:.3g}")
    say(
        f"The run is now {now:,.0f} steps long instead of {before:,.0f}, and schedules that reach to its end follow: "
        f"the learning rate goes from {', '.join(changes)} at step {training.state.progress.step + 1:,}."
    )


def _is_finished(training: Training, state: Mapping[str, Any]) -> bool:
    """Whether the run had ended, and nothing since gives it more to do."""
    end = End.read(state)
    over = end is not None and not end.goes_on
    if over:
        training.events.requested = None  # it ended the run, and a longer one goes on
    training.finished = training.ending()
    if training.finished is None and over and _still_holds(end, state["ended"]["until"], training):
        training.finished = end
    return training.finished is not None


def _still_holds(end: End | None, until: Sequence[str], training: Training) -> bool:
    """Whether an end that nothing in the run's state repeats is its end all the same: a stop that was asked for."""
    match end:
        case End(kind=Kind.ASKED):
            return list(until) == [str(duration) for duration in training.moments.until]
    return False


def load_weights(task: Task, weights: Mapping[str, Any], source: Path) -> None:
    """Give `task` the weights read from `source`, or refuse naming the first differences; never a part of them."""
    own = task.state_dict()
    problems = [f"{name} is missing" for name in own if name not in weights]
    problems += [f"{name} has no place in the model" for name in weights if name not in own]
    problems += [
        f"{name} has shape {tuple(weights[name].shape)} instead of {tuple(value.shape)}"
        for name, value in own.items()
        if name in weights and weights[name].shape != value.shape
    ]
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""  # noqa: PLR2004
        raise RefusedError(f"The weights in {source} do not fit this model: {'; '.join(problems[:3])}{more}.")
    task.load_state_dict(dict(weights))
