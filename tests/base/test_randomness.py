"""Laws of randomness: seeds that never change, and orders that are computed."""

import timeit
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.base import randomness
from etude.base.randomness import Permutation, generator, seed_of, uniform_each


@pytest.fixture
def no_tables(monkeypatch):
    """Small orders come from the network as well, not from sorted hashes."""
    monkeypatch.setattr(randomness, "_SMALL", 1)


def test_seeds_are_the_same_in_every_version():
    assert [seed_of(1, "order", 0), seed_of(-5), seed_of(2**80, "ü", 7), seed_of(0, "")] == [
        7108626819450877720,
        5711985787691024248,
        9075571349754611977,
        332889842256131635,
    ]


def test_streams_are_the_same_in_every_version():
    drawn = generator(1, "stage", 3).integers(0, 2**63, 3).tolist()

    assert drawn == [6919187126161031982, 7288574555863097414, 739796790419091540]


@settings(deadline=None)
@given(st.integers(), st.lists(st.one_of(st.text(), st.integers())))
def test_a_seed_has_63_bits(seed, names):
    assert 0 <= seed_of(seed, *names) < 2**63


def test_every_path_of_names_has_its_own_seed():
    names = ["", "a", "b", "ab", "1", 1, 11, -1, "i1;", "s1:a"]
    paths = [path for length in range(4) for path in product(names, repeat=length)]

    assert len({seed_of(1, *path) for path in paths}) == len(paths)


def test_numpy_numbers_are_numbers():
    assert seed_of(np.int64(3), np.int32(4)) == seed_of(3, 4)


@pytest.mark.parametrize("name", [1.5, None, b"x"])
def test_other_names_are_refused(name):
    with pytest.raises(TypeError):
        seed_of(1, name)


@pytest.mark.parametrize("table", [False, True])
def test_every_member_comes_once(monkeypatch, table):
    if not table:
        monkeypatch.setattr(randomness, "_SMALL", 1)
    for n in [*range(301), 2047, 2048, 2049, 65_537, 100_000]:
        assert np.array_equal(np.sort(Permutation(n, seed=n).take(0, n)), np.arange(n)), n


@pytest.mark.parametrize("n", [1, 2, 3, 10, 300, 2048, 2049, 100_003, 10**9, 2**62])
def test_one_member_equals_the_same_one_taken_among_others(n):
    order = Permutation(n, seed=5)
    start = max(0, n // 2 - 20)

    taken = order.take(start, start + 40)

    assert taken.tolist() == [order[place] for place in range(start, min(n, start + 40))]
    assert taken.dtype == np.int64
    assert len(order) == n


def test_members_do_not_depend_on_how_many_are_taken(no_tables):
    order = Permutation(10_000, seed=3)

    pieces = np.concatenate([order.take(start, start + 37) for start in range(0, 10_000, 37)])

    assert np.array_equal(pieces, order.take(0, 10_000))


def test_places_outside_are_none():
    order = Permutation(10, seed=1)

    assert order.take(8, 50).size == 2
    assert order.take(20, 30).size == order.take(5, 2).size == 0
    for place in (-1, 10):
        with pytest.raises(IndexError):
            order[place]
    with pytest.raises(ValueError, match="between 0 and"):
        Permutation(-1, seed=1)


@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("n", [7, 24, 100])
def test_every_member_is_as_likely_at_every_place(monkeypatch, n, table):
    if not table:
        monkeypatch.setattr(randomness, "_SMALL", 1)
    draws = 2000
    counts = np.zeros((n, n))
    for seed in range(draws):
        counts[np.arange(n), Permutation(n, seed).take(0, n)] += 1

    expected = draws / n
    chi_square = ((counts - expected) ** 2 / expected).sum()

    freedom = (n - 1) ** 2
    assert abs(chi_square - freedom) < 5 * np.sqrt(2 * freedom)


def test_every_order_of_four_is_as_likely():
    draws = 4800
    orders, counts = np.unique([Permutation(4, seed).take(0, 4) for seed in range(draws)], axis=0, return_counts=True)

    assert len(orders) == 24
    assert ((counts - draws / 24) ** 2 / (draws / 24)).sum() < 57  # 1 in 10,000 at 23 degrees of freedom


@pytest.mark.parametrize("n", [5000, 10**8])
def test_orders_of_different_seeds_and_neighbours_are_uncorrelated(n):
    size = 5000
    one, other = (Permutation(n, seed_of(1, "order", epoch)).take(0, size) / n for epoch in range(2))
    limit = 4.5 / np.sqrt(size)

    assert abs(np.corrcoef(one, other)[0, 1]) < limit
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < limit
    assert abs(np.corrcoef(one, np.arange(size))[0, 1]) < limit


def test_differences_of_neighbours_show_no_pattern():
    # A weak network maps neighbours to few distances; here nearly all of 20,000 differ.
    order = Permutation(10**9, seed=2).take(10**6, 10**6 + 20_000)

    assert len(np.unique(np.diff(order))) > 19_990


@pytest.mark.parametrize("n", [10**8, 10**9])
def test_any_place_of_a_huge_order_is_reached_in_milliseconds(n):
    def take():
        return Permutation(n, seed=1).take(n // 2, n // 2 + 32_768)

    seconds = min(timeit.repeat(take, number=1, repeat=5))

    assert len(set(take().tolist())) == 32_768
    assert seconds < 0.03  # 3 ms on a free core


def test_a_number_of_a_member_does_not_depend_on_what_it_is_beside():
    members = np.array([5, 0, 2**62, 5, 99_999])

    drawn = uniform_each(members, 1, "speed", 3)

    assert drawn[0] == drawn[3]
    assert drawn.tolist() == [uniform_each(members[[i]], 1, "speed", 3)[0] for i in range(5)]
    assert not np.isin(drawn, uniform_each(members, 1, "speed", 4)).any()


def test_numbers_of_members_are_even_and_uncorrelated():
    drawn = uniform_each(np.arange(100_000), 1, "even")

    shares = np.histogram(drawn, 20, (0, 1))[0] / 100_000
    assert np.abs(shares - 0.05).max() < 0.003
    assert max(abs(np.corrcoef(drawn[:-lag], drawn[lag:])[0, 1]) for lag in (1, 2, 3, 64)) < 0.012
    assert abs(np.corrcoef(drawn, uniform_each(np.arange(100_000), 1, "odd"))[0, 1]) < 0.012
