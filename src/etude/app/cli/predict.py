"""`etude predict`: lines in, lines out, in order, as they come."""

import contextlib
import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from etude.app.cli.lines import Lines
from etude.app.cli.loading import open_run, overrides_of
from etude.app.cli.streams import is_terminal, printable, writing_stdout
from etude.app.runs.run import Run
from etude.base.errors import ConfigError, DataError
from etude.base.files import fsync_folder, storage
from etude.tasks.translation.task import Translation

BATCH_SIZE = 32
"""Lines computed together unless `--batch-size` says otherwise."""

Predict = Callable[[list[str]], Iterator[list[Translation]]]
Form = Callable[[int, str, Sequence[Translation]], str]
"""Turns a line's number, its text and its translations into what is written, line ends included."""


def run(arguments: Namespace, overrides: list[str]) -> int:
    """Predict every line of the input."""
    opened = _opened(arguments, overrides)
    opened.checkpoint(arguments.checkpoint)
    with _input(arguments.file) as (stream, name):
        if _kind(opened) == "language_model":
            from etude.app.cli.complete import complete

            model: Any = opened.load(arguments.checkpoint, device=arguments.device)
            with _output(arguments.output) as out:
                complete(model, arguments, (stream, name), out)
            return 0
        lines = Lines(stream, name)  # reads while the model is loaded
        task: Any = opened.load(arguments.checkpoint, device=arguments.device)
        if not callable(getattr(task, "predict", None)):
            raise ConfigError(f"{type(task).__name__} does not predict from lines; use its predict_step from Python.")

        def predict(window: list[str]) -> Iterator[list[Translation]]:
            found: Iterator[list[Translation]] = task.predict(
                window, batch_size=arguments.batch_size or BATCH_SIZE, window=len(window)
            )
            return found

        with _output(arguments.output) as out:
            stream_out(lines, predict, out, form(arguments, out))
    return 0


def stream_out(lines: Lines, predict: Predict, out: TextIO, shape: Form) -> None:
    """Write what `predict` gives for every line, in order, each window as soon as it is there."""
    number = 0
    for window in lines.windows():
        for source, found in zip(window, predict(window), strict=True):
            number += 1
            out.write(shape(number, source, found))
        out.flush()


def form(arguments: Namespace, out: TextIO) -> Form:
    """How a prediction is written: an object, the best text, or several texts with their number and score."""
    count = arguments.n_best
    if arguments.json:
        return lambda _, source, found: f"{_object(source, found[:count])}\n"
    safe = printable if is_terminal(out) else str
    if count == 1:
        return lambda _, __, found: f"{safe(one_line(found[0].text))}\n"
    return lambda number, _, found: "".join(
        f"{number}\t{one.score:.6f}\t{safe(one_line(one.text))}\n" for one in found[:count]
    )


def one_line(text: str) -> str:
    """The text without line breaks, which would shift the lines behind it."""
    return text.replace("\r", " ").replace("\n", " ")


def _object(source: str, found: Sequence[Translation]) -> str:
    return json.dumps(
        {
            "source": source,
            "prediction": found[0].text,
            "score": found[0].score,
            "predictions": [{"text": one.text, "score": one.score} for one in found],
        },
        ensure_ascii=False,
    )


def _opened(arguments: Namespace, overrides: list[str]) -> Run:
    """The run, its beam at least as wide as the number of predictions asked for."""
    count, width = arguments.n_best, arguments.beam_size
    if count < 1:
        raise ConfigError(f"--n-best must be at least 1, but is {count}.")
    if width is not None and width < count:
        raise ConfigError(f"--n-best must be at most --beam-size, which is {width}, but is {count}.")
    opened = open_run(arguments, overrides)
    if words := overrides_of(arguments, _kind(opened)):
        return open_run(arguments, [*overrides, *words])
    if opened.config.get("task", {}).get("beam_size", count) < count:
        opened = open_run(arguments, [*overrides, "--task.beam_size", str(count)])
    return opened


def _kind(opened: Run) -> str:
    """The type of the run's task."""
    return str(opened.config.get("task", {}).get("type", ""))


@contextlib.contextmanager
def _input(file: str | None) -> Iterator[tuple[BinaryIO, str]]:
    """The bytes to read, and what messages call them."""
    if file is None or file == "-":
        yield _standard_input(), "standard input"
        return
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(Path(file).open("rb"))
        except FileNotFoundError:
            raise DataError(f"{file} does not exist; give a file of lines, or none to read standard input.") from None
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror}.") from None
        yield stream, file


def _standard_input() -> BinaryIO:
    """Standard input through a buffer of its own: the interpreter cannot end while another thread reads from its."""
    try:
        return open(sys.stdin.fileno(), "rb", closefd=False)
    except (OSError, ValueError):  # no file behind it
        return sys.stdin.buffer


@contextlib.contextmanager
def _output(file: str | None) -> Iterator[TextIO]:
    """Where to write: standard output, or a file that appears whole or not at all."""
    if file is None:
        with writing_stdout():
            yield sys.stdout
        return
    path = Path(file)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage("write", path):
        try:
            with temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="\n") as out:
                yield out
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fsync_folder(path.parent)
