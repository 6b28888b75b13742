"""Laws of Duration: what it reads, and when it is due and reached."""

import copy
import math
import pickle
import timeit
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from etude.base.durations import UNITS, Duration
from etude.base.progress import Progress

amounts = st.one_of(
    st.integers(1, 10**12).map(Fraction),
    st.decimals("0.000001", "100000", places=6, allow_nan=False).map(Fraction).filter(bool),
)


def sane(amount, unit):
    if unit in {"steps", "batches", "tokens", "samples"}:
        amount = Fraction(math.ceil(amount))
    return Duration(min(amount, Fraction(100)) if unit == "percent" else amount, unit)


durations = st.builds(sane, amounts, st.sampled_from(UNITS))


def walk(epochs, batches, per_step, tokens=7, start=0):
    """All moments of a run: the last group of an epoch may be smaller, as in training."""
    now = Progress(epoch_total=batches)
    moments = [now]
    for epoch in range(epochs):
        for done in [*range(per_step, batches, per_step), batches]:
            count = done - now.epoch_done
            last = done == batches
            now = Progress(
                step=now.step + 1,
                batch=now.batch + count,
                epoch=epoch + last,
                samples=now.samples + 3 * count,
                tokens=now.tokens + tokens * count,
                seconds=now.seconds + 0.25,
                epoch_done=0 if last else done,
                epoch_total=batches,
            )
            moments.append(now)
    return moments[start:]


def events(duration, moments):
    return sum(duration.due(before, now) for before, now in pairwise(moments))


@settings(deadline=None)
@given(durations)
def test_canonical_text_reads_back_to_the_same_duration(duration):
    assert Duration.parse(str(duration)) == duration


@settings(deadline=None)
@given(durations)
def test_a_duration_survives_copying_pickling_and_pydantic(duration):
    adapter = TypeAdapter(Duration)

    copies = [copy.deepcopy(duration), pickle.loads(pickle.dumps(duration))]  # noqa: S301 - our own bytes
    copies.append(adapter.validate_json(adapter.dump_json(duration)))

    assert all(made == duration and hash(made) == hash(duration) for made in copies)


@pytest.mark.parametrize(
    ("text", "amount", "unit", "canonical"),
    [
        ("16 epochs", 16, "epochs", "16 epochs"),
        ("1 epoch", 1, "epochs", "1 epoch"),
        ("8000 steps", 8000, "steps", "8000 steps"),
        ("500 batches", 500, "batches", "500 batches"),
        ("1 batch", 1, "batches", "1 batch"),
        ("2e9 tokens", 2 * 10**9, "tokens", "2000000000 tokens"),
        ("1e6 samples", 10**6, "samples", "1000000 samples"),
        ("1_000 samples", 1000, "samples", "1000 samples"),
        ("90 minutes", 5400, "seconds", "90 minutes"),
        ("90 min", 5400, "seconds", "90 minutes"),
        ("1.5h", 5400, "seconds", "90 minutes"),
        ("2 hours", 7200, "seconds", "2 hours"),
        ("30s", 30, "seconds", "30 seconds"),
        ("30 sec", 30, "seconds", "30 seconds"),
        ("0.25 epochs", Fraction(1, 4), "epochs", "0.25 epochs"),
        ("0.1 epochs", Fraction(1, 10), "epochs", "0.1 epochs"),
        ("5 %", 5, "percent", "5 %"),
        ("5%", 5, "percent", "5 %"),
        (" 12.5 percent ", Fraction(25, 2), "percent", "12.5 %"),
        ("3 Epochs", 3, "epochs", "3 epochs"),
    ],
)
def test_every_spelling_is_read_exactly(text, amount, unit, canonical):
    duration = Duration.parse(text)

    assert (duration.amount, duration.unit, str(duration)) == (amount, unit, canonical)


@pytest.mark.parametrize("value", [16, 16.0, "16", True, None, "epochs", "", "nan epochs", "inf steps", "2 rounds"])
def test_what_has_no_number_or_no_unit_is_refused_with_a_list_of_units(value):
    with pytest.raises(ValueError, match="epochs, steps, batches, tokens, samples, seconds, minutes, hours, %"):
        Duration.parse(value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("-3 steps", "must not be negative"),
        ("0 steps", "must be more than 0"),
        ("1.5 steps", "must be a whole number of steps"),
        ("1e999 steps", "must be at most 1e18"),
        ("1e-300 epochs", "must have at most 12 digits after the point"),
        ("101 %", "must be at most 100 %"),
    ],
)
def test_amounts_without_a_meaning_are_refused(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        Duration.parse(text)


@pytest.mark.parametrize("amount", [math.nan, math.inf, -1, True])
def test_numbers_that_are_no_amount_are_refused(amount):
    with pytest.raises(ValueError, match="must"):
        Duration(amount, "steps")


def test_zero_is_read_where_it_means_something():
    assert Duration.parse("0 steps", zero=True) == Duration(0, "steps")
    assert Duration(0, "steps").reached(Progress())


def test_a_duration_cannot_be_changed():
    with pytest.raises(AttributeError):
        Duration(1, "steps").amount = Fraction(2)


@settings(deadline=None)
@given(
    st.integers(1, 5),
    st.integers(1, 40),
    st.integers(1, 7),
    st.fractions(min_value=Fraction(1, 50), max_value=Fraction(99, 100), max_denominator=100),
)
def test_a_fraction_of_an_epoch_is_due_as_often_as_its_multiples_and_ends_fall_on_different_steps(
    epochs, batches, per_step, amount
):
    duration = Duration(amount, "epochs")
    inner = [m * amount * batches for m in range(1, math.ceil(1 / amount))]
    group = [math.ceil(place / per_step) for place in [*inner, Fraction(batches)]]

    assert events(duration, walk(epochs, batches, per_step)) == epochs * len(set(group))


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 10), st.integers(1, 4), st.integers(1, 5))
def test_whole_epochs_are_counted_through(epochs, batches, per_step, every):
    assert events(Duration(every, "epochs"), walk(epochs, batches, per_step)) == epochs // every


