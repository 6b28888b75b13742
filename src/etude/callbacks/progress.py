"""How a run is shown while it goes: one live line on a terminal, plain lines elsewhere.

The loop's device is never waited for: what is shown is what was logged last, and counts that are on the host anyway.
"""

import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol, TextIO

from etude.base.durations import Duration
from etude.base.progress import Progress
from etude.callbacks.line import GAP, LEFT, Part, fitted, paced, told, where, where_logged
from etude.train.watch.callback import Callback, RunView

LIVE_SECONDS = 0.25
"""How often the live display changes."""

PLAIN_SECONDS = 2.0
"""How often a plain line is written at most, validations and the end aside."""

ROOMY = 130
"""Columns of a terminal from which on there is room for a bar beside the line."""

BAR = 20
SHARE = len("100 %  ")
"""Columns of the bar, and of what stands in front of a line."""


class Screen(Protocol):
    """Where progress is shown."""

    live: bool
    """Whether what is shown is drawn over by the next."""

    def columns(self) -> float:
        """How long a line may be; infinite where there is no bound."""

    def show(self, line: str, fraction: float | None) -> None:
        """Show where the run is: a line, and the share of it that is done (None where unknown)."""

    def keep(self, line: str) -> None:
        """Write a line that stays."""

    def close(self) -> None:
        """Leave the screen as it is."""


class PlainScreen:
    """Lines without control characters, for pipes, files and CI; a reader that has gone is no error."""

    live = False

    def __init__(self, stream: Callable[[], TextIO] = lambda: sys.stderr) -> None:
        self._stream = stream

    def columns(self) -> float:
        """A line in a file may be of any length."""
        return math.inf

    def show(self, line: str, fraction: float | None) -> None:
        """Write the line, with the share that is done in front."""
        self.keep(line if fraction is None else f"{100 * fraction:3.0f} %  {line}")

    def keep(self, line: str) -> None:
        """Write the line."""
        try:
            stream = self._stream()
            stream.write(f"{line}\n")
            stream.flush()
        except (OSError, ValueError, AttributeError):  # it is full, closed, or none at all
            return

    def close(self) -> None:
        """Nothing is open."""


