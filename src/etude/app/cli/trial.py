"""A run of a sweep in a process of its own: `python -m etude.app.cli.trial PARENT CONFIG`.

It trains as `etude train CONFIG` does. Should its parent die, even by kill -9, it saves and ends: whoever takes the
sweep up again finds no process that nobody watches.
"""

import os
import signal
import sys
import threading
from time import sleep

LOOK_SECONDS = 0.5


def main(words: list[str]) -> int:
    """Train, as long as the parent lives."""
    parent, config = int(words[0]), words[1]
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    from etude.app.cli.main import main as shell  # what is slow to import comes once the parent is watched

    return shell(["train", config])


def _follow(parent: int) -> None:
    """Ask this process to save and end once its parent is another."""
    while os.getppid() == parent:
        sleep(LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
