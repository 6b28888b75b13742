"""What else is to be known of a plan, in sentences: what it cannot foresee, and where its run stands."""

from collections.abc import Iterator, Sequence

from etude.app.phases import Phases, told
from etude.app.runs.folder import CONFIG, compare
from etude.base.durations import Duration
from etude.base.errors import RefusedError
from etude.tasks.config import LoadedConfig
from etude.train.config import TrainConfig
from etude.train.driver import Moments
from etude.train.memory.checkpoint.naming import checkpoint_step
from etude.train.memory.checkpoint.store import LAST, Store
from etude.train.run import Run
from etude.train.structure import Structure


def standing(loaded: LoadedConfig) -> Iterator[str]:
    """Where the run of this config stands, if it was begun."""
    yield from loaded.notes
    folder = loaded.config.folder
    if not (folder / CONFIG).is_file():
        return
    last = Store(folder / "checkpoints").link(LAST)
    if last is None:
        yield f"{folder} exists, but has not saved yet."
        return
    yield f"{folder} is at step {checkpoint_step(last):,}; the plan starts at the first step."
    try:
        yield from compare(loaded, folder)
    except RefusedError as error:
        yield f"It cannot resume with this config: {error}"


def growth(structure: Structure) -> list[str]:
    """What becomes of the model in the course of the run: a line for each change, and what it does to its tensors."""
    if not isinstance(structure, Phases):
        return []
    return [line for one in structure.changes for line in (told(one), *_beyond_copies(one.transfer.text()[1:]))]


def _beyond_copies(lines: Sequence[str]) -> list[str]:
    """The lines that tell of more than that a tensor stays what it was."""
    return [line for line in lines if not line.startswith("copied")]


def notes_of(run: Run, train: TrainConfig, most: int | None) -> Iterator[str]:
    """What is not in the plan of a run, of which `most` steps were asked for."""
    yield from _ends_by_the_clock(run.moments.until, most)
    yield from _moments_by_the_clock(run.moments)
    if run.validation.feed is not None:
        yield from _of_validations(train)


def _ends_by_the_clock(until: Sequence[Duration], most: int | None) -> Iterator[str]:
    clock = [str(duration) for duration in until if duration.unit == "seconds"]
    if clock:
        how = _alone(most) if len(clock) == len(until) else "may end the run earlier than the plan"
        yield f"train.max_duration = {' or '.join(clock)}, by the clock, {how}."


def _alone(most: int | None) -> str:
    more = "; --steps N plans further than the first epoch" if most is None else ""
    return f"alone bounds the run, so its length is unknown{more}"


def _moments_by_the_clock(when: Moments) -> Iterator[str]:
    for key, every in (("log_every", when.log), ("eval_every", when.validate), ("save_every", when.save)):
        if every.unit == "seconds":
            yield f"train.{key} = {every} is a time: the plan does not contain it."


def _of_validations(train: TrainConfig) -> Iterator[str]:
    if train.patience is not None:
        least = "" if train.min_duration is None else f", though not before {train.min_duration}"
        yield f"The run ends earlier if {train.monitor} has not improved for {_waited(train.patience)}{least}."
    yield "A validation that is the best so far saves too."


def _waited(patience: int | Duration) -> str:
    return f"{patience} validations" if isinstance(patience, int) else str(patience)
