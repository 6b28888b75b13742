"""Laws of nests: tables, lists and plain values in one another."""

from hypothesis import given
from hypothesis import strategies as st

from etude.base.config.nest import is_deeper, leaves, places, rebuilt, value_at

plain = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
nests = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


def levels(nest):
    inner = nest.values() if isinstance(nest, dict) else nest if isinstance(nest, list) else None
    return 0 if inner is None else 1 + max(map(levels, inner), default=0)


@given(nests)
def test_every_place_of_a_nest_is_a_place_of_the_same_one_rebuilt(nest):
    anew = rebuilt(nest, lambda value: value)

    assert anew == nest
    assert list(places(anew)) == list(places(nest))
    assert all(value_at(anew, place) == value_at(nest, place) for place in places(nest))


@given(st.dictionaries(st.text(max_size=3), nests, max_size=3))
def test_the_leaves_of_a_table_are_all_that_is_no_table(table):
    found = dict(leaves(table))

    assert all(value_at(table, place) == value for place, value in found.items())
    assert not any(isinstance(value, dict) and value for value in found.values())
    assert {key for key, *_ in found} == set(table)


@given(nests, st.integers(-1, 6))
def test_a_nest_is_deeper_than_fewer_levels_than_it_has(nest, fewer):
    assert is_deeper(nest, fewer) == (levels(nest) > fewer)


def test_depth_is_asked_of_a_nest_of_any_depth():
    nest = []
    for _ in range(100_000):
        nest = [nest]

    assert is_deeper(nest, 64)


def test_nothing_is_found_where_a_place_leads_through_a_plain_value():
    assert value_at({"a": [1, {"b": 2}]}, ("a", 1, "b")) == 2
    assert value_at({"a": [1, {"b": 2}]}, ("a", 0, "b")) is None
    assert value_at({"a": [1]}, ("a", 5)) is None
    assert value_at({"a": [1]}, ("a", "0")) is None
