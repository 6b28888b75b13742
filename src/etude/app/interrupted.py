"""What is said of a run that a signal has ended, and what leaves a Python call by it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from etude.base.says import Say
from etude.base.signals import REQUEUE
from etude.train.interrupt import Interrupted, InterruptedByHand

COMMAND, SCRIPT = "Run the same command again to resume", "Run the same script or cell again to resume"


class SessionInterrupt(KeyboardInterrupt):
    """Ctrl-C in a notebook or at a prompt, after the save: no SystemExit, which would end the session."""

    def __init__(self, ending: Interrupted) -> None:
        super().__init__(getattr(ending.result, "reason", ""))
        self.received = ending.received
        self.result: Any = ending.result


@contextmanager
def telling(folder: Path | None, say: Say) -> Iterator[None]:
    """Let a signal leave a call from Python: what is saved and how to go on is said, and a session goes on."""
    try:
        yield
    except Interrupted as ending:
        say(told(ending, folder, SCRIPT))
        if isinstance(ending, InterruptedByHand) and in_session():
            raise SessionInterrupt(ending) from None
        raise
    except KeyboardInterrupt:
        say(f"Stopped at once. {_left(folder)}")
        raise


def in_session() -> bool:
    """Whether Python is asked line by line, at a prompt or in a notebook, rather than runs a script."""
    return hasattr(sys, "ps1") or bool(sys.flags.interactive)


def told(ending: Interrupted, folder: Path | None, again: str = COMMAND) -> str:
    """Where an interrupted run stands, how it goes on, and what its exit code asks for."""
    asks = f"\nExit code {REQUEUE} asks for it to be queued again." if ending.code == REQUEUE else ""
    return _standing(ending, folder, again) + asks


def _standing(ending: Interrupted, folder: Path | None, again: str) -> str:
    if ending.result is None:
        return f"Interrupted. {again} {folder}."
    how = f"{ending.result.reason[:1].upper()}{ending.result.reason[1:]}"
    step = ending.result.progress.step
    if folder is None:
        return (
            f"{how}. Nothing is saved, since the run has no folder (give run_dir); the model in memory is that of "
            f"step {step:,}."
        )
    if ending.result.last is None:
        return f"{how} before the first step; nothing is saved yet, and the same start begins anew."
    return f"{how} and saved at step {step:,} in {folder}.\n{again}."


def _left(folder: Path | None) -> str:
    """What a run that was not let end has left."""
    if folder is None:
        return "Nothing is saved, since the run has no folder (give run_dir)."
    return f"What was saved before is in {folder}.\n{SCRIPT} from there."
