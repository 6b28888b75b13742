"""What a trainer says and writes of a run and its weights, and which weights a task holds meanwhile."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from etude.base.errors import ConfigError
from etude.base.files import make_folder, write_json
from etude.base.says import Say
from etude.train.fit import Result
from etude.train.memory.checkpoint.content import ALIASES, MODEL
from etude.train.memory.checkpoint.nest import snapshot
from etude.train.memory.checkpoint.tensors import write_tensors
from etude.train.memory.portable import save_task
from etude.train.task import Task
from etude.train.watch.record import Record, Row

WEIGHTS = ("best", "last")


def check_weights(weights: str) -> None:
    """Refuse a word that names no weights."""
    if weights not in WEIGHTS:
        raise ConfigError(f'weights must be "best" or "last", but is {weights!r}.')


def step_of(result: Result, weights: str) -> int:
    """The step that the best or the last weights are of."""
    best = result.best_step if weights == "best" else None
    return result.progress.step if best is None else best


def at(step: int) -> str:
    """A step, as it stands behind a word.

    >>> at(1200)
    ' (step 1,200)'
    """
    return f" (step {step:,})"


def summary(result: Result, monitor: str) -> str:
    """How the run ended, and where its weights are."""
    best = step_of(result, "best")
    where = "in memory" if result.best is None else f"in {result.best}"
    return (
        f"{result.reason}. The task holds the last weights{at(result.progress.step)}; the best{at(best)}"
        f"{_judged(result, best, monitor)} are {where} and load with result.load_best(task); test() uses them."
    )


def _judged(result: Result, step: int, monitor: str) -> str:
    """What the weights of a step were judged by, where that was logged."""
    value = _row(result, step, monitor).get(monitor)
    return "" if value is None else f", {monitor} {value:.6g}"


@contextmanager
def holding(task: Task, result: Result, weights: str) -> Iterator[None]:
    """Let `task` hold the best weights of a run inside the block; the last are its own."""
    if weights == "last":
        yield
        return
    kept = {name: value.clone() for name, value in task.state_dict().items()}
    try:
        result.load_best(task)
        yield
    finally:
        task.load_state_dict(kept)


def record_test(result: Result, step: int, metrics: Mapping[str, float], folder: Path | None, say: Say) -> None:
    """Write a test's row, as of the step whose weights were tested."""
    record = Record(folder, complain=say)
    record.open(cut=None)
    record.write(_head(result, step) | dict(metrics))
    record.close()
    match result.history:
        case list() as rows:
            rows.append(record.rows[-1])


def _head(result: Result, step: int) -> dict[str, float]:
    """How far the run was at a step, as its row there tells; without one, as it is now."""
    now = result.progress
    head = {"step": step, "epoch": round(now.epochs, 6), "tokens": now.tokens}
    row = _row(result, step, "step")
    return head | {key: row[key] for key in head if key in row}


def _row(result: Result, step: int, key: str) -> Row:
    """The first row of a step that has a key; an empty one where there is none."""
    return next((row for row in result.history if row["step"] == step and key in row), {})


def write_task(task: Task, folder: Path) -> None:
    """Write the task's present weights and its arguments."""
    make_folder(folder)
    tensors, aliases = snapshot(task.state_dict())
    write_tensors(folder / MODEL, tensors)
    if aliases:
        write_json(folder / ALIASES, {MODEL: aliases})
    save_task(task, folder)
