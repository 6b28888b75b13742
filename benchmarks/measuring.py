"""What the benchmarks share: two sides measured in turns, medians and ratios, one table each, the machine's name."""

import datetime as dt
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def data_folder() -> Path:
    """Where real data lies: `ETUDE_DATA`, or `shared/data` beside the checkout. Exits with a sentence where absent."""
    folder = Path(os.environ.get("ETUDE_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        raise SystemExit(f"This benchmark needs the real data, but {folder} is absent; set ETUDE_DATA to its folder.")
    return folder


@dataclass(frozen=True)
class Measured:
    """What each side gave, round by round."""

    values: Mapping[str, Sequence[float]]

    def median(self, side: str) -> float:
        """Of all rounds."""
        return statistics.median(self.values[side])

    def ratio(self, side: str, other: str) -> float:
        """The median over rounds of side / other: slow phases of the machine strike both sides of a round."""
        return statistics.median(a / b for a, b in zip(self.values[side], self.values[other], strict=True))

    def difference(self, side: str, other: str) -> float:
        """The median over rounds of side - other."""
        return statistics.median(a - b for a, b in zip(self.values[side], self.values[other], strict=True))


class Interleaved:
    """Sides that do the same work, each a function that returns how much it did, run in turns.

    Odd rounds go backwards, so that no side always follows the same other one.
    """

    def __init__(
        self, sides: Mapping[str, Callable[[], float]], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._sides = dict(sides)
        self._clock = clock

    def rates(self, rounds: int) -> Measured:
        """Work per second."""
        return self._run(rounds, lambda work, seconds: work / seconds)

    def costs(self, rounds: int) -> Measured:
        """Seconds per unit of work."""
        return self._run(rounds, lambda work, seconds: seconds / work)

    def _run(self, rounds: int, value: Callable[[float, float], float]) -> Measured:
        values: dict[str, list[float]] = {name: [] for name in self._sides}
        for turn in range(rounds):
            names = list(self._sides) if turn % 2 == 0 else list(reversed(self._sides))
            for name in names:
                start = self._clock()
                work = self._sides[name]()
                values[name].append(value(work, self._clock() - start))
        return Measured(values)


@dataclass(frozen=True)
class Section:
    """One benchmark's result: a table with what was measured above it."""

    title: str
    text: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """For docs/benchmarks.md."""
        lines = [self.head, ["---"] * len(self.head), *self.rows]
        table = "\n".join("| " + " | ".join(row) + " |" for row in lines)
        return f"## {self.title}\n\n{self.text}\n\n{table}\n\nMeasured by `{command()}`.\n"

    def plain(self) -> str:
        """For the terminal."""
        widths = [max(len(row[i]) for row in [self.head, *self.rows]) for i in range(len(self.head))]
        lines = [
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in [self.head, *self.rows]
        ]
        return "\n".join([self.title, self.text, *lines])


def clock(threads: int) -> Callable[[], float]:
    """What time is taken by: where one thread computes, its processor time, which other programs leave alone."""
    return time.process_time if threads == 1 else time.perf_counter


def timed_by(threads: int) -> str:
    """What the clock of so many threads measures, for the text above a table."""
    return "1 thread, in processor time" if threads == 1 else f"{threads} threads"


def print_section(section: Section, *, markdown: bool) -> None:
    print(section.markdown() if markdown else section.plain(), flush=True)


def command() -> str:
    """How this script was called."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--markdown"]
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *arguments])


def processor() -> str:
    """The processor's name, its cores, and what it has for bfloat16."""
    cores = f"{os.cpu_count()} cores"
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return f"{platform.processor() or platform.machine()}, {cores}"
    fields = dict(reversed([[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]))
    special = [name for name in ("avx512f", "avx512_bf16", "amx_bf16") if name in fields.get("flags", "").split()]
    return f"{fields.get('model name', platform.machine())}, {cores}, {' '.join(special) or 'no AVX-512'}"


def machine() -> str:
    """One line: processor, torch, Python, date."""
    import torch

    today = dt.datetime.now(dt.UTC).date().isoformat()
    return f"{processor()}; torch {torch.__version__}, Python {platform.python_version()}; {today}."
