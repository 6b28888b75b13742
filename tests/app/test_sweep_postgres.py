"""A sweep over a real PostgreSQL server that two processes share, while it is killed and started again."""

import re
import subprocess
import sys
import time
from collections import Counter
from itertools import chain
from pathlib import Path

import psycopg
import pytest
from postgres import running
from sweeps import rows, run, trials, written

from etude.app.sweep.state.database import LostError, Postgres
from etude.app.sweep.state.owner import this_process
from etude.app.sweep.state.state import Ending, Stand, State
from etude.base.errors import StorageError

RUNS = 8
CLIENTS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"


@pytest.fixture(scope="module")
def server():
    with running() as found:
        yield found


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


WORKER = """
import sys
sys.path.insert(0, sys.argv[1])
import sweeps

class Said(list):
    def append(self, line):
        print(line, flush=True)

sweeps.run(*sys.argv[2:], said=Said())
"""


def wait_until(there):
    end = time.monotonic() + 60
    while not there():
        assert time.monotonic() < end
        time.sleep(0.02)


def worker(config, *words):
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", WORKER, here, config, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_server_that_is_killed_and_started_again_is_waited_for_and_nothing_is_run_twice(server, place, monkeypatch):
    monkeypatch.setenv("PAUSE", "0.05")
    config = written(place, f'[sweep]\nstate = "{server.url}"\n')
    words = "--run.seed", ",".join(map(str, range(1, RUNS + 1)))
    workers = [worker(config, *words) for _ in range(2)]
    with psycopg.connect(server.url, autocommit=True) as connection:  # one that is away at the begin is not waited for
        wait_until(lambda: connection.execute(CLIENTS).fetchone()[0] > len(workers))
    for begun in (1, 4):
        wait_until(lambda: len(list(place.glob("runs/small/seed=*"))) > begun)  # noqa: B023 - called here
        server.kill()
        time.sleep(0.3)
        server.start()
    said = [one.communicate() for one in workers]

    assert [one.returncode for one in workers] == [0, 0], said
    started = [re.findall(r"^(seed=\d+): started", out, re.MULTILINE) for out, _ in said]
    assert all(started)
    assert Counter(chain(*started)) == Counter(f"seed={seed}" for seed in range(1, RUNS + 1))
    assert [trial.state for trial in trials(config, *words)] == [Stand.DONE] * RUNS
    for seed in range(1, RUNS + 1):
        assert [row["step"] for row in rows(f"runs/small/seed={seed}")] == [1, 2, 3, 4, 5]


class Forgetful(Postgres):
    """Loses the connection once the transaction has taken effect, as often as it is told to."""

    losses = 0

    def transaction(self):
        lost = super().transaction()
        whole = self

        class Losing:
            def __enter__(self):
                return lost.__enter__()

            def __exit__(self, *error):
                lost.__exit__(*error)
                if whole.losses and not any(error):
                    whole.losses -= 1
                    raise LostError("The connection was lost.")

        return Losing()


@pytest.fixture
def state(server, tmp_path):
    database = Forgetful(server.url)
    made = State(database, tmp_path.name, this_process(), 60.0)
    made.settle({"a": {"x": 1}, "b": {"x": 2}})
    yield made, database
    made.close()


def test_a_trial_that_was_taken_when_the_reply_was_lost_is_still_run(state):
    state, database = state
    first = state.trials()[0]
    database.losses = 1

    assert not state._claim(first)

    assert [state.claim().name, state.claim().name] == ["a", "b"]
    assert state.claim() is None


def test_a_trial_that_was_given_back_when_the_reply_was_lost_is_given_back(state):
    state, database = state
    trial = state.claim()
    database.losses = 1

    assert state.end(trial.name, Ending(Stand.DONE, 0.5, 3, 2.0))

    ended = state.trials()[0]
    assert (ended.state, ended.value, ended.step, ended.seconds) == (Stand.DONE, 0.5, 3, 2.0)


def test_a_draw_that_was_added_when_the_reply_was_lost_is_run_once(state):
    state, database = state
    database.losses = 1

    assert not state.add("0002", 2, {"x": 3}, {"why": "drawn"})

    taken = {state.claim().name for _ in range(3)}
    assert taken == {"a", "b", "0002"}
    assert [trial.remarks for trial in state.trials()] == [{}, {}, {"why": "drawn"}]


def test_a_server_that_never_was_there_is_told_at_once(place):
    config = written(place, '[sweep]\nstate = "postgresql://nobody@/none?host=/nowhere"\n')
    begun = time.monotonic()

    with pytest.raises(StorageError, match=r"cannot be used: .*[^.?]\.$"):
        run(config, "--run.seed", "1,2")

    assert time.monotonic() - begun < 30


def test_a_server_that_stays_away_ends_the_sweep_with_a_sentence(server, tmp_path, monkeypatch):
    monkeypatch.setattr("etude.app.sweep.state.state.AWAY_SECONDS", 0.2)
    database = Postgres(server.url)
    state = State(database, tmp_path.name, this_process(), 60.0)
    server.kill()

    try:
        with pytest.raises(LostError, match="cannot be used"):
            state.trials()
    finally:
        server.start()
    assert state.trials() == []
    state.close()
