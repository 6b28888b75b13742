"""How sure a difference is: the values of scipy and of sacreBLEU."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from etude.metrics.significance import Sums, mean_of, paired_bootstrap, spread, welch
from etude.metrics.student import incomplete_beta, quantile, two_tails

A = [2.31, 2.28, 2.35, 2.30, 2.29]
B = [2.21, 2.30, 2.24, 2.19]


@pytest.mark.parametrize("t", [0.0, 1e-6, 0.3, -1.7, 2.5, 12.0, 80.0])
@pytest.mark.parametrize("freedom", [1.0, 1.3, 2.0, 7.25, 30.0, 4000.0])
def test_tails_are_scipys(t, freedom):
    assert two_tails(t, freedom) == pytest.approx(2 * stats.t.sf(abs(t), freedom), rel=1e-10, abs=1e-300)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize("freedom", [1.0, 2.6, 9.0, 200.0])
def test_quantiles_are_scipys(confidence, freedom):
    assert quantile(confidence, freedom) == pytest.approx(stats.t.ppf((1 + confidence) / 2, freedom), rel=1e-9)


@given(st.floats(0.05, 50), st.floats(0.05, 50), st.floats(0.01, 0.99))
def test_the_beta_function_is_symmetric_and_a_probability(a, b, x):
    value = incomplete_beta(a, b, x)

    assert -1e-12 <= value <= 1 + 1e-12
    assert value + incomplete_beta(b, a, 1 - x) == pytest.approx(1, abs=1e-9)


def test_welchs_interval_and_p_are_scipys():
    found = welch(A, B)

    expected = stats.ttest_ind(B, A, equal_var=False)
    assert found.value == pytest.approx(np.mean(B) - np.mean(A), rel=1e-12)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.95)), rel=1e-9)


@pytest.mark.parametrize(("first", "second"), [([1.0], [2.0, 3.0]), ([], [1.0, 2.0]), ([1.0, 1.0], [2.0, 2.0])])
def test_what_has_no_deviation_tells_nothing(first, second):
    found = welch(first, second)

    assert math.isnan(found.p)
    assert all(map(math.isnan, found.interval))


def test_a_spread_is_that_of_a_sample():
    found = spread(A)

    assert (found.number, found.mean) == (5, pytest.approx(np.mean(A)))
    assert found.deviation == pytest.approx(np.std(A, ddof=1))
    assert math.isnan(spread([1.0]).deviation)
    assert spread([]).number == 0


def test_the_interval_of_a_bootstrap_is_scipys():
    draw = np.random.default_rng(3)
    first, second = draw.normal(2.0, 1.0, 60), draw.normal(1.8, 1.0, 60)

    found = paired_bootstrap(mean_of(first), mean_of(second), resamples=2000, seed=7)

    expected = stats.bootstrap(
        (second - first,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(7)
    )
    assert found.value == pytest.approx(second.mean() - first.mean())
    assert found.interval == pytest.approx(tuple(expected.confidence_interval), rel=1e-9)


def test_a_bootstrap_that_is_drawn_in_parts_is_that_of_one_draw(monkeypatch):
    draw = np.random.default_rng(4)
    first, second = mean_of(draw.normal(size=50)), mean_of(draw.normal(size=50))
    whole = paired_bootstrap(first, second)
    monkeypatch.setattr("etude.metrics.significance._DRAWN", 350)

    parts = paired_bootstrap(first, second)

    assert parts == whole


def test_a_ratio_weighs_its_samples():
    errors, words = Sums(np.array([1.0, 5.0]), np.array([2.0, 8.0])), Sums(np.array([0.0, 5.0]), np.array([2.0, 8.0]))

    assert errors.value == 0.6
    assert paired_bootstrap(errors, words).value == pytest.approx(-0.1)


def test_runs_that_answer_alike_are_not_told_apart():
    same = mean_of([0.5, 1.0, 0.25])

    found = paired_bootstrap(same, same)

    assert found.p == 1
    assert found.interval == (0, 0)


@pytest.mark.parametrize("count", [0, 1])
def test_one_sample_tells_nothing(count):
    found = paired_bootstrap(mean_of([1.0] * count), mean_of([2.0] * count))

    assert math.isnan(found.p)


def test_samples_without_anything_counted_are_no_number_alone():
    some = Sums(np.array([1.0, 0.0]), np.array([1.0, 0.0]))

    found = paired_bootstrap(some, Sums(np.array([0.0, 0.0]), np.array([1.0, 0.0])))

    assert found.value == -1
    assert not math.isnan(found.interval.low)
