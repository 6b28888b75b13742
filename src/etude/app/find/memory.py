"""How much memory a process, or its device, has used at most, and how much more there is."""

import os
import re
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Protocol, final

import torch

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes that `ru_maxrss` counts in."""


class Memory(Protocol):
    """What steps need, and what there is."""

    def begin(self) -> None:
        """Forget the peak, where that can be done."""

    def peak(self) -> int:
        """The most bytes used since."""

    def room(self) -> int | None:
        """Bytes that there are in all, for whom `peak` counts; None where that is not known."""


def memory_of(device: torch.device) -> Memory:
    """That of a device."""
    return OfCuda(device) if device.type == "cuda" else OfProcess()


@final
class OfCuda(Memory):
    """That of an accelerator."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def begin(self) -> None:
        """Forget the peak."""
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)

    def peak(self) -> int:
        """The most bytes reserved, cached ones included."""
        return torch.cuda.max_memory_reserved(self._device)

    def room(self) -> int | None:
        """What is free, and what this process holds."""
        free, _ = torch.cuda.mem_get_info(self._device)
        return free + torch.cuda.memory_reserved(self._device)


@final
class OfProcess(Memory):
    """That of this process, whose peak is never forgotten: sizes to be compared must grow."""

    def begin(self) -> None:
        """Nothing can be forgotten."""

    def peak(self) -> int:
        """The most bytes that were resident."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT

    def room(self) -> int | None:
        """What the machine, or the group of processes, has left, and what this process holds at present."""
        left = [free for free in (_available(), _left_of_group()) if free is not None]
        return min(left) + _resident() if left else None


def _resident() -> int:
    """Bytes of this process at present; its peak where the system does not tell."""
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT


def _available() -> int | None:
    """Bytes that programs can still take without swapping."""
    with suppress(OSError, ValueError):
        found = re.search(r"^MemAvailable:\s+(\d+) kB", MEMINFO.read_text(encoding="ascii"), re.MULTILINE)
        return None if found is None else int(found[1]) * 1024
    return None


def _left_of_group() -> int | None:
    """Bytes that the group of processes may still take, where it is limited."""
    with suppress(OSError, ValueError):
        limit, used = ((CGROUP / f"memory.{name}").read_text(encoding="ascii") for name in ("max", "current"))
        return max(0, int(limit) - int(used))
    return None
