"""Averages the weights of several checkpoints of a run into a folder that is used as a checkpoint is."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from etude.app.export import check_place
from etude.app.runs.run import Run
from etude.base.errors import ConfigError
from etude.base.files import whole_folder, write_json
from etude.base.hashes import write_hashes
from etude.base.paths import user_path
from etude.train.memory.checkpoint.content import ALIASES, MODEL
from etude.train.memory.checkpoint.naming import FOLDER
from etude.train.memory.checkpoint.nest import snapshot
from etude.train.memory.checkpoint.store import Store
from etude.train.memory.checkpoint.tensors import write_tensors
from etude.train.memory.mean import Mean, mean_of
from etude.train.memory.portable import TASK_FILE

AVERAGES, ABOUT = "averages", "average.json"
SHOWN = 5


def average(
    run: str | Path,
    *,
    last: int | None = None,
    checkpoints: Sequence[str] = (),
    output: str | Path | None = None,
    allow_code: bool = True,
) -> tuple[Path, str]:
    """Write the mean of the weights of the `last` checkpoints of a run, or of those named, as `Run.checkpoint` does.

    The folder is `output`, or one in the run's `averages/`; it appears whole or not at all. Gives it, and a sentence.
    Raises ConfigError where the checkpoints cannot be told, or where the folder holds something already.
    """
    opened = Run(run, allow_code=allow_code)
    found = _last(opened, last) if last is not None else _named(opened, checkpoints)
    place = opened.folder / AVERAGES / _name(found) if output is None else user_path(output)
    check_place(place)
    mean = mean_of(found)
    with whole_folder(Path(os.path.realpath(place)), "write") as part:
        _write(mean, found, part)
    return place, f"the mean of {len(found)} checkpoints, {', '.join(one.name for one in found)}.{_left(mean)}"


def _last(run: Run, count: int) -> list[Path]:
    """The newest checkpoints, oldest first."""
    if count < 1:
        raise ConfigError(f"--last must be at least 1, but is {count}.")
    store = Store(run.folder / FOLDER)
    steps = store.steps()
    if len(steps) < count:
        raise ConfigError(
            f"--last asks for {count} checkpoints, but {run.folder} has {len(steps)}; train.keep_last says how many "
            f"a run keeps."
        )
    return [store.path(step) for step in steps[-count:]]


def _named(run: Run, names: Sequence[str]) -> list[Path]:
    if not names:
        raise ConfigError("Which checkpoints? Give --last N, or --checkpoints with steps, best, last or folders.")
    found = [Path(os.path.realpath(run.checkpoint(name))) for name in names]
    for name, path in zip(names, found, strict=True):
        if found.count(path) > 1:
            raise ConfigError(f"--checkpoints names {path.name} twice ({name}): name it once.")
    return found


def _name(found: Sequence[Path]) -> str:
    ends = [found[0].name.removeprefix("step-"), found[-1].name.removeprefix("step-")]
    return f"{len(found)}-from-{ends[0]}-to-{ends[1]}"


def _write(mean: Mean, found: Sequence[Path], folder: Path) -> None:
    """What `read_weights` and `Task.load` read, and of what it was made."""
    tensors, aliases = snapshot(mean.weights)
    write_tensors(folder / MODEL, tensors)
    if aliases:
        write_json(folder / ALIASES, {MODEL: aliases})
    write_json(folder / ABOUT, {"checkpoints": [str(path) for path in found], "taken from the last": [*mean.taken]})
    if (found[-1] / TASK_FILE).is_file():
        shutil.copyfile(found[-1] / TASK_FILE, folder / TASK_FILE)
    write_hashes(folder)


def _left(mean: Mean) -> str:
    """What was not averaged."""
    if not mean.taken:
        return ""
    more = f" and {len(mean.taken) - SHOWN} more" if len(mean.taken) > SHOWN else ""
    return f" As in the last of them, since whole numbers have no mean: {', '.join(mean.taken[:SHOWN])}{more}."
