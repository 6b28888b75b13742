"""Every kind of run is killed at random moments, by kill -9, and ends as the one that was never killed."""

import random
import shutil
import sys
import time

import pytest
from laws import state
from small_runs import rows, weights

pytestmark = pytest.mark.acceptance
KILLS = 15


@pytest.mark.parametrize("kind", ["gan", "stream", "mixture"])
def test_kills_at_random_moments_change_nothing(kind, tmp_path, nursery):
    call = f"kinds:{kind}"
    straight, broken = tmp_path / "straight" / "run", tmp_path / "broken" / "run"
    straight.parent.mkdir()
    broken.parent.mkdir()
    begun = time.monotonic()
    assert nursery.run(call, str(straight), log=straight.parent / "log") == 0, (straight.parent / "log").read_text()
    whole = time.monotonic() - begun
    begun = time.monotonic()
    assert nursery.run(call, str(straight), log=straight.parent / "log") == 0
    start = time.monotonic() - begun
    draw, kills = random.Random(kind), 0
    while kills < KILLS:
        child = nursery.start(call, str(broken), log=broken.parent / "log")
        time.sleep(draw.uniform(0.3 * start, start + (whole - start) / 6))
        if child.kill():
            child.wait()
            kills += 1
            continue
        # It ended before it was killed often enough: once more, from the start.
        assert child.code == 0, (broken.parent / "log").read_text()
        shutil.rmtree(broken)

    assert nursery.run(call, str(broken), log=broken.parent / "log") == 0, (broken.parent / "log").read_text()

    assert rows(broken) == rows(straight)
    assert weights(broken) == weights(straight)
    assert weights(broken, "best") == weights(straight, "best")
    assert state(broken) == state(straight)
    sys.stdout.write(f"\n{kind}: {kills} kills, all equal\n")
