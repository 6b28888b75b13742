"""Which samples an epoch takes within limits, and which come first."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.base.errors import DataError
from etude.base.randomness import Permutation, seed_of
from etude.data.order.curriculum import Ascending, Chosen, Curriculum
from etude.data.order.plan import CountPlan, Shuffled
from etude.data.order.windows import Budget, WindowPlan

N = 200
DRAW = np.random.default_rng(3)
LENGTHS = DRAW.integers(1, 20, N)
HARD = DRAW.normal(0, 1, N).round(1)


def curriculum(limits=(), *, kind="shuffled", by="length", chunk=32, **options):
    measures = {"max_length": LENGTHS.__getitem__, "max_difficulty": HARD.__getitem__}
    ease = LENGTHS.__getitem__ if by == "length" else HARD.__getitem__
    return Curriculum(
        N, seed=5, measures=measures, limits=dict(limits), ease=ease, kind=kind, chunk=chunk, varying=True, **options
    )


def plan_for(kind, orders, size=8):
    if kind == "count":
        return CountPlan(N, size, seed=5, shuffle=True, orders=orders)
    budget = size * 10
    return WindowPlan(
        N, lambda i: (LENGTHS[i], LENGTHS[i]), Budget, budget, seed=5, shuffle=True, orders=orders, window=64
    )


def batches(plan, epoch=0, position=None):
    return [planned.indices.tolist() for planned in plan.epoch(epoch, position)]


def samples(plan, epoch=0):
    return list(itertools.chain(*batches(plan, epoch)))


numbers = st.lists(st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6)), min_size=1, max_size=90)


@settings(max_examples=60, deadline=None)
@given(numbers, st.integers(1, 20), st.data())
def test_an_ascending_order_is_that_of_a_sort_whatever_part_is_asked_for(found, chunk, data):
    array = np.array(found)
    order = Ascending(len(found), array.__getitem__, seed=1, epoch=0, chunk=chunk)

    whole = order.take(0, len(found))

    assert array[whole].tolist() == sorted(found)
    assert sorted(whole.tolist()) == list(range(len(found)))
    start = data.draw(st.integers(0, len(found)))
    stop = data.draw(st.integers(start, len(found) + 5))
    fresh = Ascending(len(found), array.__getitem__, seed=1, epoch=0, chunk=chunk)
    assert fresh.take(start, stop).tolist() == whole[start:stop].tolist()


def test_equals_of_an_ascending_order_are_mixed_anew_every_epoch():
    same = np.zeros(30).__getitem__

    epochs = [Ascending(30, same, seed=1, epoch=epoch).take(0, 30).tolist() for epoch in (0, 1)]

    assert list(range(30)) not in epochs
    assert epochs[0] != epochs[1]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 80), st.integers(1, 20), st.data())
def test_what_is_chosen_of_an_order_keeps_its_order(n, chunk, data):
    kept = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    expected = [row for row in Permutation(n, seed_of(1, "order", 0)).take(0, n).tolist() if kept[row]]
    start = data.draw(st.integers(0, len(expected)))

    chosen = Chosen(Shuffled(n, 1, 0), kept.__getitem__, int(kept.sum()), chunk=chunk)

    assert chosen.take(start, n).tolist() == expected[start:]
    assert chosen.take(0, len(chosen)).tolist() == expected


@pytest.mark.parametrize("kind", ["count", "budget"])
@pytest.mark.parametrize("limit", [1, 4, 19])
def test_an_epoch_takes_every_sample_within_the_limit_once_and_no_other(kind, limit):
    plan = plan_for(kind, curriculum({"max_length": limit}))

    assert sorted(samples(plan)) == np.flatnonzero(limit >= LENGTHS).tolist()
    assert plan.samples == np.count_nonzero(limit >= LENGTHS)


@pytest.mark.parametrize("kind", ["count", "budget"])
def test_a_sample_has_to_be_within_every_limit(kind):
    plan = plan_for(kind, curriculum({"max_length": 9, "max_difficulty": 0.3}))

    assert sorted(samples(plan)) == np.flatnonzero((LENGTHS <= 9) & (HARD <= 0.3)).tolist()


@pytest.mark.parametrize("kind", ["count", "budget"])
def test_a_limit_is_taken_up_by_the_next_epoch_and_not_by_one_that_goes_on(kind):
    orders = curriculum({"max_length": 4})
    plan = plan_for(kind, orders)
    expected = batches(plan)
    first = next(plan.epoch(0))

    orders.restrict("max_length", 12)

    assert batches(plan, 0, first.position) == expected[1:]
    assert sorted(samples(plan, 1)) == np.flatnonzero(LENGTHS <= 12).tolist()


@pytest.mark.parametrize("kind", ["count", "budget"])
@pytest.mark.parametrize("order", ["shuffled", "sorted", "easy_first"])
@pytest.mark.parametrize("by", ["length", "difficulty"])
def test_an_epoch_goes_on_anywhere_with_exactly_the_rest(kind, order, by):
    limits = {"max_length": 15, "max_difficulty": 0.8}
    whole = list(plan_for(kind, curriculum(limits, kind=order, by=by)).epoch(0))

    for cut, planned in enumerate(whole):
        fresh = plan_for(kind, curriculum({"max_length": 1, "max_difficulty": -1.0}, kind=order, by=by))
        assert batches(fresh, 0, planned.position) == [later.indices.tolist() for later in whole[cut + 1 :]]
    assert [planned.last for planned in whole] == [False] * (len(whole) - 1) + [True]


@pytest.mark.parametrize("kind", ["count", "budget"])
@pytest.mark.parametrize(("by", "numbers"), [("length", LENGTHS), ("difficulty", HARD)])
def test_sorted_epochs_ascend_by_what_is_easy(kind, by, numbers):
    plan = plan_for(kind, curriculum(kind="sorted", by=by))

    for epoch in (0, 3):
        found = samples(plan, epoch)
        assert numbers[found].tolist() == sorted(numbers)
        assert sorted(found) == list(range(N))


@pytest.mark.parametrize("kind", ["count", "budget"])
def test_easy_first_ascends_for_its_epochs_and_shuffles_then(kind):
    plan = plan_for(kind, curriculum(kind="easy_first", easy_epochs=2))
    shuffled = plan_for(kind, None)

    ascends = [LENGTHS[samples(plan, epoch)].tolist() == sorted(LENGTHS) for epoch in range(4)]

    assert ascends == [True, True, False, False]
    assert batches(plan, 2) == batches(shuffled, 2)


def test_batches_by_tokens_keep_to_the_budget_in_an_order_by_difficulty():
    for batch in batches(plan_for("budget", curriculum(kind="sorted", by="difficulty"))):
        assert len(batch) * LENGTHS[batch].max() <= 80


@pytest.mark.parametrize("kind", ["count", "budget"])
def test_limits_that_leave_nothing_are_named_with_their_values(kind):
    plan = plan_for(kind, curriculum({"max_length": 0.5}))
    both = plan_for(kind, curriculum({"max_length": 19, "max_difficulty": -9.5}))

    with pytest.raises(DataError, match=r"^data\.max_length = 0\.5 leaves none of the 200 .* epoch 3; .* length 1\.$"):
        batches(plan, 2)
    with pytest.raises(DataError, match=r"^data\.max_length = 19 and data\.max_difficulty = -9\.5 leave none"):
        batches(both)
    assert (plan.batches, plan.samples) == (0, 0)


def test_what_takes_all_in_shuffled_order_is_the_plain_plan():
    for kind in ("count", "budget"):
        assert batches(plan_for(kind, curriculum({"max_length": 19})), 1) == batches(plan_for(kind, None), 1)
