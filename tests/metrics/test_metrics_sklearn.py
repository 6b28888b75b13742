"""Metrics of labels and numbers have scikit-learn's values, and are the same however the samples are cut."""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from etude.metrics.classes import ClassMetrics
from etude.metrics.numbers import NumberMetrics
from etude.metrics.scores import ClassScores, LabelScores
from etude.metrics.several_labels import LabelMetrics

AVERAGES = [f"{name}_{over}" for name in ("precision", "recall", "f1") for over in ("macro", "micro", "weighted")]
PER_CLASS = ["precision_per_class", "recall_per_class", "f1_per_class"]
OF_SKLEARN = {"precision": sk.precision_score, "recall": sk.recall_score, "f1": sk.f1_score}
NUMBERS = ["mse", "rmse", "mae", "r2", "ccc", "pearson"]


def in_parts(make, true, predicted, cuts=(0, 1, 7, 7, 30, None)):
    """The metric of all samples, by batches of several sizes on two ranks."""
    one, other = make(), make()
    for number, (start, stop) in enumerate(itertools.pairwise(cuts)):
        (other if number % 2 else one).update(true[start:stop], predicted[start:stop])
    one.merge(other)
    return one.compute()


@pytest.fixture(params=range(3))
def rng(request):
    return np.random.default_rng(request.param)


def test_averages_of_classes_are_scikit_learns(rng):
    labels = ["a", "b", "c", "d", "e"]
    true = rng.integers(0, 4, 50)
    predicted = np.where(rng.random(50) < 0.5, true, rng.integers(1, 5, 50))

    found = in_parts(
        lambda: ClassMetrics(labels, ["accuracy", "balanced_accuracy", *AVERAGES, *PER_CLASS]),
        torch.tensor(true),
        torch.tensor(predicted),
    )

    assert found["accuracy"] == pytest.approx(sk.accuracy_score(true, predicted), abs=1e-12)
    with warnings.catch_warnings(action="ignore"):  # of classes that were predicted but never occur
        assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(true, predicted), abs=1e-12)
    for name in AVERAGES:
        score, _, average = name.partition("_")
        expected = OF_SKLEARN[score](true, predicted, average=average, zero_division=0)
        assert found[name] == pytest.approx(expected, abs=1e-12), name
    for score, function in OF_SKLEARN.items():
        expected = function(true, predicted, average=None, labels=range(5), zero_division=0)
        assert [found[f"{score}/{label}"] for label in labels] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("digits", [1, 7])
def test_ranking_of_classes_is_scikit_learns_ties_included(rng, digits):
    scores = rng.dirichlet(np.ones(3), 60).round(digits)
    true = np.arange(60) % 3

    found = in_parts(
        lambda: ClassScores(["a", "b", "c"], ["auroc", "average_precision"]), torch.tensor(true), torch.tensor(scores)
    )

    each = [true == number for number in range(3)]
    area = [sk.roc_auc_score(one, scores[:, number]) for number, one in enumerate(each)]
    precision = [sk.average_precision_score(one, scores[:, number]) for number, one in enumerate(each)]
    assert found["auroc"] == pytest.approx(np.mean(area), abs=1e-12)
    assert found["average_precision"] == pytest.approx(np.mean(precision), abs=1e-12)


def test_ranking_of_two_classes_is_of_the_second(rng):
    scores = rng.random(40).round(1)
    true = rng.integers(0, 2, 40)
    both = torch.tensor(np.stack([1 - scores, scores], 1))

    found = in_parts(lambda: ClassScores(["no", "yes"], ["auroc"]), torch.tensor(true), both)

    assert found["auroc"] == pytest.approx(sk.roc_auc_score(true, scores), abs=1e-12)


def test_ranking_without_one_kind_of_sample_is_no_number():
    metrics = ClassScores(["no", "yes"], ["auroc", "average_precision"])
    metrics.update(torch.tensor([0, 0]), torch.tensor([[0.5, 0.5], [0.9, 0.1]]))

    assert all(map(math.isnan, metrics.compute().values()))


