"""Thresholds of the largest F1, beside scikit-learn's curve of precision and recall."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sk

from etude.metrics.thresholds import ThresholdSearch, f1_thresholds


def best_f1(true, scores):
    """The largest F1 of any threshold, by scikit-learn."""
    precision, recall, _ = sk.precision_recall_curve(true, scores)
    both = np.maximum(precision + recall, 1e-12)
    return (2 * precision * recall / both).max()


def chosen(true, scores):
    return f1_thresholds(torch.tensor(true)[:, None], torch.tensor(scores, dtype=torch.float32)[:, None]).numpy()[0]


# Few different scores, so that many are equal.
few = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        arrays(np.bool_, n, elements=st.booleans()).filter(np.any),
        arrays(np.float32, n, elements=st.integers(0, 8).map(lambda value: value / 8)),
    )
)
any_score = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        arrays(np.bool_, n, elements=st.booleans()).filter(np.any),
        arrays(np.float32, n, elements=st.floats(0, 1, width=32)),
    )
)


@given(st.one_of(few, any_score))
def test_no_threshold_gives_a_larger_f1(drawn):
    true, scores = drawn

    threshold = chosen(true, scores)

    assert sk.f1_score(true, scores >= threshold) == pytest.approx(best_f1(true, scores), abs=1e-12)
    assert 0 <= threshold <= 1


def test_each_label_has_its_own_and_what_is_not_known_does_not_count():
    draw = np.random.default_rng(0)
    true, scores = (draw.random((50, 3)) < 0.3).astype(np.float32), draw.random((50, 3)).astype(np.float32)
    true[::4, 1] = np.nan

    found = f1_thresholds(torch.tensor(true), torch.tensor(scores))

    for label, threshold in enumerate(found.numpy()):
        known = ~np.isnan(true[:, label])
        there, score = true[known, label] > 0, scores[known, label]
        assert sk.f1_score(there, score >= threshold) == pytest.approx(best_f1(there, score))


def test_it_lies_midway_between_two_scores_and_of_two_as_good_nearest_to_a_half():
    assert chosen([False, True], [0.2, 0.6]) == pytest.approx(0.4)
    # F1 is 2/3 with the first sample alone and with all of them.
    assert chosen([True, False, False, True], [0.9, 0.7, 0.5, 0.3]) == pytest.approx(0.8)
    assert chosen([True, False, False, True], [0.9, 0.85, 0.8, 0.7]) == pytest.approx(0.35)


@pytest.mark.parametrize("true", [[False, False], [float("nan")] * 2])
def test_a_label_that_no_sample_has_keeps_a_half(true):
    assert chosen(true, [0.1, 0.9]) == 0.5


def test_scores_that_are_no_numbers_do_not_count():
    assert chosen([True, True, False], [0.8, float("nan"), 0.2]) == pytest.approx(0.5)
    assert chosen([True], [float("nan")]) == 0.5


def test_a_threshold_parts_scores_that_are_neighbours_in_float32():
    low = np.float32(0.7)
    high = np.nextafter(low, np.float32(1))

    threshold = chosen([False, True], [low, high])

    assert low < threshold <= high


def test_all_samples_are_predicted_where_all_have_the_label():
    assert chosen([True, True], [0.0, 0.25]) <= 0.0
    assert chosen([True, True], [0.5, 0.75]) == 0.25


def test_a_search_that_is_merged_chooses_and_measures_as_one_that_saw_all():
    draw = torch.Generator().manual_seed(1)
    true, scores = torch.rand(30, 2, generator=draw) < 0.4, torch.rand(30, 2, generator=draw)
    seen = []

    def choose(targets, outputs):
        return dict(zip("ab", f1_thresholds(targets, outputs).tolist(), strict=True))

    whole, part, other = (ThresholdSearch(choose, lambda *given: seen.append(given)) for _ in range(3))
    whole.update(true, scores)
    part.update(true[:13], scores[:13])
    other.update(true[13:], scores[13:])
    part.merge(other)

    assert part.compute() == whole.compute()
    assert [len(targets) for targets, _, _ in seen] == [13, 17, 30]
    whole.reset()
    assert whole.compute() == {}
