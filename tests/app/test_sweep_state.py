"""The state of a sweep among processes: nothing is run twice, and what a dead one has left is taken over."""

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from postgres import server

from etude.app.sweep.state.database import Postgres, Sqlite
from etude.app.sweep.state.owner import read_owner, this_process
from etude.app.sweep.state.state import Ending, Stand, State, counted
from etude.base.errors import StorageError

CLAIMS = """
import sys
from pathlib import Path
from etude.app.sweep.state.database import Postgres, Sqlite
from etude.app.sweep.state.owner import this_process
from etude.app.sweep.state.state import Ending, Stand, State
place = sys.argv[1]
database = Postgres(place) if "://" in place else Sqlite(Path(place))
state = State(database, sys.argv[2], this_process(), 60)
while trial := state.claim():
    print(trial.name, flush=True)
    if len(sys.argv) > 3:
        sys.stdin.read()
    state.end(trial.name, Ending(Stand.DONE, 1.0, 1))
"""


@pytest.fixture(scope="module")
def url():
    with server() as found:
        yield found


@pytest.fixture(params=["sqlite", "postgres"])
def place(request, tmp_path):
    """Where the state is: a file, or a URL."""
    return request.getfixturevalue("url") if request.param == "postgres" else str(tmp_path / "s.sqlite")


@pytest.fixture
def opened(place, tmp_path):
    """Makes states of one sweep, each as another process would have it."""
    made = []

    def open_state(owner=None, dead_after=60.0, name=tmp_path.name):
        database = Postgres(place) if "://" in place else Sqlite(Path(place))
        made.append(State(database, name, owner or this_process(), dead_after))
        return made[-1]

    yield open_state
    for state in made:
        state.close()


def combinations(count):
    return {f"seed={seed}": {"run.seed": seed} for seed in range(count)}


def elsewhere():
    """A process of another machine."""
    return replace(this_process(), place="another", host="far")


def test_processes_that_claim_at_once_share_all_trials_and_none_twice(place, tmp_path, opened):
    opened().settle(combinations(40))
    words = [sys.executable, "-c", CLAIMS, place, tmp_path.name]

    workers = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    claimed = [name for worker in workers for name in worker.communicate(timeout=120)[0].split()]

    assert sorted(claimed) == sorted(combinations(40))
    assert counted(opened().trials())[Stand.DONE] == 40


def test_threads_of_one_process_with_states_of_their_own_share_all_trials(opened):
    opened().settle(combinations(20))
    claimed = []

    def work(state):
        while trial := state.claim():
            claimed.append(trial.name)

    threads = [threading.Thread(target=work, args=(opened(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(claimed) == sorted(combinations(20))


def test_what_a_killed_process_of_this_machine_ran_is_free_at_once(place, tmp_path, opened):
    state = opened()
    state.settle(combinations(1))
    words = [sys.executable, "-c", CLAIMS, place, tmp_path.name, "and wait"]
    worker = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert worker.stdout.readline() == "seed=0\n"
    assert state.claim() is None

    worker.kill()
    worker.communicate()

    assert state.claim().name == "seed=0"


def test_a_later_process_of_the_same_number_is_another(opened):
    owner = this_process()

    assert not owner.is_dead
    assert replace(owner, started="1").is_dead
    assert not replace(owner, started="1", place="another").is_dead
    assert read_owner(owner.text()) == owner


def test_a_silent_machine_is_taken_for_dead_and_one_that_gives_signs_of_life_is_not(opened):
    far, near = opened(elsewhere()), opened(dead_after=0.2)
    far.settle(combinations(1))
    far.claim()

    waited = threading.Event()
    for _ in range(4):
        assert near.claim() is None
        far.beat()
        waited.wait(0.15)
    waited.wait(0.25)

    assert near.claim() is None  # the last sign of life is new to it
    waited.wait(0.25)
    assert near.claim().name == "seed=0"


def test_who_has_lost_a_trial_cannot_end_it(opened):
    far, near = opened(elsewhere()), opened(dead_after=0.01)
    far.settle(combinations(1))
    far.claim()
    near.claim()
    threading.Event().wait(0.05)
    near.claim()

    assert far.owned() == set()
    assert not far.end("seed=0", Ending(Stand.DONE, 1.0, 1))
    assert near.owned() == {"seed=0"}
    assert near.end("seed=0", Ending(Stand.DONE, 2.0, 1))
    assert near.trials()[0].value == 2.0


def test_a_space_that_grows_adds_trials_and_one_that_shrinks_leaves_those_that_are_done(opened):
    state = opened()
    state.settle(combinations(2))
    state.end(state.claim().name, Ending(Stand.DONE, 1.0, 1))

    assert state.settle({"seed=7": {"run.seed": 7}}) == 1

    assert {t.name: t.state for t in state.trials()} == {"seed=0": "done", "seed=1": "dropped", "seed=7": "waiting"}
    assert state.settle(combinations(2)) == 0
    assert {t.name: t.state for t in state.trials()} == {"seed=0": "done", "seed=1": "waiting", "seed=7": "dropped"}


def test_only_one_process_gets_a_number_of_a_search(opened):
    one, other = opened(), opened()

    assert one.add("a", 0, {"x": 1}, {})
    assert not other.add("b", 0, {"x": 2}, {})
    assert other.add("b", 1, {"x": 2}, {})
    assert [trial.name for trial in one.trials()] == ["a", "b"]


def test_sweeps_of_other_names_in_one_database_do_not_meet(opened):
    one, other = opened(), opened(name="another")
    one.settle(combinations(2))
    other.settle(combinations(1))
    one.note("asked", 1)

    assert other.claim().name == "seed=0"
    assert other.claim() is None
    assert other.noted("asked") is None
    assert len(one.trials()) == 2


def test_what_runs_have_measured_is_replaced_and_not_doubled(opened):
    state = opened()
    state.settle(combinations(1))
    state.report("seed=0", {1: (5, 0.5), 2: (10, None)})

    state.report("seed=0", {1: (5, 0.5), 2: (10, 0.25), 3: (15, 0.1)})

    assert state.trials()[0].reported == {1: 0.5, 2: 0.25, 3: 0.1}


def test_pruned_trials_that_are_asked_for_again_are_not_pruned_again(opened):
    state = opened()
    state.settle(combinations(2))
    state.end(state.claim().name, Ending(Stand.PRUNED, 1.0, 1))
    state.end(state.claim().name, Ending(Stand.FAILED, code=4, error="no"))

    assert state.retry([Stand.PRUNED, Stand.FAILED]) == 2

    assert [(t.state, t.kept, t.error) for t in state.trials()] == [("waiting", True, None), ("waiting", False, None)]


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "s.sqlite").write_text("something else altogether, and long enough to be read as a header" * 20)

    with pytest.raises(StorageError, match=r"s\.sqlite"):
        Sqlite(tmp_path / "s.sqlite")
