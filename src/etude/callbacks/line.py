"""The line that tells of a run: its parts in order, and what of them a narrow terminal shows."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from etude.base.progress import Progress

GAP = "  "
MINUTE, HOUR = 60, 3600
SHOWN_BESIDE_LOSS = ("train/skipped_steps",)
LEFT, LOSS, STEP, SKIPPED, EPOCH, SPEED, RATE, MEMORY = range(8)
"""What a person asks for first: where the columns do not suffice, the last goes first."""


class Part(NamedTuple):
    """One thing that a line tells, and its rank among them: the lower, the longer it stays."""

    rank: int
    text: str


def fitted(parts: Sequence[Part], columns: float = math.inf) -> str:
    """The parts in their order, as many as fit into `columns`, by rank.

    >>> line = [Part(EPOCH, "epoch 1.50"), Part(STEP, "step 9"), Part(LEFT, "35 s left")]
    >>> fitted(line), fitted(line, 20)
    ('epoch 1.50  step 9  35 s left', 'step 9  35 s left')
    """
    kept = _first_of(sorted(parts), columns + len(GAP))
    return GAP.join(part.text for part in parts if part in kept)


def _first_of(ranked: Sequence[Part], room: float) -> set[Part]:
    """The first parts, as many as there is room for, each with a gap behind it."""
    needed = accumulate(len(part.text) + len(GAP) for part in ranked)
    return set(ranked[: sum(length <= room for length in needed)])


def where(progress: Progress) -> list[Part]:
    """Epoch and step of a run."""
    return _place(progress.epochs, progress.step)


def where_logged(metrics: Mapping[str, float]) -> list[Part]:
    """Epoch and step of the row that was logged last."""
    return _place(metrics.get("epoch", 0), int(metrics.get("step", 0)))


def _place(epoch: float, step: int) -> list[Part]:
    return [Part(EPOCH, f"epoch {epoch:.2f}"), Part(STEP, f"step {step:,}")]


def told(place: Sequence[Part], metrics: Mapping[str, float], speed: str, left: float | None) -> list[Part]:
    """The line of a run: where it is, what was logged last, its speed, seconds left, memory."""
    return [*place, *_logged(metrics), *_paced(speed, left), *_held(metrics)]


def _logged(metrics: Mapping[str, float]) -> Iterator[Part]:
    """Loss, learning rate, and what else a person has to know."""
    if (loss := metrics.get("train/loss")) is not None:
        yield Part(LOSS, f"loss {loss:.4f}")
    if (rate := metrics.get("train/learning_rate")) is not None:
        yield Part(RATE, f"learning rate {rate:.2e}")
    for name in SHOWN_BESIDE_LOSS:
        if name in metrics:
            yield Part(SKIPPED, f"{name.removeprefix('train/').replace('_', ' ')} {metrics[name]:g}")


def paced(progress: Progress, per_second: float | None) -> str:
    """A speed in tokens, with its unit; samples, where each counts once, as a classifier's do. Nothing where unknown.

    >>> paced(Progress(samples=64, tokens=64), 1250.0), paced(Progress(samples=64, tokens=900), 1250.0)
    ('1,250 samples/s', '1,250 tokens/s')
    """
    unit = "samples" if progress.tokens == progress.samples else "tokens"
    return f"{per_second:,.0f} {unit}/s" if per_second else ""


def _paced(speed: str, left: float | None) -> Iterator[Part]:
    if speed:
        yield Part(SPEED, speed)
    if left is not None:
        yield Part(LEFT, f"{span(left)} left")


def _held(metrics: Mapping[str, float]) -> Iterator[Part]:
    memory = metrics.get("train/peak_memory") or resident_memory()
    if memory:
        yield Part(MEMORY, f"{memory / 2**30:.1f} GiB")


def span(seconds: float) -> str:
    """A span of time in two units at most.

    >>> span(42.4), span(185), span(7500)
    ('42 s', '3 min 05 s', '2 h 05 min')
    """
    whole = round(seconds)
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE:02d} s"
    return f"{whole // HOUR:,} h {whole % HOUR // MINUTE:02d} min"


def resident_memory() -> int:
    """Bytes of this process in memory; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
