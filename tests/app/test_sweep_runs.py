"""Sweeps as they run: shared, stopped, failed, pruned and begun again. Their runs are quick processes."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sweeps import LOSS, quickly, rows, run, trials, written

from etude.app.sweep.begin import opener
from etude.app.sweep.plan import read_plan
from etude.app.sweep.state.state import Stand
from etude.base.errors import ConfigError, RefusedError
from etude.train.interrupt import Interrupted

GRID = "--optimizer.learning_rate", "1e-2,1e-3", "--model.d_model", "8,32"
SLOW = {"PAUSE": "0.1"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def states(found):
    return [trial.state for trial in found]


def test_every_combination_is_run_and_judged_by_its_best_validation(place):
    said = []

    found = run(written(place), *GRID, said=said)

    values = {(t.values["optimizer.learning_rate"], t.values["model.d_model"]): t.value for t in found}
    assert values == pytest.approx(LOSS)
    assert [trial.step for trial in found] == [5] * 4
    assert str(Path("runs/small/best").readlink()) == "learning_rate=0.001,d_model=8"
    assert "[4/4] learning_rate=0.001,d_model=32: val/loss 0.52 at step 5" in said[-1]


def test_a_sweep_that_is_done_runs_nothing_when_it_is_started_again(place):
    config = written(place)
    run(config, *GRID)
    before = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("metrics.jsonl")}

    again = run(config, *GRID, starts=None)

    assert states(again) == [Stand.DONE] * 4
    assert {path: path.stat().st_mtime_ns for path in Path("runs").rglob("metrics.jsonl")} == before


def test_a_mistyped_key_is_named_before_it_is_told_that_the_sweep_began_otherwise(place):
    config = written(place)
    run(config, *GRID)

    with pytest.raises(ConfigError, match=r"did you mean optimizer.learning_rate"):
        run(config, "--optimizer.learning_rat", "1e-2,1e-3")


def test_two_workers_share_a_sweep_and_nothing_is_run_twice(place):
    config, words = written(place), ("--run.seed", "1,2,3,4,5,6,7,8")
    begun = []

    def starts(path):
        begun.append((threading.get_ident(), path.parent.name))
        return quickly(path)

    workers = [threading.Thread(target=run, args=(config, *words), kwargs={"starts": starts}) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert sorted(name for _, name in begun) == [f"seed={seed}" for seed in range(1, 9)]
    assert len({worker for worker, _ in begun}) == 2
    assert states(trials(config, *words)) == [Stand.DONE] * 8


def test_several_runs_at_once_are_several_processes_at_once(place, monkeypatch):
    monkeypatch.setenv("PAUSE", "0.1")

    run(written(place), "--run.seed", "1,2,3", jobs=3)

    spans = [
        (r[0]["time/pid"], Path(f"runs/small/seed={s}/metrics.jsonl"))
        for s in (1, 2, 3)
        for r in [rows(f"runs/small/seed={s}")]
    ]
    assert len({pid for pid, _ in spans}) == 3
    begun, ended = (
        [p.parent.joinpath("config.toml").stat().st_mtime for _, p in spans],
        [p.stat().st_mtime for _, p in spans],
    )
    assert max(begun) < min(ended)


WORKER = """
import sys
sys.path.insert(0, sys.argv[1])
from sweeps import run
run(*sys.argv[2:], jobs=2)
"""


def started(place, *words):
    """A worker in a process of its own."""
    here = str(Path(__file__).parent)
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, here, str(place / "small.toml"), *words],
        env={**os.environ, **SLOW},
        stderr=subprocess.PIPE,
    )


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def test_a_worker_that_is_killed_leaves_its_runs_to_the_next_which_goes_on_with_them(place):
    config, words = written(place), ("--run.seed", "1,2,3,4")
    worker = started(place, *words)
    wait_for(lambda: len(list(Path("runs").rglob("metrics.jsonl"))) == 2)
    wait_for(lambda: all(len(rows(path.parent)) >= 2 for path in Path("runs").rglob("metrics.jsonl")))

    worker.kill()
    worker.wait()
    worker.stderr.close()
    run(config, *words, jobs=2)

    assert states(trials(config, *words)) == [Stand.DONE] * 4
    for seed in range(1, 5):
        steps = {row["step"] for row in rows(f"runs/small/seed={seed}")}
        assert steps == {1, 2, 3, 4, 5}


def test_a_worker_that_is_asked_to_end_lets_its_runs_save_and_the_next_resumes_them(place, monkeypatch):
    config, words = written(place), ("--run.seed", "1,2,3")
    monkeypatch.setenv("PAUSE", "0.1")

    def interrupts():
        wait_for(lambda: Path("runs/small/seed=1/metrics.jsonl").exists())
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupts).start()
    with pytest.raises(Interrupted) as ending:
        run(config, *words)

    assert ending.value.code == 143
    assert states(trials(config, *words)) == [Stand.WAITING] * 3
    first = rows("runs/small/seed=1")
    run(config, *words)
    assert rows("runs/small/seed=1")[: len(first)] == first
    assert [row["step"] for row in rows("runs/small/seed=1")] == [1, 2, 3, 4, 5]


def test_a_failed_run_keeps_its_error_is_reported_at_once_and_run_again_on_request(place):
    config, words, said = written(place), ("--model.d_model", "16,8"), []

    found = run(config, *words, said=said)

    assert states(found) == [Stand.FAILED, Stand.DONE]
    assert (found[0].code, found[0].error) == (4, "step 1 of d_model=16 went wrong.")
    assert [line for line in said if "d_model=16: FAILED" in line and "went wrong" in line]
    assert states(run(config, *words)) == [Stand.FAILED, Stand.DONE]
    Path("mended").touch()
    state = opener(read_plan(config, words))()
    state.retry([Stand.FAILED])
    state.close()
    assert states(run(config, *words)) == [Stand.DONE, Stand.DONE]


def test_a_run_that_is_killed_from_outside_is_a_failed_one_and_no_other_is_hurt(place):
    def starts(path):
        words = quickly(path)
        return [words[0], "-c", "import os; os.kill(os.getpid(), 9)"] if "seed=1" in path.parent.name else words

    found = run(written(place), "--run.seed", "1,2", starts=starts)

    assert states(found) == [Stand.FAILED, Stand.DONE]
    assert "SIGKILL" in found[0].error


@pytest.mark.parametrize(
    ("on_failure", "expected"),
    [
        ("continue", [Stand.FAILED] * 4 + [Stand.DONE]),
        ("stop if alike", [Stand.FAILED] * 3 + [Stand.WAITING] * 2),
        ("stop", [Stand.FAILED] + [Stand.WAITING] * 4),
    ],
)
def test_what_a_failure_ends_is_for_the_config_to_say(place, on_failure, expected):
    config = written(place, f'[sweep]\non_failure = "{on_failure}"\n')
    words = "--run.seed", "1,2,3,4,5", "--model.d_model", "16,8"

    found = run(config, *words, "--sweep.where", "(model.d_model == 16) == (run.seed < 5)")

    assert states(found) == expected


def test_a_metric_that_no_run_logs_ends_the_sweep_at_the_first_validation(place):
    words = "--run.seed", "1,2,3", "--sweep.metric", "val/bleu"

    with pytest.raises(ConfigError, match=r'"val/bleu", which the runs do not log; they log val/loss'):
        run(written(place), *words)

    assert not Path("runs/small/seed=2").exists()


class WorseThan:
    """Prunes what is above a bound at its second validation."""

    def __init__(self, bound):
        self.bound = bound

    def prunes(self, state, name):
        reported = next(trial.reported for trial in state.trials() if trial.name == name)
        return len(reported) >= 2 and reported[2] > self.bound


def test_a_pruned_run_is_marked_and_resumes_when_it_is_asked_for(place, monkeypatch):
    monkeypatch.setenv("PAUSE", "0.2")
    config, words = written(place), ("--optimizer.learning_rate", "1e-2,1e-3")

    found = run(config, *words, pruning=WorseThan(1.0))

    assert states(found) == [Stand.PRUNED, Stand.DONE]
    pruned = rows("runs/small/learning_rate=0.01")
    assert 2 <= len(pruned) < 5
    assert states(run(config, *words, pruning=WorseThan(1.0))) == [Stand.PRUNED, Stand.DONE]
    state = opener(read_plan(config, words))()
    state.retry([Stand.PRUNED])
    state.close()
    assert states(run(config, *words, pruning=WorseThan(1.0))) == [Stand.DONE, Stand.DONE]
    assert rows("runs/small/learning_rate=0.01")[: len(pruned)] == pruned


def test_a_space_that_grows_runs_only_what_is_new(place):
    config = written(place)
    run(config, "--run.seed", "1,2")
    begun = []

    def starts(path):
        begun.append(path.parent.name)
        return quickly(path)

    run(config, "--run.seed", "3,1,2,4", starts=starts)

    assert begun == ["seed=3", "seed=4"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--run.seed", "1,2", "--model.d_model", "8,32"), "keys was run.seed and is model.d_model, run.seed"),
        (("--run.seed", "1,2", "--optimizer.learning_rate", "0.5"), "optimizer.learning_rate was 0.001 and is 0.5"),
        (("--run.seed", "1,2", "--sweep.goal", "max"), "goal was min and is max"),
    ],
)
def test_another_sweep_in_the_same_folder_is_refused_with_what_changed(place, words, says):
    config = written(place)
    run(config, "--run.seed", "1,2")

    with pytest.raises(RefusedError, match=says):
        run(config, *words)


def test_a_change_of_no_number_does_not_make_another_sweep(place):
    config = written(place)
    run(config, "--run.seed", "1,2")

    assert states(run(config, "--run.seed", "1,2", "--train.keep_last", "5")) == [Stand.DONE] * 2


def test_a_combination_that_is_no_valid_config_is_named_before_any_run_begins(place):
    with pytest.raises(ConfigError) as raised:
        run(written(place), "--model.d_model", "8,-3,-4", "--run.seed", "1,2")

    assert "model.d_model" in str(raised.value)
    assert ", in d_model=-3,seed=1 and 1 more." in str(raised.value)
    assert not Path("runs").exists()


def test_each_run_has_a_folder_that_training_alone_would_take_up(place):
    run(written(place), *GRID)

    folder = Path("runs/small/learning_rate=0.01,d_model=8")

    assert 'name = "learning_rate=0.01,d_model=8"' in (folder / "config.toml").read_text()
    assert "sweep" not in (folder / "config.toml").read_text()
    assert json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])["step"] == 1