@given(st.integers(1, 6), st.integers(1, 10), st.integers(1, 4), st.integers(1, 50))
@settings(max_examples=50, deadline=None)
def test_counts_are_due_once_for_every_multiple_or_step_whichever_is_rarer(epochs, batches, per_step, every):
    moments = walk(epochs, batches, per_step)

    for unit, counter in [("steps", "step"), ("batches", "batch"), ("samples", "samples"), ("tokens", "tokens")]:
        counts = {getattr(now, counter) // every for now in moments}
        assert events(Duration(every, unit), moments) == len(counts) - 1
    assert events(Duration(every, "steps"), moments) == moments[-1].step // every


def test_ninety_five_hundredths_of_an_epoch_are_due_twice_in_each():
    moments = walk(epochs=3, batches=100, per_step=1)
    due = [now for before, now in pairwise(moments) if Duration.parse("0.95 epochs").due(before, now)]

    assert [(now.epoch, now.epoch_done) for now in due] == [(0, 95), (1, 0), (1, 95), (2, 0), (2, 95), (3, 0)]


def test_one_and_a_half_epochs_are_counted_through():
    assert events(Duration.parse("1.5 epochs"), walk(epochs=6, batches=10, per_step=1)) == 4


def test_an_epoch_that_outlasts_its_estimate_is_not_due_again_before_its_end():
    duration = Duration.parse("0.5 epochs")
    moments = [Progress(epoch_done=done, epoch_total=10) for done in range(30)] + [Progress(epoch=1, epoch_total=30)]

    assert events(duration, moments) == 2


def test_where_the_length_of_an_epoch_is_unknown_its_end_alone_is_due():
    moments = [Progress(epoch_done=done) for done in range(9)] + [Progress(epoch=1)]

    assert events(Duration.parse("0.25 epochs"), moments) == 1
    assert events(Duration.parse("1 epoch"), moments) == 1


@settings(deadline=None)
@given(durations.filter(lambda d: d.unit != "percent"), st.integers(0, 1000))
def test_once_reached_always_reached(duration, step):
    moments = walk(epochs=3, batches=5, per_step=2)
    reached = [duration.reached(now) for now in moments]

    assert reached == sorted(reached)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2 epochs", Progress(epoch=2, epoch_total=10)),
        ("1.5 epochs", Progress(epoch=1, epoch_done=5, epoch_total=10)),
        ("7 steps", Progress(step=7)),
        ("7 batches", Progress(batch=7)),
        ("7 tokens", Progress(tokens=7)),
        ("7 samples", Progress(samples=7)),
        ("1 minute", Progress(seconds=60.0)),
    ],
)
def test_a_duration_is_reached_exactly_at_its_amount(text, moment):
    duration = Duration.parse(text)
    shorter = {"step", "batch", "tokens", "samples", "seconds"} & {f for f in moment._fields if getattr(moment, f)}
    before = moment._replace(**{f: getattr(moment, f) - 1 for f in shorter}) if shorter else Progress(epoch_total=10)

    assert duration.reached(moment)
    assert not duration.reached(before)


def test_a_share_is_of_the_unit_of_its_run():
    assert Duration.parse("5 %").of(Duration.parse("90 minutes")) == Duration(270, "seconds")
    assert Duration.parse("5 %").of(Duration(1001, "steps")).amount == Fraction("50.05")
    assert Duration.parse("3 steps").of(Duration(1001, "steps")) == Duration(3, "steps")


def test_a_share_of_an_unknown_run_is_never_asked():
    for question in (lambda d: d.reached(Progress()), lambda d: d.due(Progress(), Progress()), lambda d: d.of(d)):
        with pytest.raises(ValueError, match=r"share of .* run"):
            question(Duration(5, "percent"))


@pytest.mark.parametrize("text", ["50 steps", "1 epoch", "0.25 epochs", "1.5 epochs", "2e9 tokens", "90 s"])
def test_asking_whether_it_is_due_takes_a_few_microseconds_at_most(text):
    duration = Duration.parse(text)
    before = Progress(100, 400, 2, 6400, 10**9, 12.5, 40, 1000)
    now = Progress(101, 404, 2, 6464, 10**9 + 999, 12.9, 44, 1000)

    seconds = min(timeit.repeat(lambda: duration.due(before, now), number=1000, repeat=5)) / 1000

    assert seconds < 3e-6  # a third of a microsecond on a free core; the rest is for a busy one
