"""A run for the tests of signals, in a process of its own."""

import sys

from small_runs import Regression, loaders, trainer

import etude
from etude.train.interrupt import Interrupted


def train(folder, workers=0, until="9 steps", **options):
    """Train, and end as the shell does: with the code of the interruption or of the error."""
    made = trainer(
        folder,
        max_duration=until,
        save_every="4 steps",
        eval_every="3 steps",
        say=lambda s: sys.stderr.write(s + "\n"),
        **options,
    )
    try:
        made.fit(Regression(), *loaders(workers=workers))
    except Interrupted as ending:
        result = ending.result
        sys.stderr.write(f"{result.reason}; last {result.last and result.last.name}\n")
        raise
    except KeyboardInterrupt:
        sys.stderr.write("stopped at once\n")
        return 130
    except etude.errors.EtudeError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def requeued(folder, workers, names):
    """Train, asked to be queued again by these signals, or by those that are set."""
    return train(folder, workers, **({} if names is None else {"requeue_signals": names}))


def claim(folder):
    """Hold the run folder until the process is killed."""
    import time
    from pathlib import Path

    from etude.train.lock import claimed

    with claimed(Path(folder)):
        sys.stderr.write("held\n")
        sys.stderr.flush()
        time.sleep(600)
