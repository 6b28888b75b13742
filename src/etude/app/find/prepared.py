"""A job as a run that stands before its first step, as training begins it."""

from etude.train.fit import Job, prepare
from etude.train.interrupt import Interrupts
from etude.train.memory.state import seed_generators
from etude.train.run import Run


def prepared(job: Job) -> Run:
    """Make the run of a job, and begin it. Raises what training raises there."""
    seed_generators(job.seed)
    run = prepare(job, Interrupts())
    run.begin()
    return run
