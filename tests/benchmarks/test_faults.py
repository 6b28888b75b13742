"""The simulation of faults agrees with what Young and Daly compute, and with counting by hand."""

import importlib.util
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def faults():
    """The benchmark as a module, which imports another one of its folder."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("faults_benchmark", BENCHMARKS / "faults.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARKS))
    return module


@pytest.fixture
def often(faults):
    """A run that fails about every eight hours."""
    return faults.Faults(mean=64 * 8 * 3600.0, ranks=64, save=60.0, restart=300.0, every=3600.0)


@pytest.mark.parametrize("every", [600.0, 3600.0, 14400.0])
@pytest.mark.parametrize("ranks", [1, 64])
def test_simulated_runs_train_the_share_of_their_time_that_daly_computes(faults, often, every, ranks):
    case = replace(often, every=every, ranks=ranks, mean=ranks * 8 * 3600.0)

    share, error = faults.several(case, runs=100)

    assert error < 0.005
    assert share == pytest.approx(faults.expected(case), abs=4 * error)


def test_the_best_interval_of_the_formula_is_the_best_of_many(faults, often):
    intervals = [60.0 * minutes for minutes in range(5, 300)]

    best = max(intervals, key=lambda every: faults.expected(replace(often, every=every)))

    assert faults.daly(often) == pytest.approx(best, abs=60)


def test_the_best_interval_of_the_formula_is_the_best_of_those_that_are_simulated(faults, often):
    daly = faults.daly(often)

    assert faults.best_of(often, [daly / 4, daly, daly * 4]) == daly


def test_young_and_daly_agree_where_a_save_takes_no_time_to_speak_of(faults, often):
    quick = replace(often, save=1e-3)

    assert faults.daly(quick) == pytest.approx(faults.young(quick), rel=1e-3)
    assert faults.young(quick) == pytest.approx(math.sqrt(2 * 1e-3 * 8 * 3600))


def test_saves_that_take_longer_than_a_run_lasts_are_as_far_apart_as_failures(faults, often):
    slow = replace(often, save=20 * 3600.0)

    assert faults.daly(slow) == slow.mean_of_all


def test_without_failures_only_saves_cost_time(faults, often):
    sound = replace(often, mean=1e15)

    share = faults.simulated(sound, seed=1, wanted=100 * sound.every)

    assert share == pytest.approx(sound.every / (sound.every + sound.save), rel=1e-12)


def test_a_failure_costs_what_was_trained_since_the_save_and_the_restart(faults, monkeypatch):
    failures = iter([250.0, 1e9])
    monkeypatch.setattr(faults.random.Random, "expovariate", lambda *_: next(failures))
    case = faults.Faults(mean=1.0, ranks=1, save=10.0, restart=30.0, every=100.0)

    share = faults.simulated(case, seed=1, wanted=300.0)

    # Saved after 110 and 220 s, failed at 250 s, back at 280 s, and 110 s more for the third stretch.
    assert share == pytest.approx(300.0 / 390.0)


def test_a_failure_while_it_starts_begins_the_restart_anew(faults, monkeypatch):
    failures = iter([50.0, 60.0, 1e9, 1e9])
    monkeypatch.setattr(faults.random.Random, "expovariate", lambda *_: next(failures))
    case = faults.Faults(mean=1.0, ranks=2, save=10.0, restart=30.0, every=100.0)

    share = faults.simulated(case, seed=1, wanted=100.0)

    assert share == pytest.approx(100.0 / (60.0 + 30.0 + 110.0))


def test_the_same_seed_gives_the_same_run_and_another_another(faults, often):
    assert faults.simulated(often, seed=3) == faults.simulated(often, seed=3)
    assert faults.simulated(often, seed=3) != faults.simulated(often, seed=4)
