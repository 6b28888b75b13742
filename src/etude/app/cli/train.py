"""`etude train`."""

from argparse import Namespace
from pathlib import Path

from etude.app.cli.convert import load_run
from etude.app.cli.naming import command, shell_word
from etude.app.cli.stages import refuse_stages, run_stages
from etude.app.cli.streams import say
from etude.app.cli.waiting import NOTES
from etude.app.interrupted import told
from etude.app.ranks import is_first, start_ranks, starts_ranks
from etude.app.running import train_run
from etude.app.stages.loading import is_pipeline
from etude.base.files import json_or_empty
from etude.tasks.config import Config
from etude.tasks.own import task_type
from etude.tasks.task_type import SKIPPED
from etude.train.fit import Result
from etude.train.interrupt import Interrupted


def run(arguments: Namespace, overrides: list[str]) -> int:
    """Train, continue, or say that there is nothing left to do."""
    if is_pipeline(arguments.config):
        return run_stages(arguments, overrides)
    refuse_stages(arguments)
    loaded = load_run(arguments, overrides)
    config = loaded.config
    if starts_ranks(config.distributed):
        return start_ranks(arguments.words, config.distributed.processes, say)
    for note in NOTES if arguments.debug else ():
        say(note)
    try:
        result = train_run(loaded, say=say)
    except Interrupted as ending:
        if is_first():
            say(told(ending, config.folder))
        raise
    if is_first():
        say(summary(result, config))
    return 0


def summary(result: Result, config: Config) -> str:
    """How a run ended, what it leaves, and what to do next."""
    folder, example = config.folder, task_type(config).example(config)
    lines = [f"Done at step {result.progress.step:,} (epoch {result.progress.epochs:.2f}): {result.reason}."]
    lines += [f"Best: {_told(result.best)}", f"Last: {_told(result.last)}"]
    if result.skipped:
        lines.append(f"Skipped: {result.skipped:,} steps whose loss or gradient was not finite.")
    if left_out := _count_lines(folder / SKIPPED):
        lines.append(f"Left out: {left_out:,} bad samples ({shell_word(folder / SKIPPED)} lists them).")
    etude, shown = command(), shell_word(folder)
    lines += ["Next:", f"  {etude} test {shown}", f"  {etude} predict {shown} {example}"]
    return "\n".join(lines)


def _count_lines(path: Path) -> int:
    try:
        with path.open("rb") as file:
            return sum(1 for _ in file)
    except OSError:
        return 0


def _told(checkpoint: Path | None) -> str:
    """A checkpoint and what validation measured there."""
    if checkpoint is None:
        return "none."
    metrics = json_or_empty(checkpoint / "manifest.json").get("metrics")
    numbers = _numbers(metrics) if isinstance(metrics, dict) else {}
    measured = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items() if name != "val/epoch_loss")
    return f"{checkpoint.name}" + (f" ({measured})." if measured else ".")


def _numbers(metrics: dict[str, object]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if isinstance(value, int | float)}
