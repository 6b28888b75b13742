"""Averages the weights of several checkpoints of a run into a folder that is used as a checkpoint is."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from torch import Tensor

from etude.app.export import check_place
from etude.app.runs.chosen import Choice
from etude.app.runs.run import Run
from etude.app.runs.statistics import with_new_statistics
from etude.base.files import whole_folder, write_json
from etude.base.hashes import write_hashes
from etude.base.paths import user_path
from etude.base.says import Say, unheard
from etude.train.memory.checkpoint.content import ALIASES, AVERAGED, MODEL
from etude.train.memory.checkpoint.nest import snapshot
from etude.train.memory.checkpoint.shards import files_of
from etude.train.memory.checkpoint.tensors import write_tensors
from etude.train.memory.mean import Mean, mean_of
from etude.train.memory.portable import TASK_FILE
from etude.train.step.batch_norm import has_statistics

AVERAGES, ABOUT = "averages", "average.json"
SHOWN = 5
ALL: Literal["all"] = "all"


def average(  # noqa: PLR0913 - what the shell asks for, one for one
    run: str | Path,
    *,
    last: int | None = None,
    best: int | None = None,
    steps: str | None = None,
    checkpoints: Sequence[str] = (),
    output: str | Path | None = None,
    recompute_statistics: int | Literal["all"] | None = None,
    allow_code: bool = True,
    say: Say = unheard,
) -> tuple[Path, str]:
    """Write the mean of the weights of some checkpoints of a run: where it kept a moving average, of that.

    They are the `last` ones, the `best` ones by the monitored metric, those of `steps` ("1000:5000"), or those named,
    as `Run.checkpoint` does, or by folders, also of other runs of the same model. With `recompute_statistics` the
    statistics of batch normalisation are computed over so many batches of training data, or an epoch ("all").

    The folder is `output`, or one in the run's `averages/`; it appears whole or not at all. Gives it, and a sentence.
    Raises ConfigError where the checkpoints cannot be told, or where the folder holds something already.
    """
    opened = Run(run, allow_code=allow_code, say=say)
    found = Choice(last, best, steps, checkpoints).of(opened)
    place = opened.folder / AVERAGES / _name(found) if output is None else user_path(output)
    check_place(place)
    mean = mean_of(found)
    batches: int | None = None
    with whole_folder(Path(os.path.realpath(place)), "write") as part:
        _write(mean.weights, found, part)
        if recompute_statistics is not None and has_statistics(mean.weights):
            most = None if recompute_statistics == ALL else recompute_statistics
            weights, batches = with_new_statistics(opened, part, most, say)
            _write(weights, found, part)
        made = {"taken from the last": [*mean.taken], "batches of statistics": batches}
        write_json(part / ABOUT, {"checkpoints": [str(path) for path in found], **made})
        write_hashes(part)
    said = f"the mean of {len(found)} checkpoints, {', '.join(_names(opened, found))}{_of_averages(found)}."
    return place, said + _left(mean) + _statistics(mean, batches)


def _name(found: Sequence[Path]) -> str:
    ends = sorted(path.name.removeprefix("step-") for path in found)
    return f"{len(found)}-from-{ends[0]}-to-{ends[-1]}"


def _names(run: Run, found: Sequence[Path]) -> list[str]:
    """What the checkpoints are called; those outside of the run by their whole path."""
    own = Path(os.path.realpath(run.folder / "checkpoints"))
    return [path.name if Path(os.path.realpath(path.parent)) == own else str(path) for path in found]


def _write(weights: Mapping[str, Tensor], found: Sequence[Path], folder: Path) -> None:
    """What `read_weights` and `Task.load` read."""
    tensors, aliases = snapshot(weights)
    write_tensors(folder / MODEL, tensors)
    if aliases:
        write_json(folder / ALIASES, {MODEL: aliases})
    if (found[-1] / TASK_FILE).is_file():
        shutil.copyfile(found[-1] / TASK_FILE, folder / TASK_FILE)


def _of_averages(found: Sequence[Path]) -> str:
    """What was averaged, where it is not the weights that were trained."""
    kept = [bool(files_of(AVERAGED, path)) for path in found]
    if not any(kept):
        return ""
    return " (of the moving average that each keeps)" if all(kept) else " (of the moving average where one was kept)"


def _left(mean: Mean) -> str:
    """What was not averaged."""
    if not mean.taken:
        return ""
    more = f" and {len(mean.taken) - SHOWN} more" if len(mean.taken) > SHOWN else ""
    return f" As in the last of them, since whole numbers have no mean: {', '.join(mean.taken[:SHOWN])}{more}."


def _statistics(mean: Mean, batches: int | None) -> str:
    """What the running statistics are of."""
    if not has_statistics(mean.weights):
        return ""
    if batches is None:
        return (
            " The running statistics of batch normalisation are means, too, and not those of the averaged weights: "
            "--recompute-statistics computes them over the training data."
        )
    return f" The running statistics of batch normalisation are of {batches:,} batches of training data."