def test_several_labels_are_scikit_learns(rng):
    true = rng.integers(0, 2, (50, 4))
    true[:, 3] = 0  # never there
    scores = rng.random((50, 4)).round(1)
    predicted = scores > 0.4
    labels = ["a", "b", "c", "d"]

    found = in_parts(
        lambda: LabelMetrics(labels, ["subset_accuracy", "hamming_loss", *AVERAGES, *PER_CLASS]),
        torch.tensor(true).float(),
        torch.tensor(predicted),
    )
    ranked = in_parts(
        lambda: LabelScores(labels, ["auroc", "average_precision"]), torch.tensor(true).float(), torch.tensor(scores)
    )

    assert found["subset_accuracy"] == pytest.approx(sk.accuracy_score(true, predicted), abs=1e-12)
    assert found["hamming_loss"] == pytest.approx(sk.hamming_loss(true, predicted), abs=1e-12)
    for name in AVERAGES:
        score, _, average = name.partition("_")
        expected = OF_SKLEARN[score](true, predicted, average=average, zero_division=0)
        assert found[name] == pytest.approx(expected, abs=1e-12), name
    for score, function in OF_SKLEARN.items():
        expected = function(true, predicted, average=None, zero_division=0)
        assert [found[f"{score}/{label}"] for label in labels] == pytest.approx(expected, abs=1e-12)
    assert ranked["auroc"] == pytest.approx(sk.roc_auc_score(true[:, :3], scores[:, :3], average="macro"), abs=1e-12)
    expected = sk.average_precision_score(true[:, :3], scores[:, :3], average="macro")
    assert ranked["average_precision"] == pytest.approx(expected, abs=1e-12)


def test_a_target_that_is_not_there_counts_for_nothing():
    true = torch.tensor([[1.0, math.nan], [0.0, 1.0], [1.0, 1.0]])
    predicted = torch.tensor([[True, True], [True, True], [False, True]])
    metrics = LabelMetrics(["a", "b"], ["subset_accuracy", "hamming_loss", "f1_micro"])

    metrics.update(true, predicted)

    cells = ~true.isnan().numpy()
    flat = true.numpy()[cells], predicted.numpy()[cells]
    assert metrics.compute() == pytest.approx(
        {"subset_accuracy": 0, "hamming_loss": np.mean(flat[0] != flat[1]), "f1_micro": sk.f1_score(*flat)}
    )


def test_numbers_are_scikit_learns_far_from_zero_too(rng):
    true = rng.normal(1e4, [1.0, 50.0], (60, 2))
    predicted = true + rng.normal(0.3, [0.5, 20.0], (60, 2))

    found = in_parts(lambda: NumberMetrics(["a", "b"], NUMBERS), torch.tensor(true), torch.tensor(predicted))

    for name, function in {
        "mse": sk.mean_squared_error,
        "rmse": sk.root_mean_squared_error,
        "mae": sk.mean_absolute_error,
        "r2": sk.r2_score,
    }.items():
        each = function(true, predicted, multioutput="raw_values")
        assert [found[f"{name}/a"], found[f"{name}/b"]] == pytest.approx(each, rel=1e-9), name
        assert found[name] == pytest.approx(function(true, predicted), rel=1e-9), name
    for place, target in enumerate("ab"):
        x, y = predicted[:, place], true[:, place]
        assert found[f"pearson/{target}"] == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-9)
        expected = 2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
        assert found[f"ccc/{target}"] == pytest.approx(expected, rel=1e-9)


def test_a_number_that_is_not_there_is_not_counted(rng):
    true, predicted = rng.normal(size=(20, 2)), rng.normal(size=(20, 2))
    true[3:9, 0] = math.nan

    found = in_parts(
        lambda: NumberMetrics(["a", "b"], NUMBERS), torch.tensor(true), torch.tensor(predicted), (0, 5, 8, None)
    )

    kept = ~np.isnan(true[:, 0])
    assert found["mae/a"] == pytest.approx(sk.mean_absolute_error(true[kept, 0], predicted[kept, 0]), rel=1e-9)
    assert found["r2/a"] == pytest.approx(sk.r2_score(true[kept, 0], predicted[kept, 0]), rel=1e-9)


def test_numbers_of_nothing_are_no_numbers():
    assert all(map(math.isnan, NumberMetrics(["a"], NUMBERS).compute().values()))
