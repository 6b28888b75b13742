"""A trial that is being run: its process, what it has measured so far, and what its end tells."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from time import monotonic
from typing import Any

from etude.app.sweep.judge import Judge
from etude.app.sweep.state.state import Trial
from etude.base.files import make_folder, storage
from etude.tasks.run_files import LOG
from etude.train.watch.record import row_of

SAVED = (130, 143, 75)
"""Exit codes of a run that was interrupted and has saved."""
LONGEST = 2000
"""Characters of an error that are kept."""


@dataclass
class Measured:
    """What a run has logged of the metric, validation by validation."""

    metric: str
    values: dict[int, tuple[int | None, float | None]] = field(default_factory=dict)
    """By the number of the validation, counted from 1: the step, where it is of one, and the value."""
    logged: set[str] = field(default_factory=set)
    """Names of what validations gave."""

    @property
    def is_unknown(self) -> bool:
        """Whether no validation has given the metric, although it is one of validation."""
        of_all = self.metric.startswith("val/") and not self.metric.endswith("/epoch_loss")
        return of_all and bool(self.logged) and not self.values

    def take(self, row: Mapping[str, Any]) -> bool:
        """Take a row; whether it holds the metric."""
        if self.metric in row:
            value = row[self.metric]
            self.values[len(self.values) + 1] = (int(row["step"]), None if value is None else float(value))
            return True
        self.logged |= {name for name in row if name.startswith("val/")}
        return False

    def best(self, goal: str) -> tuple[float | None, int | None]:
        """The best value, and the step that it is of."""
        sign = 1.0 if goal == "min" else -1.0
        found = [(sign * value, step) for step, value in self.values.values() if value is not None]
        if not found:
            return None, None
        merit, step = min(found, key=itemgetter(0))
        return sign * merit, step


class Tail:
    """Reads the rows of a file as they are written; one that was cut back is read from its begin."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0

    def rows(self) -> list[dict[str, Any]] | None:
        """The whole rows since the last time; None where it was cut back, and all begins anew."""
        try:
            with self._path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size < self._read:
                    self._read = 0
                    return None
                file.seek(self._read)
                whole, _, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return []
        if whole:
            self._read += len(whole) + 1
        rows = map(row_of, filter(None, whole.split(b"\n")))
        return [row for row in rows if row is not None]


class Child:
    """The process of a trial."""

    def __init__(
        self,
        trial: Trial,
        folder: Path,
        judge: Judge,
        command: Sequence[str],
        environment: Mapping[str, str],
        place: int = 0,
    ) -> None:
        self.trial, self.folder, self.place = trial, folder, place
        self.measured = Measured(judge.metric)
        self.stopping = ""
        """Why it was asked to end: empty, as long as it was not."""
        self._judge = judge
        self._tail = Tail(judge.rows(folder))
        self._begun = monotonic()
        make_folder(folder)
        with storage("write", folder / LOG), (folder / LOG).open("ab") as log:
            self._said_from = log.tell()
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**environment},
                start_new_session=True,  # Ctrl-C is for the sweep, which passes it on
            )

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return monotonic() - self._begun

    def look(self) -> bool:
        """Read what was logged since the last look; whether the metric was among it."""
        rows = self._tail.rows()
        if rows is None:
            self.measured = Measured(self._judge.metric)
            rows = self._tail.rows() or []
        found = False
        for row in rows:
            found |= self.measured.take(row)
        return found

    def ended(self) -> int | None:
        """Its exit code, as a shell has it, once all it logged is read; None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        self._tail, self.measured = Tail(self._judge.rows(self.folder)), Measured(self._judge.metric)
        self.look()
        if not self._judge.trains:
            self.measured.values = {1: (None, self._judge.measured_at_end(self.folder))}
        return abs(code) + 128 * (code < 0)

    def stop(self, why: str) -> None:
        """Ask it to save and end."""
        if not self.stopping and self._process.poll() is None:
            self.stopping = why
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()

    def error(self, code: int) -> str:
        """Why it failed, in a few lines: what it said last, or the signal that ended it."""
        if code > 128 and code not in SAVED:  # noqa: PLR2004 - as a shell has it
            name = signal.Signals(code - 128).name if code - 128 in set(signal.Signals) else str(code - 128)
            hint = "; the machine may have run out of memory" if name == "SIGKILL" else ""
            return f"It was ended by {name}{hint}."
        lines = self._said()
        told = [line.removeprefix("etude: ") for line in lines if line.startswith("etude: ")]
        return "\n".join(told[-3:] or lines[-1:] or [f"It ended with exit code {code}."])[:LONGEST]

    def _said(self) -> list[str]:
        """The lines of its last start."""
        with storage("read", self.folder / LOG), (self.folder / LOG).open("rb") as log:
            log.seek(self._said_from)
            return [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]


def command(config: Path) -> list[str]:
    """What trains the run of a config."""
    return [sys.executable, "-m", "etude.app.cli.trial", str(os.getpid()), str(config)]
