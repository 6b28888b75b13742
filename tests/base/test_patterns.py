"""Patterns of parameters' names mean what a task's names are, and renaming keeps what a star stands for."""

import pytest

from etude.base.patterns import matches, renamed, renames


@pytest.mark.parametrize(
    ("name", "pattern", "wanted"),
    [
        ("model.encoder.0.weight", "encoder.*", True),
        ("model.encoder.0.weight", "model.encoder.*", True),
        ("encoder.0.weight", "model.*", False),
        ("encoder.0.weight", "encoder.0.weight", True),
        ("encoder.10.weight", "encoder.?.weight", False),
    ],
)
def test_a_pattern_means_a_name_with_or_without_the_tasks_model(name, pattern, wanted):
    assert matches(name, pattern) is wanted


@pytest.mark.parametrize(
    ("name", "table", "wanted"),
    [
        ("a.b", {}, "a.b"),
        ("old.0.weight", {"old.*": "new.*"}, "new.0.weight"),
        ("model.old.0.weight", {"old.*": "new.*"}, "model.new.0.weight"),
        ("model.old.0.weight", {"model.*": "*"}, "old.0.weight"),
        ("net.0.old.b", {"*.old.*": "*.new.*"}, "net.0.new.b"),
        ("a.x.b.y.b.z", {"a.*.b.*": "*|*"}, "x|y.b.z"),
        ("old.weight", {"*.weight": "first.*.w", "old.*": "last.*"}, "last.weight"),
        ("axb", {"a.b": "c"}, "axb"),
        ("old.weight", {"old": "new"}, "old.weight"),
        ("weight", {"*": "0.*"}, "0.weight"),
    ],
)
def test_a_name_becomes_what_the_last_pattern_that_means_it_makes_of_it(name, table, wanted):
    assert renamed(name, table) == wanted
    assert any(renames(name, pattern) for pattern in table) is (wanted != name)
