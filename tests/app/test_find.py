"""`etude find`: the shape of a range test, the largest batch, and a critical batch size; nothing stays on the disk."""

import json
import math
from pathlib import Path
from xml.dom import minidom

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from etude.__main__ import main
from etude.app.find.noise import Measured, noise_scale
from etude.app.find.picture import svg
from etude.app.find.rates import found, range_test
from etude.app.find.sizes import PARTS, SHARE, Search, Tried, largest, sizes_from
from etude.app.new.project import new
from etude.base.errors import ConfigError, DataError

RATES = np.geomspace(1e-5, 10, 121)


@pytest.fixture
def place(tmp_path, monkeypatch):
    new("classification", tmp_path / "loans", data="tabular")
    monkeypatch.chdir(tmp_path / "loans")
    return tmp_path / "loans"


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def gradients(count, size, noise, rng):
    """Squared norms as measured: gradients of mean 1 in each of 10 places, with so much noise there."""
    for _ in range(count):
        drawn = 1 + noise * rng.standard_normal((size, 10))
        yield Measured(float((drawn**2).sum(1).mean()), float((drawn.mean(0) ** 2).sum()))


def test_a_rate_is_found_on_a_curve_whose_shape_is_known():
    # A sigmoid over the logarithm falls fastest at 1e-2; beyond 1 the loss rises.
    losses = 2 - 1 / (1 + np.exp(-3 * np.log(RATES / 1e-2))) + np.maximum(0, np.log(RATES)) ** 2

    test = found(list(zip(RATES, losses, strict=True)), len(RATES))

    lag = RATES[12] / RATES[0]  # the mean over about ten steps follows behind
    assert 1e-2 / 1.5 < test.steepest < 1e-2 * lag
    assert 1 / 1.5 < test.lowest < lag
    assert test.suggested == test.lowest / 10
    assert not test.diverged


def test_a_loss_that_is_no_number_ends_the_curve_and_says_that_it_diverged():
    steps = [(rate, 1 - 0.001 * number) for number, rate in enumerate(RATES[:20])]

    test = found([*steps, (RATES[20], math.nan)], 100)

    assert test.diverged
    assert len(test.rates) == 20
    assert test.lowest == RATES[19]


def test_too_few_losses_are_no_curve():
    with pytest.raises(DataError, match="Only 1 steps had a finite loss"):
        found([(1.0, 1.0), (2.0, math.inf)], 100)


def test_the_picture_of_a_range_test_is_xml_whatever_the_title():
    test = found([(rate, 1.0) for rate in RATES], len(RATES))

    drawn = minidom.parseString(svg(test, "<a> & </title>"))  # noqa: S318 - our own

    assert drawn.getElementsByTagName("title")[0].firstChild.data == "<a> & </title>"


def test_the_noise_scale_of_known_noise_is_found():
    truth = 10 * 3.0**2 / 10  # the variance over all places, over the squared norm of the mean

    scale = noise_scale(list(gradients(5_000, 4, 3.0, np.random.default_rng(0))), 4)

    assert scale.value == pytest.approx(truth, rel=0.1)


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    truth = 10 * 1.0**2 / 10

    scales = [noise_scale(list(gradients(30, 4, 1.0, rng)), 4) for _ in range(100)]

    assert 88 <= sum(scale.low < truth < scale.high for scale in scales) <= 100


def test_gradients_of_noise_alone_have_no_bound():
    measured = [Measured(4.0, 1.0)] * 8  # the squared norm of a mean of four is a quarter: no signal

    assert noise_scale(measured, 4).high == math.inf


def test_equal_gradients_have_no_noise():
    assert noise_scale([Measured(2.0, 2.0)] * 8, 4).high == 0.0


def test_a_range_test_in_the_shell_leaves_no_trace_and_is_the_same_twice(place, capsys):
    before = files(place)
    words = ["find", "learning_rate", "config.toml", "--steps", "40", "--json", "--train.device", "cpu"]

    assert main(words) == main(words) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == second
    assert first["rates"][0] == pytest.approx(1e-7)
    assert np.allclose(np.diff(np.log(first["rates"])), np.log(1e8) / 39)
    assert 1e-5 < first["suggested"] < 1
    assert files(place) == before


