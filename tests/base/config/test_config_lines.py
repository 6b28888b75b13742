import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.base.config.lines import key_lines, split_key
from etude.base.config.writing import toml

DOCUMENT = '''\
# a comment = 1
name = "x"
"quoted.key" = """
two = 2
lines"""
[optimizer]   # [not.a.table]
learning_rate = { schedule = "cosine", peak = 1e-3 }
a.b . "c d" = [
  1,      # one
  "]",
  [ 2,
    { x = 1 } ],
]
[[optimizer.groups]]
match = 'encoder.*'
[[optimizer.groups]]
match = \'\'\'
many\'\'\'
inner.deep = true
[optimizer.groups.below]
z = 1979-05-27T07:32:00Z
'''

EXPECTED = {
    ("name",): 2,
    ("quoted.key",): 3,
    ("optimizer",): 6,
    ("optimizer", "learning_rate"): 7,
    ("optimizer", "learning_rate", "schedule"): 7,
    ("optimizer", "learning_rate", "peak"): 7,
    ("optimizer", "a"): 8,
    ("optimizer", "a", "b"): 8,
    ("optimizer", "a", "b", "c d"): 8,
    ("optimizer", "a", "b", "c d", 0): 9,
    ("optimizer", "a", "b", "c d", 1): 10,
    ("optimizer", "a", "b", "c d", 2): 11,
    ("optimizer", "a", "b", "c d", 2, 0): 11,
    ("optimizer", "a", "b", "c d", 2, 1): 12,
    ("optimizer", "a", "b", "c d", 2, 1, "x"): 12,
    ("optimizer", "groups"): 14,
    ("optimizer", "groups", 0): 14,
    ("optimizer", "groups", 0, "match"): 15,
    ("optimizer", "groups", 1): 16,
    ("optimizer", "groups", 1, "match"): 17,
    ("optimizer", "groups", 1, "inner"): 19,
    ("optimizer", "groups", 1, "inner", "deep"): 19,
    ("optimizer", "groups", 1, "below"): 20,
    ("optimizer", "groups", 1, "below", "z"): 21,
}

SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"])),
)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)
TABLES = st.dictionaries(KEYS, VALUES, max_size=4)


def places(value, place=()):
    yield place
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for element, part in inside:
        yield from places(part, (*place, element))


def test_every_key_has_the_line_it_stands_on():
    found = key_lines(DOCUMENT)

    assert found == EXPECTED


@settings(max_examples=150, deadline=None)
@given(TABLES)
def test_what_is_written_reads_back_the_same(table):
    read = tomllib.loads(toml(table))

    assert repr(read) == repr(sort_like(read, table))


def sort_like(read, table):
    """Give the original in the order that TOML forces on it: plain values before tables."""
    if isinstance(read, dict):
        assert read.keys() == table.keys()
        return {key: sort_like(read[key], table[key]) for key in read}
    if isinstance(read, list):
        assert len(read) == len(table)
        return [sort_like(*pair) for pair in zip(read, table, strict=True)]
    return table


@settings(max_examples=150, deadline=None)
@given(TABLES)
def test_the_scanner_finds_every_place_that_tomllib_reads(table):
    text = toml(table)

    found = key_lines(text)

    assert set(found) == set(places(table)) - {()}
    assert all(1 <= line <= text.count("\n") + 1 for line in found.values())


@pytest.mark.parametrize(
    ("text", "key"),
    [("train.clip_grad", ("train", "clip_grad")), ('a."b.c".d', ("a", "b.c", "d")), ("a . 'b'", ("a", "b"))],
)
def test_a_dotted_key_is_taken_apart(text, key):
    assert split_key(text) == key


@pytest.mark.parametrize("text", ["", ".", "a.", "a b", "a..b", '"a', "ä"])
def test_what_is_no_key_is_refused(text):
    with pytest.raises(ValueError, match=r".*"):
        split_key(text)
