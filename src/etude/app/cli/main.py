"""The shell's first and last words: from the command line to a verb, and from what it raises to an exit code."""

import signal
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from etude.app.cli.kernels import bound_kernels
from etude.app.cli.parsing import choose, overview, parse
from etude.app.cli.streams import (
    CLOSED_PIPE,
    INTERRUPTED,
    abandon_stdout,
    finish_stdout,
    open_streams,
    printable,
    put,
    say,
)
from etude.app.cli.waiting import settle_waiting
from etude.base.errors import ConfigError, EtudeError
from etude.base.signals import REQUEUE

LINES = 6
"""An error is at most this many lines."""

COMPUTING = ("train", "check", "plan", "find", "validate", "test", "predict", "align", "fork")
"""The verbs that start torch's threads."""

ENDING = {signal.SIGTERM: 143, signal.SIGUSR1: REQUEUE}
"""Signals that end a verb, but for training that has begun, and the exit codes that tell of them."""
USAGE = 2


class Ended(SystemExit):
    """A signal outside of training, which has its own way to end."""

    def __init__(self, received: signal.Signals) -> None:
        super().__init__(ENDING[received])
        self.received = received


def main(words: Sequence[str]) -> int:
    """Run one command line; return its exit code. Nothing but a result reaches stdout, no traceback reaches anyone."""
    open_streams()
    try:
        return _run_or_say(words, debug="--debug" in words)
    except BrokenPipeError:
        abandon_stdout()
        return CLOSED_PIPE
    except Ended as ending:
        say(f"etude: ended by {ending.received.name}.")
        return ENDING[ending.received]
    except SystemExit as ending:  # argparse after its help, and a run that was interrupted and has saved
        return ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except KeyboardInterrupt:
        say("etude: interrupted.")
        return INTERRUPTED


def _run_or_say(words: Sequence[str], *, debug: bool) -> int:
    """Run one command line, and say in its place what went wrong; only what ends a process from outside gets past."""
    try:
        with _signals_unwind(), warnings.catch_warnings():
            warnings.showwarning = _warn
            code = _run([*words])
        finish_stdout()
    except BrokenPipeError:
        raise
    except EtudeError as error:
        _trace(debug=debug)
        say(block(error))
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - whatever it is, the user gets one line
        _trace(debug=debug)
        said = " ".join(str(error).split()) or "no message"
        say(f"etude: {type(error).__name__}: {said}" + ("" if debug else " (--debug shows the traceback)"))
        return 1
    return code


def block(error: EtudeError) -> str:
    """The lines that tell of an error: one for each problem, at most six, the rest counted."""
    lines = _problems(error) or [type(error).__name__]
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], f"and {len(lines) - LINES + 1} more problems."]
    return "\n".join(printable(f"etude: {line}") for line in lines)


def _problems(error: EtudeError) -> list[str]:
    """The problems of an error, each on one line."""
    problems = error.problems if isinstance(error, ConfigError) else str(error).split("\n")
    return [problem.replace("\n", " ") for problem in problems if problem.strip()]


def _run(words: list[str]) -> int:
    if words[:1] == ["--debug"]:
        del words[0]
    match words:
        case []:
            say(overview())
            return USAGE
        case ["--help" | "-h" | "help", *_]:
            put(overview())
            return 0
        case ["--version", *_]:
            put(f"etude {_version()}")
            return 0
    verb = choose(words[0])
    arguments, overrides = parse(verb, words[1:])
    if words[0] in COMPUTING:
        settle_waiting()
        bound_kernels()
    return verb.run(arguments, overrides)


def _version() -> str:
    from importlib.metadata import version

    return version("etude")


@contextmanager
def _signals_unwind() -> Iterator[None]:
    """Let a signal leave the block as an exception does, so that what is temporary is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _end) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, *_: object) -> None:
    raise Ended(signal.Signals(number))


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    """Show a warning of Python's as one line, without the place in the code that it came from."""
    say(f"Warning: {' '.join(str(message).split())}")


def _trace(*, debug: bool) -> None:
    if debug:
        say(traceback.format_exc().rstrip())
