"""Memory that the C library keeps although nobody uses it, handed back before it piles up.

Batches of many lengths ask for blocks of many sizes. glibc keeps freed ones between those in use, where blocks of
another size find no room: after some hundred steps it may hold several times of what training needs. `malloc_trim`
gives such pages back; those that are needed again are then fetched anew. So it is called at the height of a step,
between forward and backward: what lies idle then is of no use to this one, while at its end all that the next one takes
again lies idle too. And it is called only where much lies idle, and seldom enough to cost next to nothing.
"""

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from time import perf_counter
from typing import Final, Protocol, final

EVERY: Final = 8
"""Losses between two looks, at least."""
IDLE: Final = 128 << 20
"""Bytes that may lie idle beside a quarter of what is in use."""
SHARE: Final = 0.005
"""The share of the time that looking and trimming may take."""
AFTERWARDS: Final = 4
"""How often the time of a trimming goes once more into pages that are fetched anew."""


class Heap(Protocol):
    """The memory of a process, as seen by its C library."""

    def usage(self) -> tuple[int, int]:
        """Bytes in use, and bytes that lie idle."""

    def trim(self) -> None:
        """Give back what lies idle."""


_NAMES = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class _Info(ctypes.Structure):
    """The `struct mallinfo2` of glibc 2.33 and later."""

    _fields_ = [(name, ctypes.c_size_t) for name in _NAMES]


@final
class Glibc:
    """The heap of a process that runs on glibc."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._look = library.mallinfo2
        self._look.restype = _Info
        self._trim = library.malloc_trim

    def usage(self) -> tuple[int, int]:
        """Bytes in use, and bytes that lie idle."""
        info = self._look()
        return info.uordblks + info.hblkhd, info.fordblks

    def trim(self) -> None:
        """Give back what lies idle."""
        self._trim(0)


@final
class Other:
    """A heap that nothing is known of."""

    def usage(self) -> tuple[int, int]:
        """Nothing, and nothing."""
        return 0, 0

    def trim(self) -> None:
        """Leave it alone."""


@cache
def of_this_process() -> Heap:
    """The heap of this process."""
    if not sys.platform.startswith("linux"):
        return Other()
    library = ctypes.CDLL(None)
    return Glibc(library) if hasattr(library, "mallinfo2") and hasattr(library, "malloc_trim") else Other()


@final
class Tidy:
    """Keeps what lies idle in a heap small; called at the height of each step."""

    def __init__(self, heap: Heap, clock: Callable[[], float] = perf_counter) -> None:
        self._heap = heap
        self._clock = clock
        self._not_before = 0.0
        self._passed = 0

    def __call__(self) -> None:
        """Look, where it is time to, and trim where much lies idle."""
        self._passed += 1
        if self._passed < EVERY or (begun := self._clock()) < self._not_before:
            return
        self._passed = 0
        used, idle = self._heap.usage()
        now = self._clock()
        cost = now - begun
        if idle > IDLE + used // 4:
            self._heap.trim()
            begun, now = now, self._clock()
            cost += (now - begun) * (1 + AFTERWARDS)
        self._not_before = now + cost / SHARE
