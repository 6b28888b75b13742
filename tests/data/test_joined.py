import numpy as np
import pytest

from etude.data.order.joined import Joiner, Joining

N = 50
LENGTHS = np.arange(100, 100 + N)
DIGITS = Joining(3, 7, (5, 20))


def test_a_sample_is_joined_alike_whichever_others_are_asked_for():
    joiner = Joiner(DIGITS, N, seed=1, epoch=4)
    alone = [joiner.of(np.array([sample])) for sample in range(N)]

    together = joiner.of(np.arange(N))

    assert together.counts.tolist() == [int(one.counts[0]) for one in alone]
    assert together.parts.tolist() == [part for one in alone for part in one.parts.tolist()]
    assert together.pauses.tolist() == [pause for one in alone for pause in one.pauses.tolist()]


def test_lengths_are_those_of_parts_and_pauses():
    joiner = Joiner(DIGITS, N, seed=1, epoch=0)
    rows = np.array([7, 3, 49])
    expected = []
    for row in rows:
        one = joiner.of(np.array([row]))
        expected.append(LENGTHS[one.parts].sum() + one.pauses.sum())

    assert joiner.lengths(rows, LENGTHS).tolist() == expected


def test_what_is_drawn_lies_within_its_bounds_and_reaches_them():
    joined = Joiner(DIGITS, N, seed=3, epoch=1).of(np.arange(N))

    assert set(joined.counts.tolist()) == {3, 4, 5, 6, 7}
    assert joined.pauses.min() == 5
    assert joined.pauses.max() == 20
    assert set(joined.parts.tolist()) <= set(range(N))


def test_the_first_part_is_the_sample_itself():
    joined = Joiner(DIGITS, N, seed=3, epoch=1).of(np.arange(N))

    assert joined.parts[np.cumsum(joined.counts) - joined.counts].tolist() == list(range(N))


@pytest.mark.parametrize("other", [{"seed": 2, "epoch": 0}, {"seed": 1, "epoch": 1}])
def test_seed_and_epoch_draw_anew(other):
    one = Joiner(DIGITS, N, seed=1, epoch=0).of(np.arange(N))

    assert Joiner(DIGITS, N, **other).of(np.arange(N)).parts.tolist() != one.parts.tolist()
