"""Searches reach an optimum that is known, whichever process asks; pruners end what does worse."""

import math
from pathlib import Path

import pytest
from sweeps import rows, run, written

from etude.app.sweep.begin import begin, opener
from etude.app.sweep.methods import pruning_of, search_of
from etude.app.sweep.plan import read_plan
from etude.app.sweep.state.state import Ending, Stand
from etude.base.errors import ConfigError

SPACE = """
[sweep]
trials = 60
[sweep.keys]
optimizer.learning_rate = { min = 1e-6, max = 1.0, log = true }
model.dropout = { min = 0.0, max = 0.9 }
model.feedforward = { min = 8, max = 256, step = 8 }
"""
BEST = {"optimizer.learning_rate": 3e-4, "model.dropout": 0.2, "model.feedforward": 128}


def worth(values):
    """A bowl whose bottom, 0, is at BEST."""
    away = math.log10(values["optimizer.learning_rate"] / 3e-4) / 6
    away, other = away**2, (values["model.dropout"] - 0.2) ** 2
    return away + other + ((values["model.feedforward"] - 128) / 248) ** 2


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def searched(config, *words, until=None, sign=1.0):
    """Trials of a search, each of which is worth what the bowl has there; a new process for each tenth of them."""
    plan = read_plan(config, words)
    opened = opener(plan)
    begin(plan, opened, lambda _: None)
    state, search = opened(), search_of(plan)
    while trial := search.next(state):
        state.end(trial.name, Ending(Stand.DONE, sign * worth(trial.values), 1))
        if trial.number % 10 == 9:
            search = search_of(plan)
        if trial.number + 1 == until:
            break
    found = state.trials()
    state.close()
    return found


def best(trials):
    return min(worth(trial.values) for trial in trials)


@pytest.fixture(params=["tpe", "cma_es"])
def method(request):
    pytest.importorskip({"tpe": "optuna", "cma_es": "cmaes"}[request.param], reason="needs etude[sweep]")
    return request.param


def test_a_search_reaches_the_optimum(place, method):
    config = written(place, SPACE)

    found = searched(config, "--sweep.method", method)
    drawn = read_plan(config, ("--sweep.method", "random")).points.values()

    assert len(found) == 60
    assert best(found) < 0.01
    assert best(found) < min(worth(point.values) for point in drawn)
    late = sorted(worth(trial.values) for trial in found[40:])
    early = sorted(worth(trial.values) for trial in found[:10])
    assert late[len(late) // 2] < early[len(early) // 2] / 3


def test_a_search_for_the_most_is_one_for_the_least_of_the_opposite(place, method):
    config = written(place, SPACE)
    less = searched(config, "--sweep.method", method, "--sweep.trials", "20", "--run.name", "less")

    more = searched(config, "--sweep.method", method, "--sweep.trials", "20", "--sweep.goal", "max", sign=-1.0)

    assert [trial.values for trial in more] == [trial.values for trial in less]


def test_a_search_that_was_stopped_chooses_what_it_would_have_chosen(place, method):
    config, words = written(place, SPACE), ("--sweep.method", method, "--sweep.trials", "25")
    whole = searched(config, *words, "--run.name", "whole")

    searched(config, *words, until=13)
    again = searched(config, *words)

    assert [trial.values for trial in again] == [trial.values for trial in whole]


def test_a_search_keeps_to_its_conditions_and_takes_lists_and_tables(place, method):
    tables = '[[sweep.tables]]\nname = "narrow"\nmodel.d_model = 8\n[[sweep.tables]]\nmodel.d_model = 32\n'
    config = written(place, SPACE + tables)
    words = "--sweep.method", method, "--sweep.trials", "15", "--model.heads", "1,2", "--sweep.where"

    found = searched(config, *words, "model.dropout < 0.5")

    assert all(trial.values["model.dropout"] < 0.5 for trial in found)
    assert {trial.values["model.d_model"] for trial in found} == {8, 32}
    assert {trial.values["model.heads"] for trial in found} == {1, 2}


def test_a_search_without_its_library_says_what_to_install(place, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)

    with pytest.raises(ConfigError, match=r"pip install 'etude\[sweep\]'"):
        search_of(read_plan(written(place, SPACE), ("--sweep.method", "tpe")))


@pytest.mark.parametrize("prune", ["median", "hyperband"])
def test_a_pruner_ends_what_does_worse_than_the_others_and_leaves_the_best(place, monkeypatch, prune):
    pytest.importorskip("optuna", reason="needs etude[sweep]")
    rates = ",".join(["1e-3", *(f"{number}e-7" for number in range(9, 0, -1))])
    words = "--optimizer.learning_rate", rates, "--sweep.prune", prune, "--sweep.prune_after", "1"
    config = written(place)
    monkeypatch.setenv("PAUSE", "0.1")

    found = run(config, *words, pruning=pruning_of(read_plan(config, words)))

    states = [trial.state for trial in found]
    assert states[0] is Stand.DONE
    assert Stand.PRUNED in states
    pruned = next(trial for trial in found if trial.state is Stand.PRUNED)
    assert len(rows(Path("runs/small", pruned.name))) < 5
