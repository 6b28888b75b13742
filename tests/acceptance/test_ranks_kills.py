"""Runs of two ranks, one of them or both killed at random moments: each ends in the bits of the unbroken run."""

import random
import signal
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))

import in_ranks as in_ranks_module
from in_ranks import ended, in_ranks
from small_runs import rows, weights
from test_ranks_faults import train

from etude.train.memory.checkpoint import verify
from etude.train.memory.checkpoint.naming import checkpoint_step

pytestmark = pytest.mark.acceptance
KILLS = 20


def killing(chosen, seconds):
    def kill(processes):
        time.sleep(seconds)
        for rank in chosen:
            if processes[rank].is_alive():
                processes[rank].kill()

    return kill


def train_with(rank, folder, strategy):
    train(rank, folder, strategy=strategy)


@pytest.mark.parametrize(("all_of_them", "strategy"), [(False, "ddp"), (True, "ddp"), (False, "fsdp"), (True, "fsdp")])
def test_killed_at_random_moments_a_run_of_two_ranks_ends_in_the_same_bits(
    all_of_them, strategy, tmp_path, monkeypatch
):
    in_ranks(2, train_with, tmp_path / "straight", strategy)
    begun = time.monotonic()
    in_ranks(2, train_with, tmp_path / "timed", strategy)
    whole = time.monotonic() - begun
    monkeypatch.setattr(in_ranks_module, "GRACE", 10)
    chance, alone = random.Random(5), 0
    for number in range(KILLS):
        place = tmp_path / f"run-{number}"
        place.mkdir()
        chosen = [0, 1] if all_of_them else [chance.randrange(2)]

        found = ended(2, train_with, place, place / "run", strategy, after=killing(chosen, chance.uniform(0, whole)))

        for rank, (code, said, seconds) in enumerate(found):
            assert code in {0, 6, -signal.SIGKILL}, (rank, code, said)
            assert seconds < 13, (rank, said)
        # One that had nobody to meet, since the other was dead before it could be met, is ended by its launcher.
        alone += any(code == -signal.SIGKILL and rank not in chosen for rank, (code, _, _) in enumerate(found))
        for folder in (place / "run" / "checkpoints").glob("step-*"):
            assert verify(folder)["step"] == checkpoint_step(folder), number
        in_ranks(2, train_with, place / "run", strategy)
        assert weights(place / "run") == weights(tmp_path / "straight"), number
        assert rows(place / "run") == rows(tmp_path / "straight"), number
    assert alone <= KILLS // 2
