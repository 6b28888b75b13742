"""Metrics of classes: scikit-learn's definitions, worked out by hand, and the same however the samples are cut."""

import math

import pytest
import torch

from etude.metrics.classes import ClassMetrics

LABELS = ["a", "b", "c"]
EVERY = ["accuracy", "balanced_accuracy", "f1_macro", "f1_per_class"]
TRUE = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2, 2])
PREDICTED = torch.tensor([0, 0, 1, 2, 1, 0, 2, 2, 2, 1])
# a: 2 of 4 right, predicted 3 times; b: 1 of 2, 3 times; c: 3 of 4, 4 times.


def seen(true, predicted, labels=LABELS):
    metrics = ClassMetrics(labels, EVERY)
    metrics.update(true, predicted)
    return metrics


def test_values_are_those_of_the_definitions():
    found = seen(TRUE, PREDICTED).compute()

    assert found["accuracy"] == pytest.approx(6 / 10)
    assert found["balanced_accuracy"] == pytest.approx((2 / 4 + 1 / 2 + 3 / 4) / 3)
    assert [found[f"f1/{label}"] for label in LABELS] == pytest.approx([4 / 7, 2 / 5, 6 / 8])
    assert found["f1_macro"] == pytest.approx((4 / 7 + 2 / 5 + 6 / 8) / 3)


def test_the_confusion_matrix_has_a_row_for_each_true_class():
    assert seen(TRUE, PREDICTED).matrix.tolist() == [[2, 1, 1], [1, 1, 0], [0, 1, 3]]


def test_a_class_that_does_not_occur_is_no_part_of_a_mean():
    predicted_only = seen(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 2, 1, 1])).compute()
    absent = seen(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1])).compute()

    assert predicted_only["balanced_accuracy"] == pytest.approx((1 / 2 + 1) / 2)  # recall is of true classes
    assert predicted_only["f1_macro"] == pytest.approx((2 / 3 + 1 + 0) / 3)  # F1 of true or predicted ones
    assert absent["f1_macro"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert absent["f1/c"] == 0


def test_batches_and_ranks_give_what_all_samples_together_give():
    whole = seen(TRUE, PREDICTED)
    one, other = seen(TRUE[:3], PREDICTED[:3]), seen(TRUE[3:7], PREDICTED[3:7])
    other.update(TRUE[7:], PREDICTED[7:])

    one.merge(other)

    assert one.compute() == whole.compute()


def test_nothing_seen_is_no_number():
    metrics = seen(TRUE, PREDICTED)
    metrics.reset()

    assert all(math.isnan(metrics.compute()[name]) for name in EVERY[:3])