def test_batch_sizes_in_the_shell_leave_no_trace(place, capsys):
    before = files(place)

    words = ["--train.device", "cpu", "--batches", "16", "--after", "5", "--json"]
    assert main(["find", "batch_size", "config.toml", *words]) == 0

    told = json.loads(capsys.readouterr().out)
    assert [tried["size"] for tried in told["largest"]["tried"]] == [32, 64, 128, 256, 512, 1024, 2048]
    assert told["largest"]["tried"][-1]["samples"] == 600  # all that train.tsv holds
    assert "the training data give no larger batch" in told["largest"]["ended"]
    assert told["critical"]["measured_batches"] == 16
    assert 0 < told["critical"]["samples"]["low"] <= told["critical"]["samples"]["value"]
    assert files(place) == before


def test_a_size_that_memory_has_no_room_for_is_not_tried(place, monkeypatch):
    monkeypatch.setattr("etude.app.find.memory.OfProcess.room", lambda _: 1 << 20)

    told = largest("config.toml", ["--train.device", "cpu"])

    assert told.bounded
    assert told.size == 32
    assert "expected to need" in told.ended


class Limit:
    """Memory of which a size needs so many bytes each; its room may be known."""

    def __init__(self, room=None):
        self._room = room

    def begin(self):
        """Nothing."""

    def peak(self):
        return 0

    def room(self):
        return self._room


def searched(begin, limit, *, seconds=0.1, data=1 << 40, room=None):
    """What is found where sizes up to `limit` fit, and the sizes that were tried at all."""
    asked = []

    def attempt(size, place):
        assert sizes_from(begin)[place] == size
        asked.append(size)
        if size > limit:
            raise ConfigError("There is not enough memory for a batch.")
        return Tried(size, min(size, data), seconds, 100 * size)

    return Search("train.batch_size", attempt, Limit(room)).run(sizes_from(begin)), asked


@given(begin=st.integers(1, 300), limit=st.integers(1, 1 << 20))
def test_the_largest_size_under_a_limit_is_that_of_a_search_through_all(begin, limit):
    assume(limit >= begin)

    found, asked = searched(begin, limit)

    assert found.size == max(size for size in sizes_from(begin) if size <= limit)
    assert found.size >= limit * PARTS / (PARTS + 1) - 1
    assert found.bounded
    assert found.ended == f"{min(size for size in asked if size > limit):,} does not fit."
    assert len(asked) <= math.log2(limit / begin) + 2 + math.log2(PARTS) + 1
    assert [tried.size for tried in found.tried] == sorted(size for size in asked if size <= limit)


def test_a_size_that_a_known_room_cannot_hold_is_never_tried():
    found, asked = searched(32, 1 << 30, room=100 * 1000 / SHARE)

    assert found.size == 992
    assert max(asked) == 992
    assert found.ended.startswith("1,024 was not tried: it is expected to need")


def test_the_first_size_must_fit():
    with pytest.raises(ConfigError, match="not enough memory"):
        searched(32, 31)


@pytest.mark.parametrize(
    ("more", "size", "says"),
    [({"seconds": 30.0}, 32, "a step of 32 took 30 s"), ({"data": 100}, 256, "the training data give no larger batch")],
)
def test_what_is_no_matter_of_memory_ends_it_without_halving(more, size, says):
    found, asked = searched(32, 1 << 30, **more)

    assert (found.size, found.bounded, max(asked)) == (size, False, size)
    assert says in found.ended


def test_what_cannot_be_found_is_refused(place, capsys):
    assert main(["find", "learning_rate", "config.toml", "--from", "1", "--to", "0.1"]) == 2
    assert main(["find", "batch_size", "config.toml", "--batches", "2"]) == 2
    assert main(["find", "batch_size", "config.toml", "--after", "-1"]) == 2
    assert main(["find", "batch_size", "config.toml", "--picture", "a.svg"]) == 2
    assert "The range must rise" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="at least 10"):
        range_test("config.toml", steps=3)
    assert not Path("a.svg").exists()
