"""Who runs a trial: a process that others can tell apart and, on their own machine, know to be dead."""

import os
import socket
from dataclasses import asdict, dataclass
from hashlib import sha256
from json import dumps, loads
from pathlib import Path
from uuid import getnode, uuid4


@dataclass(frozen=True)
class Owner:
    """A process."""

    place: str
    """Where its number means something: a running kernel and its space of process numbers."""
    host: str
    pid: int
    started: str
    """When it began, as the kernel counts, so that a later process of the same number is another."""
    mark: str
    """Its own alone."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def text(self) -> str:
        """As it is stored."""
        return dumps(asdict(self), sort_keys=True)

    @property
    def is_dead(self) -> bool:
        """Whether it is known to be gone: it ran here, and does not any more."""
        if self.place != _place():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return _started(self.pid) != self.started


def read_owner(text: str) -> Owner:
    """The owner that `Owner.text` has written."""
    return Owner(**loads(text))


def this_process() -> Owner:
    """Who asks."""
    return Owner(_place(), socket.gethostname(), os.getpid(), _started(os.getpid()), uuid4().hex)


def _place() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        named = f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        named = f"{socket.gethostname()} {getnode()}"
    return sha256(named.encode()).hexdigest()[:16]


def _started(pid: int) -> str:
    """The moment of a process's start, as Linux tells it; empty elsewhere."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return told.rpartition(")")[2].split()[19]
