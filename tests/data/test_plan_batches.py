"""Which samples make which batch."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.base.errors import ConfigError, DataError
from etude.base.randomness import Permutation, seed_of
from etude.data.feeds.feed import limited
from etude.data.order.plan import CountPlan, Share
from etude.data.order.windows import Budget, Count, WindowPlan, by_both_lengths


def padding_share(sources, targets, cuts):
    """The part of all places in a window's batches, source and target together, that is padding."""
    begins, counts = np.array(cuts[:-1]), np.diff(cuts)
    places = counts * (np.maximum.reduceat(sources, begins) + np.maximum.reduceat(targets, begins))
    return 1.0 - float(sources.sum() + targets.sum()) / float(places.sum())


def lengths_of(n, seed=0):
    rng = np.random.default_rng(seed)
    sources = np.clip(np.exp(rng.normal(2.6, 0.45, n)), 2, 60).astype(np.int64)
    targets = np.clip(sources * np.exp(rng.normal(0.05, 0.2, n)), 3, 60).astype(np.int64)
    return sources, targets


def window_plan(n=300, size=200, *, shuffle=True, cutter=Budget, **options):
    sources, targets = lengths_of(n)
    return WindowPlan(n, lambda i: (sources[i], targets[i]), cutter, size, seed=1, shuffle=shuffle, **options)


def samples_of(plan, epoch=0, position=None):
    return [np.asarray(planned.indices).tolist() for planned in plan.epoch(epoch, position)]


@given(n=st.integers(0, 200), size=st.integers(1, 30), epoch=st.integers(0, 3))
def test_a_batch_by_count_is_the_next_stretch_of_the_epochs_permutation(n, size, epoch):
    order = Permutation(n, seed_of(5, "order", epoch)).take(0, n).tolist()

    batches = samples_of(CountPlan(n, size, seed=5, shuffle=True), epoch)

    assert batches == [order[at : at + size] for at in range(0, n, size)]


def test_dropping_the_last_batch_drops_only_a_partial_one():
    partial, whole = (CountPlan(n, 5, seed=1, shuffle=True, drop_last=True) for n in (12, 10))

    assert [len(batch) for batch in samples_of(partial)] == [5, 5]
    assert (partial.batches, partial.samples) == (2, 10)
    assert [len(batch) for batch in samples_of(whole)] == [5, 5]


@settings(max_examples=30)
@given(n=st.integers(1, 300), size=st.integers(60, 400), window=st.integers(20, 400), shuffle=st.booleans())
def test_every_sample_is_in_one_batch_and_no_batch_is_over_its_budget(n, size, window, shuffle):
    plan = window_plan(n, size, shuffle=shuffle, window=window)
    sources, targets = lengths_of(n)

    batches = samples_of(plan)

    assert sorted(itertools.chain(*batches)) == list(range(n))
    assert all(len(batch) * max(sources[batch].max(), targets[batch].max()) <= size for batch in batches)


def test_a_corpus_of_one_window_has_the_same_number_of_batches_in_every_epoch():
    plan = window_plan()

    counts = {len(samples_of(plan, epoch)) for epoch in range(8)}

    assert plan.exact
    assert counts == {plan.batches}


def test_a_corpus_of_many_windows_says_that_its_batches_are_estimated_and_is_near():
    plan = window_plan(2000, 400, window=256)

    batches = samples_of(plan)

    assert not plan.exact
    assert plan.batches == pytest.approx(len(batches), rel=0.1)
    assert sorted(itertools.chain(*batches)) == list(range(2000))


def test_epochs_differ_when_shuffled_and_are_equal_when_not():
    shuffled, still = window_plan(), window_plan(shuffle=False)

    assert samples_of(shuffled, 0) != samples_of(shuffled, 1)
    assert samples_of(still, 0) == samples_of(still, 1)


@pytest.mark.parametrize("seed", [0, 1])
def test_padding_over_both_sides_is_under_five_percent_on_ordinary_lengths(seed):
    sources, targets = lengths_of(1 << 16, seed)
    order = by_both_lengths(sources, targets)
    sources, targets = sources[order], targets[order]

    share = padding_share(sources, targets, Budget(4096).cuts(sources, targets))

    assert share < 0.05


def test_batches_of_similar_lengths_can_be_cut_by_count():
    sizes = [len(batch) for batch in samples_of(window_plan(50, 8, cutter=Count))]

    assert sorted(sizes) == [2, 8, 8, 8, 8, 8, 8]


def test_a_sample_that_alone_is_over_the_budget_is_named():
    plan = WindowPlan(3, lambda i: (i * 0 + 5, 10 * i + 5), Budget, 20, seed=1, shuffle=True)

    with pytest.raises(DataError, match=r"^Sample 2 .* has 25 tokens .* at most 20 tokens .*train\.batch_tokens"):
        samples_of(plan)


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize(
    "plan_for",
    [
        lambda share: CountPlan(50, 8, seed=1, shuffle=True, share=share),
        lambda share: window_plan(share=share),
    ],
)
def test_ranks_share_the_batches_that_one_process_would_take(plan_for, world):
    alone = list(plan_for(Share()).epoch(0))

    ranks = [list(plan_for(Share(rank, world)).epoch(0)) for rank in range(world)]

    for whole, *shares in zip(alone, *ranks, strict=True):
        assert [share.borrowed for share in shares] == [len(whole.indices) <= rank for rank in range(world)]
        own = [share.indices for share in shares if not share.borrowed]
        assert sorted(itertools.chain(*own)) == sorted(whole.indices)
        assert all(len(share.indices) == 1 for share in shares if share.borrowed)
        assert {share.samples for share in shares} == {len(whole.indices)}
        assert {tuple(share.position.items()) for share in shares} == {tuple(whole.position.items())}
        assert max(len(s.indices) for s in shares) - min(len(s.indices) for s in shares) <= 1


def test_another_size_is_taken_up_by_the_next_epoch_and_not_by_one_that_goes_on():
    plan = CountPlan(20, 5, seed=1, shuffle=True)
    position = next(plan.epoch(0)).position

    plan.resize(10)

    assert [len(batch) for batch in samples_of(plan, 0, position)] == [5, 5, 5]
    assert [len(batch) for batch in samples_of(plan, 1)] == [10, 10]


@pytest.mark.parametrize(
    ("limit", "batches", "expected"),
    [(None, 10, None), (1.0, 10, None), (1, 10, 1), (0.3, 10, 3), (0.01, 10, 1), (12, 10, None), (4, None, 4)],
)
def test_a_limit_is_a_share_when_it_is_a_float_and_batches_when_it_is_whole(limit, batches, expected):
    assert limited(limit, batches) == expected


@pytest.mark.parametrize(("limit", "batches"), [(0, 10), (0.0, 10), (1.5, 10), (-1, 10), (0.5, None)])
def test_a_limit_that_means_nothing_is_refused(limit, batches):
    with pytest.raises(ConfigError, match="limit"):
        limited(limit, batches)
