"""`etude demo`: a run from nothing to a translator, killed on the way, in a few minutes and without a download."""

import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from etude.app.cli.naming import command, shell_word
from etude.app.cli.streams import is_terminal, printable, put, say
from etude.app.layout import columns
from etude.app.results.summary import FINISHED, RUNNING, last_row, state
from etude.base.errors import RefusedError, StorageError

CONFIG = Path(__file__).with_name("demo.toml").resolve()
"""The recipe of the demo: `recipes/translation.toml`, which the package carries under this name."""

NAME = "demo"
METRICS = "metrics.jsonl"
POLL_SECONDS = 0.1
SHOW_CURSOR = "\x1b[?25h"
SAMPLES = 10
WIDEST = 50
"""Characters of the longest text in the table of translations."""


def run(arguments: Namespace, overrides: list[str]) -> int:
    """Train, be killed, go on, test and translate; a finished demo is told of, and tested if it was not."""
    folder = Path(arguments.dir) / NAME
    if arguments.fresh:
        remove(folder)
    train = [sys.executable, "-m", "etude", "train", str(CONFIG), "--run.name", NAME, "--run.dir", arguments.dir]
    if is_finished(folder) and not overrides:
        say(f"The demo's run in {folder} is finished; --fresh removes it and starts over.")
    elif code := trained([*train, *overrides], folder):
        return code
    metrics = measured(folder)
    put("\n" + scores(metrics))
    put("\n" + translations(folder))
    put("\n" + farewell(folder))
    return 0


def is_finished(folder: Path) -> bool:
    """Whether the demo's run is there, and at its end."""
    return folder.is_dir() and state(folder) == FINISHED


def remove(folder: Path) -> None:
    """Remove the demo's earlier run. Raises RefusedError where the folder holds something else, or is in use."""
    if not folder.exists():
        return
    if not (folder / "config.toml").is_file():
        raise RefusedError(f"{folder} is not a run folder, so it stays; give another --dir.")
    if state(folder) == RUNNING:
        raise RefusedError(f"The run in {folder} is running; stop it first.")
    from etude.app.runs.folder import remove_tree

    remove_tree(folder)


def trained(words: Sequence[str], folder: Path) -> int:
    """Train in a process of its own, kill it once where the run is new, and let it end; its exit code."""
    if not (folder / "checkpoints" / "last").exists():
        say(f"Training: {' '.join(shell_word(word) for word in [command(), *words[3:]])}\n")
        with started(words) as process:
            if not killed(process, folder):
                return process.returncode
        tell_of_death(folder)
    with started(words) as process:
        return finished(process)


def tell_of_death(folder: Path) -> None:
    """Say where the process died, and from where the next will go on."""
    step, kept = last_row(folder / METRICS).get("step", 0), kept_step(folder)
    if is_terminal(sys.stderr):
        sys.stderr.write(f"\n{SHOW_CURSOR}")
    say(
        f"\n*** kill -9: the training process died somewhere after step {step:,}. ***\n"
        f"*** The same command resumes from the newest checkpoint, step {kept:,}. ***\n"
    )


def killed(process: "subprocess.Popen[bytes]", folder: Path) -> bool:
    """Wait until the run has logged steps behind a checkpoint, and kill it; false where it ended before."""
    while process.poll() is None:
        kept = kept_step(folder)
        if kept and last_row(folder / METRICS).get("step", 0) > kept:
            process.kill()
            process.wait()
            return True
        time.sleep(POLL_SECONDS)
    return False


def kept_step(folder: Path) -> int:
    """The step of the newest checkpoint; 0 without one."""
    last = folder / "checkpoints" / "last"
    return int(last.resolve().name.rpartition("-")[2]) if last.exists() else 0


@contextmanager
def started(words: Sequence[str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that gets the signals that end this one, and does not outlive the block."""
    process = subprocess.Popen(list(words))  # noqa: S603 - our own command
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        yield process
    finally:
        signal.signal(signal.SIGTERM, before)
        if process.poll() is None:
            process.terminate()
            finished(process)


def finished(process: "subprocess.Popen[bytes]") -> int:
    """Wait for the process to end, also after Ctrl-C, which it has got as well; its exit code."""
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def measured(folder: Path) -> Mapping[str, Any]:
    """The test metrics of the best weights, measured now unless that was done before."""
    row = last_row(folder / METRICS)
    if "test/bleu" in row and (folder / "outputs" / "test.txt").is_file():
        return row
    say("\nTesting on values never seen in training ...")
    from etude.app.runs.run import Run

    return Run(folder, say=say).test()


def scores(metrics: Mapping[str, float | None]) -> str:
    """Test BLEU and chrF, with how sacrebleu computed them where it says."""
    names = {"test/bleu": "BLEU", "test/chrf": "chrF"}
    values = {name: metrics.get(key) for key, name in names.items()}
    found = ", ".join(f"test {name} {value:.1f}" for name, value in values.items() if value is not None)
    return f"On values never seen in training: {found}."


def translations(folder: Path) -> str:
    """Ten translations beside their references, in aligned columns."""
    files = ("test.source.txt", "test.txt", "test.reference.txt")
    rows = list(zip(*(_lines(folder / "outputs" / name) for name in files), strict=True))
    short = [row for row in rows if max(map(len, row)) <= WIDEST] or rows
    chosen = [short[index * len(short) // SAMPLES] for index in range(min(SAMPLES, len(short)))]
    return table([("English", "translation", "reference"), *chosen])


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows in aligned columns, a rule under the first."""
    heads, *below = rows
    rule = ["-" * max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return "\n".join(map(printable, columns([heads, rule, *below])))


def farewell(folder: Path) -> str:
    """Where the run lies, and what to do next."""
    etude, place, parent = command(), shell_word(folder), shell_word(folder.parent)
    return (
        f"The run is in {folder}. Next:\n"
        f'  echo "The train to Lima leaves at 7:45 p.m." | {etude} predict {place}\n'
        f"  {etude} train {shell_word(CONFIG)} --data.train MY.tsv --data.val MY_VAL.tsv --run.name mine\n"
        f"  {etude} runs {parent}"
    )


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}.") from error
