"""How threads wait for each other, settled before torch starts them.

OpenMP's threads spin at the end of every parallel piece of work. On an idle machine that is best; where another
program wants a core, the spinning takes the core from the very thread that is waited for, and training runs at a
tenth of its speed. Threads that sleep instead lose a fifth on an idle machine and little on a busy one. The figures
stand in docs/log.md.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

POLICY = "OMP_WAIT_POLICY"
SET_BY_USER = (POLICY, "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
LOOK_SECONDS = 0.06
BUSY = 0.2
"""The share of one core that other programs may use before threads had better sleep."""
_IDLE, _IOWAIT = 3, 4


NOTES: list[str] = []
"""What was chosen; `--debug` tells of it as a run begins."""


def settle_waiting(look: Callable[[], float | None] | None = None) -> None:
    """Let threads sleep where other programs use this machine's cores; what the user has set stands."""
    NOTES.clear()
    if "torch" in sys.modules or not os.environ.keys().isdisjoint(SET_BY_USER):
        return
    busy = (look or busy_cores)()
    if busy is not None and busy > BUSY:
        os.environ[POLICY] = "passive"
        NOTES.append(
            f"Other programs use {busy:.1f} of this machine's cores, so waiting threads will sleep "
            f"({POLICY}=active says otherwise)."
        )


def busy_cores() -> float | None:
    """How many cores are in use at this moment, from two looks at Linux's counters; None elsewhere."""
    first = _ticks()
    time.sleep(LOOK_SECONDS)
    second = _ticks()
    if first is None or second is None:
        return None
    passed = sum(second) - sum(first)
    return (os.cpu_count() or 1) * (passed - _idle(second) + _idle(first)) / passed if passed else None


def _idle(ticks: Sequence[int]) -> int:
    return ticks[_IDLE] + ticks[_IOWAIT]


def _ticks() -> list[int] | None:
    """Ticks of all cores together: user, nice, system, idle, iowait, ..."""
    try:
        words = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    except OSError:
        return None
    return [int(word) for word in words[1:9]] if words[:1] == ["cpu"] else None
