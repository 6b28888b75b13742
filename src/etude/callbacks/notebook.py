"""The live line of a run in a notebook: one output of the cell that changes in place; no widget is needed."""

import importlib
import sys
from contextlib import suppress
from typing import Any

from etude.callbacks.progress import (
    LIVE_SECONDS,
    PLAIN_SECONDS,
    LiveScreen,
    PlainScreen,
    ProgressDisplay,
    is_live,
)

COLUMNS = 100
"""What a cell shows without a break; notebooks do not tell."""


def in_notebook() -> bool:
    """Whether a kernel runs this: IPython is there, and its shell has one."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


class NotebookScreen(PlainScreen):
    """A line that is replaced by the next, and below it the lines that stay."""

    live = True

    def __init__(self) -> None:
        super().__init__()
        self._shown: Any = None

    def columns(self) -> int:
        """What fits beside the share."""
        return COLUMNS

    def show(self, line: str, fraction: float | None) -> None:
        """Show the line in the place of the one before; a front end that has gone is no error."""
        told = {"text/plain": line if fraction is None else f"{100 * fraction:3.0f} %  {line}"}
        with suppress(OSError, RuntimeError, ValueError):
            if self._shown is None:
                self._shown = importlib.import_module("IPython.display").display(told, raw=True, display_id=True)
            else:
                self._shown.update(told, raw=True)


def progress_display() -> ProgressDisplay:
    """The display that fits where a run is shown: a notebook, a terminal, or a file."""
    if in_notebook():
        return ProgressDisplay(NotebookScreen, 2 * LIVE_SECONDS)
    if is_live(sys.stderr):
        return ProgressDisplay(LiveScreen, LIVE_SECONDS)
    return ProgressDisplay(PlainScreen, PLAIN_SECONDS)
