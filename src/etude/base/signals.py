"""Signals by which a machine tells a process that its time is over."""

import signal
from typing import Literal

Notice = Literal["SIGUSR1", "SIGUSR2", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGXCPU"]
"""A signal that a run may take as the request to save and be queued again."""
BEFORE_THE_END: tuple[Notice, ...] = ("SIGUSR1",)
"""What a cluster sends some time before it ends a job, unless a config says otherwise."""
REQUEUE = 75
"""The exit code that asks for the same command to be run again (`EX_TEMPFAIL`)."""

_LEFT_TO_THE_RUN = ("SIGINT", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGQUIT", "SIGXCPU")


def leave_to_the_run() -> None:
    """Ignore, in a worker, what reaches every process of a job and is meant for the run, which ends its workers."""
    for name in _LEFT_TO_THE_RUN:
        signal.signal(signal.Signals[name], signal.SIG_IGN)