class LiveScreen:
    """One bar and line at the bottom of a terminal; what else is printed appears above it.

    It has no thread of its own: the loop tells it when to draw, so that it never competes with training.
    """

    live = True

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars
        from rich.table import Column

        self._console = console = Console(stderr=True, highlight=False)
        line = TextColumn("{task.fields[line]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
        bar = [BarColumn(bar_width=BAR)] if console.width >= ROOMY else []
        self._beside = SHARE + len(bar) * (BAR + 1)
        share = TextColumn("{task.percentage:>3.0f} %")
        self._bars = Bars(share, *bar, line, console=console, auto_refresh=False, transient=True)
        self._bar = self._bars.add_task("", total=None, line="")
        self._bars.start()

    def columns(self) -> float:
        """What the terminal, which may have changed its size, leaves beside the share and the bar."""
        return max(0, self._console.width - self._beside)

    def show(self, line: str, fraction: float | None) -> None:
        """Draw the bar anew; a terminal that has gone is no error."""
        with suppress(OSError, ValueError):
            self._bars.update(self._bar, total=None if fraction is None else 1.0, completed=fraction or 0.0, line=line)
            self._bars.refresh()

    def keep(self, line: str) -> None:
        """Write a line above the bar."""
        with suppress(OSError, ValueError):
            self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Take the bar away."""
        with suppress(OSError, ValueError):
            self._bars.stop()


def is_live(stream: TextIO | None) -> bool:
    """Whether a person watches `stream`: a terminal that can move its cursor, and no CI."""
    if os.environ.get("CI", "").lower() in {"true", "1", "yes"} or os.environ.get("TERM", "") in {"dumb", ""}:
        return False
    try:
        return stream is not None and stream.isatty()
    except (OSError, ValueError):
        return False


class ProgressDisplay(Callback):
    """Shows epoch, step, loss, learning rate, tokens per second, time left and memory."""

    looks_at_batches = False
    """Validation batches are counted, whatever is in them."""

    def __init__(
        self, screen: Callable[[], Screen], every: float, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._open, self._every, self._clock = screen, every, clock
        self._screen: Screen = PlainScreen()
        self._next = 0.0
        self._shown = -1
        self._batches = 0
        self._until: tuple[Duration, ...] = ()
        self._start = Progress()
        self._begun = 0.0
        self._speed = Speed()

    def on_fit_start(self, run: RunView) -> None:
        """Open the screen."""
        self._screen = self._open()
        self._until = durations(run.config)
        self._start, self._begun = run.progress, self._clock()
        self._speed = Speed()
        self._speed.see(run.progress, self._begun)
        self._shown = int(run.metrics.get("step", -1))

    def on_step_end(self, run: RunView, outcome: object) -> None:
        """Draw, if it is time."""
        del outcome
        now = self._clock()
        if now >= self._next:
            self._draw(run, now)

    def on_validation_start(self, run: RunView) -> None:
        """Write what was logged last before validation speaks."""
        self._batches = 0
        if not self._screen.live:
            self._draw(run, self._clock())

    def on_validation_batch_end(self, run: RunView, batch: object, outputs: object = None) -> None:
        """Draw how far validation is, if it is time."""
        del batch, outputs
        self._batches += 1
        now = self._clock()
        if self._screen.live and now >= self._next:
            self._next = now + self._every
            told_of = Part(LEFT, f"validating: batch {self._batches:,}")
            line = fitted([*where(run.progress), told_of], self._screen.columns())
            self._screen.show(line, self._fraction(run.progress))

    def on_validation_end(self, run: RunView, metrics: Mapping[str, float]) -> None:
        """Keep a line with what was measured."""
        measured = [f"{name} {value:.4g}" for name, value in metrics.items() if name != "val/epoch_loss"]
        self._screen.keep(GAP.join([fitted(where(run.progress)), *measured]))
        self._speed = Speed()
        self._speed.see(run.progress, self._clock())

    def on_fit_end(self, run: RunView, reason: str) -> None:
        """Write what was logged last, and leave the screen."""
        del reason
        if not self._screen.live:
            self._draw(run, self._clock())
        self._screen.close()

    def on_exception(self, run: RunView, error: BaseException) -> None:
        """Leave the screen to the error."""
        del run, error
        self._screen.close()

    def _draw(self, run: RunView, now: float) -> None:
        logged = int(run.metrics.get("step", -1))
        if not self._screen.live and logged == self._shown:
            return  # a plain line shows what was logged, once
        self._next, self._shown = now + self._every, logged
        self._speed.see(run.progress, now)
        # A plain line tells of the step that was logged; the live one, drawn at any time, where the run is now.
        place = where(run.progress) if self._screen.live else where_logged(run.metrics)
        speed = paced(run.progress, self._speed.per_second)
        parts = told(place, run.metrics, speed, self._left(run.progress, now))
        self._screen.show(fitted(parts, self._screen.columns()), self._fraction(run.progress))

    def _fraction(self, progress: Progress) -> float | None:
        return fraction_done(self._until, progress)

    def _left(self, progress: Progress, now: float) -> float | None:
        """Seconds to the end, at the pace since the start of this process; None where it cannot be told."""
        done, before = self._fraction(progress), self._fraction(self._start)
        if done is None or before is None or done <= before:
            return None
        return (now - self._begun) * (1 - done) / (done - before)


class Speed:
    """Tokens per second between drawings, smoothed."""

    SHARE = 0.3
    """What the newest measurement counts."""

    def __init__(self) -> None:
        self.per_second: float | None = None
        self._last: tuple[float, int] | None = None

    def see(self, progress: Progress, now: float) -> None:
        """Take in how far the run is now."""
        if self._last is not None and now > self._last[0]:
            measured = (progress.tokens - self._last[1]) / (now - self._last[0])
            self.per_second = (
                measured if self.per_second is None else self.per_second + self.SHARE * (measured - self.per_second)
            )
        self._last = (now, progress.tokens)


def durations(config: Mapping[str, object]) -> tuple[Duration, ...]:
    """The ends that a run's config names; none where it names none that can be read."""
    section = config.get("train", config)
    given = section.get("max_duration", ()) if isinstance(section, Mapping) else ()
    match given:
        case list() | tuple():
            return tuple(map(_read, given))
        case _:
            return (_read(given),)


def _read(end: object) -> Duration:
    return end if isinstance(end, Duration) else Duration.parse(str(end))


def fraction_done(until: tuple[Duration, ...], progress: Progress) -> float | None:
    """The share of the run that is done, by whichever end is nearest; None without an end.

    >>> fraction_done((Duration.parse("4 epochs"), Duration.parse("1000 steps")), Progress(step=100, epoch=3))
    0.75
    """
    counts = {
        "epochs": progress.epochs,
        "steps": progress.step,
        "batches": progress.batch,
        "samples": progress.samples,
        "tokens": progress.tokens,
        "seconds": progress.seconds,
    }
    shares = [counts[end.unit] / float(end.amount) for end in until if end.unit in counts and end.amount]
    return min(1.0, max(shares)) if shares else None
