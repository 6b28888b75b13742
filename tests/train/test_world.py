"""Where ranks matter a run asks its world: who writes, what was counted, whether a step is finite, when it ends."""

import pytest
import torch
from small_runs import Regression, loaders, trainer

from etude.app.python import trainer as face
from etude.base.errors import DistributedError
from etude.train.end import End, Kind
from etude.train.interrupt import Interrupts
from etude.train.loop import train
from etude.train.prepare import prepare
from etude.train.world import Alone, refuse_ranks


class Second:
    """The second rank of two, of which the other is said to do the same; it ends at step 3, or had a bad step."""

    rank = 1
    size = 2
    is_first = False

    def __init__(self, *, ends=None, bad=None):
        self.ends = ends
        self.bad = bad
        self.asked = 0
        self.steps = 0

    def sum(self, value):
        return value + value

    def all(self, holds):
        self.steps += 1
        return holds and self.steps != self.bad

    def gather(self, value):
        return [value, value]

    def agree(self, value):
        self.asked += 1
        return self.ends if self.ends is not None and self.asked > 3 else value


@pytest.fixture
def job(monkeypatch):
    """What a trainer would run."""
    made = []
    monkeypatch.setattr(face, "run_job", lambda job: made.append(job) or (_ for _ in ()).throw(KeyboardInterrupt))

    def make(folder=None, **options):
        torch.manual_seed(1)
        with pytest.raises(KeyboardInterrupt):
            trainer(folder, **{"max_duration": "5 steps", "eval_every": "2 steps", **options}).fit(
                Regression(), *loaders()
            )
        return made[-1]

    return make


def ended(job, world):
    run = prepare(job, Interrupts(), world)
    return train(run), run


def test_targets_are_counted_over_all_ranks(job):
    _, alone = ended(job(), Alone())
    _, second = ended(job(), Second())

    assert second.state.progress.tokens == 2 * alone.state.progress.tokens
    assert second.state.progress.step == alone.state.progress.step == 5


def test_all_ranks_end_when_one_does(job):
    end, run = ended(job(), Second(ends=End(Kind.INTERRUPTED, "interrupted by SIGTERM")))

    assert end.kind is Kind.INTERRUPTED
    assert run.state.progress.step == 3


def test_a_step_that_is_not_finite_on_one_rank_is_skipped_on_all(job):
    _, run = ended(job(), Second(bad=2))

    assert run.state.skipped == 1
    assert run.learner.average.updates == 4


def test_the_first_rank_alone_writes(job, tmp_path):
    ended(job(tmp_path / "run"), Second())

    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("environment", "launcher"),
    [
        ({"WORLD_SIZE": "2", "RANK": "1"}, "torchrun"),
        ({"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0"}, "srun"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "mpirun"),
    ],
)
def test_one_of_several_ranks_is_refused_before_anything_is_written(environment, launcher, tmp_path, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    for folder in (tmp_path / "run", None):
        with pytest.raises(DistributedError, match=rf"^{launcher} has started \d ranks .* trains in one process"):
            trainer(folder).fit(Regression(), *loaders())

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "environment",
    [{"WORLD_SIZE": "1", "RANK": "0"}, {"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "1"}, {"SLURM_NTASKS": "4"}, {}],
)
def test_one_task_of_a_launcher_trains(environment):
    refuse_ranks(environment)
