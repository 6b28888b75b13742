"""What is said of a run that a signal has ended."""

from pathlib import Path

from etude.base.signals import REQUEUE
from etude.train.interrupt import Interrupted


def told(ending: Interrupted, folder: Path | None) -> str:
    """Where an interrupted run stands, how it goes on, and what its exit code asks for."""
    asks = f"\nExit code {REQUEUE} asks for it to be queued again." if ending.code == REQUEUE else ""
    return _standing(ending, folder) + asks


def _standing(ending: Interrupted, folder: Path | None) -> str:
    if ending.result is None:
        return f"Interrupted. Run the same command again to resume {folder}."
    how = f"{ending.result.reason[:1].upper()}{ending.result.reason[1:]}"
    if folder is None:
        return f"{how}; nothing is saved, since the run has no folder: give run_dir."
    if ending.result.last is None:
        return f"{how} before the first step; the same command starts over."
    step = ending.result.progress.step
    return f"{how} and saved at step {step:,} in {folder}.\nRun the same command again to resume."
