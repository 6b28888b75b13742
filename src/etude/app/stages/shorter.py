"""A run that has gone further than it is asked for answers with what it was there, where it still has that."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel

from etude.app.fork.kept import Kept
from etude.base.durations import Duration
from etude.base.errors import EtudeError, StorageError
from etude.base.files import read_json
from etude.base.horizon import Horizon
from etude.base.progress import Progress
from etude.base.says import Say
from etude.base.schedules import bind
from etude.base.schedules.spec import ScheduleSection
from etude.tasks.config import LoadedConfig
from etude.train.end import Kind
from etude.train.fit import Result
from etude.train.job import as_durations
from etude.train.memory.checkpoint.content import MANIFEST
from etude.train.memory.checkpoint.reader import verify
from etude.train.memory.checkpoint.store import Store

_EPOCH = 1 << 10
_LENGTHS = (1 << 24, 1 << 26)
"""Steps of two runs, longer than any warm-up, in which a schedule is asked whether it has other values."""
_PROBED = (0, *(1 << power for power in range(24)), *(_LENGTHS[0] * tenth // 10 for tenth in range(1, 11)))
"""The steps at which it is asked."""


def answered(result: Result, loaded: LoadedConfig, folder: Path, say: Say) -> Result:
    """The result of a run that is as long as is asked for, of one that has gone further; of any other the same.

    That takes the checkpoint of its end, with its row. Where they are gone, or a schedule follows the run's length, so
    that a shorter one would have been another, that is said, and the result is that of the longer run.
    """
    until = as_durations(loaded.config.train.max_duration)
    if result.end.kind is not Kind.LENGTH or result.last is None or _ends_there(Kept.at(result.last), until):
        return result
    asked = " or ".join(map(str, until))
    if follows_its_length(loaded.config):
        say(f"The run has gone on past {asked}, and schedules follow its length: its end is not that of a shorter run.")
        return result
    store = Store(folder / "checkpoints")
    found = _end(result, store, until)
    if found is None:
        say(f"The run has gone on past {asked}, and keeps no checkpoint of that moment: the result is that of its end.")
        return result
    say(f"The run has gone on past {asked}; its checkpoint of that moment, {found.name}, is the result.")
    return _at(result, found, store)


def _end(result: Result, store: Store, until: Sequence[Duration]) -> Path | None:
    """The checkpoint of the moment at which a run of this length ends, where it and its row are there."""
    logged = {row.get("step") for row in result.history}
    there = (store.path(step) for step in store.steps() if step in logged)
    return next((path for path in there if _is_sound_end(path, until)), None)


def _at(result: Result, checkpoint: Path, store: Store) -> Result:
    kept = Kept.at(checkpoint)
    best = None if kept.best_step is None else store.path(kept.best_step)
    return replace(
        result,
        progress=kept.progress,
        metrics=read_json(checkpoint / MANIFEST).get("metrics", {}),
        best=checkpoint if best is None or not best.is_dir() else best,
        last=checkpoint,
        history=[row for row in result.history if row["step"] <= kept.progress.step],
        best_step=kept.best_step,
    )


def _ends_there(kept: Kept, until: Sequence[Duration]) -> bool:
    """Whether a run of this length ends at a moment, or it cannot be told that it ends before."""
    passed = [one for one in until if one.reached(kept.progress)]
    return not passed or any(one.unit not in {"steps", "epochs"} or kept.is_exactly(one) for one in passed)


def _is_sound_end(checkpoint: Path, until: Sequence[Duration]) -> bool:
    try:
        kept = Kept.at(checkpoint)
        if not all(kept.is_exactly(one) for one in until if one.reached(kept.progress)):
            return False
        verify(checkpoint)
    except StorageError:
        return False
    return any(kept.is_exactly(one) for one in until)


# -- what follows the length of a run ----------------------------------------------------------------------------------


def follows_its_length(config: BaseModel) -> bool:
    """Whether a schedule has other values in a longer run, or cannot be asked."""
    return any(map(_follows, _schedules_in(config)))


def _schedules_in(value: object) -> Iterator[ScheduleSection]:
    match value:
        case ScheduleSection():
            yield value
        case BaseModel():
            for _, part in value:
                yield from _schedules_in(part)
        case Mapping():
            for part in value.values():
                yield from _schedules_in(part)
        case list() | tuple():
            for part in value:
                yield from _schedules_in(part)


def _follows(schedule: ScheduleSection) -> bool:
    try:
        short, long = (
            bind(schedule, Horizon(steps, _EPOCH, samples_per_step=8, tokens_per_step=64), key="schedule", d_model=64)
            for steps in _LENGTHS
        )
        return any(short(moment) != long(moment) for moment in map(_moment, _PROBED))
    except (EtudeError, ArithmeticError, LookupError, TypeError, ValueError):
        return True


def _moment(step: int) -> Progress:
    epoch, done = divmod(step, _EPOCH)
    return Progress(step, step, epoch, 8 * step, 64 * step, epoch_done=done, epoch_total=_EPOCH)
