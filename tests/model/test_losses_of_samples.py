"""Losses of labels and numbers: torch's values, the papers' formulas, and targets that are not there."""

import math

import pytest
import torch
import torch.nn.functional as F

from etude.model.losses import MeanSquaredError
from etude.model.losses.binary import BinaryCrossEntropy, BinaryFocal
from etude.model.losses.distances import Concordance, Huber, MeanAbsoluteError
from etude.model.losses.focal import Focal
from etude.model.losses.weighted import weighted_cross_entropy

NAN = math.nan


@pytest.fixture
def logits():
    return torch.randn(12, 4, generator=torch.Generator().manual_seed(3)) * 3


@pytest.fixture
def flags():
    return (torch.rand(12, 4, generator=torch.Generator().manual_seed(4)) < 0.4).float()


def grad(loss, logits, *rest):
    leaf = logits.clone().requires_grad_()
    loss(leaf, *rest).sum.backward()
    return leaf.grad


def test_binary_cross_entropy_is_torchs(logits, flags):
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0])

    plain, weighted = BinaryCrossEntropy()(logits, flags), BinaryCrossEntropy()(logits, flags, weights)

    torch.testing.assert_close(plain.value, F.binary_cross_entropy_with_logits(logits, flags))
    expected = F.binary_cross_entropy_with_logits(logits, flags, pos_weight=weights)
    torch.testing.assert_close(weighted.value, expected)


@pytest.mark.parametrize("loss", [BinaryCrossEntropy(), BinaryFocal(2.0, 0.25)])
def test_a_label_that_is_not_there_has_no_part_in_loss_or_gradient(loss, logits, flags):
    holes = flags.clone()
    holes[2, 1] = holes[5] = NAN
    there = ~holes.isnan()

    found = loss(logits, holes)

    expected = loss(logits[there][:, None], flags[there][:, None])
    torch.testing.assert_close(found.sum, expected.sum)
    assert int(found.count) == int(there.sum())
    assert (grad(loss, logits, holes)[~there] == 0).all()


def test_focal_is_the_cross_entropy_at_gamma_0_weights_included(logits):
    labels, weights = torch.arange(12) % 4, torch.tensor([1.0, 2.0, 0.5, 3.0])

    plain, weighted = Focal(0.0)(logits, labels), Focal(0.0)(logits, labels, weights)

    torch.testing.assert_close(plain.value, F.cross_entropy(logits, labels))
    torch.testing.assert_close(weighted.value, F.cross_entropy(logits, labels, weight=weights))
    torch.testing.assert_close(weighted.value, weighted_cross_entropy(logits, labels, weights).value)


def test_focal_is_the_papers(logits, flags):
    labels = torch.arange(12) % 4
    p = logits.double().softmax(-1)[torch.arange(12), labels]
    q = logits.double().sigmoid()
    p_t, alpha_t = torch.where(flags > 0, q, 1 - q), torch.where(flags > 0, 0.25, 0.75)

    classes, several = Focal(1.5)(logits, labels), BinaryFocal(2.0, 0.25)(logits, flags)

    torch.testing.assert_close(classes.value.double(), (-((1 - p) ** 1.5) * p.log()).mean(), rtol=1e-5, atol=0)
    expected = (-alpha_t * (1 - p_t) ** 2 * p_t.log()).mean()
    torch.testing.assert_close(several.value.double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_has_a_finite_gradient_of_what_is_certain(gamma):
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]])

    assert grad(Focal(gamma), logits, torch.tensor([0, 0])).isfinite().all()
    assert grad(BinaryFocal(gamma), logits, torch.tensor([[1.0, 0.0], [1.0, 0.0]])).isfinite().all()


def test_a_class_that_is_ignored_counts_for_nothing(logits):
    labels = torch.tensor([0, -100] * 6)

    found = Focal(2.0)(logits, labels)

    torch.testing.assert_close(found.sum, Focal(2.0)(logits[::2], labels[::2]).sum)
    assert int(found.count) == 6


@pytest.mark.parametrize(
    ("loss", "torchs"),
    [
        (MeanSquaredError(missing=True), F.mse_loss),
        (MeanAbsoluteError(), F.l1_loss),
        (Huber(0.7), lambda x, y: F.huber_loss(x, y, delta=0.7)),
    ],
)
def test_distances_are_torchs_over_the_numbers_that_are_there(loss, torchs, logits):
    targets = torch.linspace(-4, 4, 48).view(12, 4)
    holes = targets.clone()
    holes[1] = holes[4, 2] = NAN
    there = ~holes.isnan()

    torch.testing.assert_close(loss(logits, targets).value, torchs(logits, targets))
    torch.testing.assert_close(loss(logits, holes).value, torchs(logits[there], targets[there]))
    assert (grad(loss, logits, holes)[~there] == 0).all()


def ccc(x, y):
    covariance = ((x - x.mean()) * (y - y.mean())).mean()
    return 2 * covariance / (x.var(correction=0) + y.var(correction=0) + (x.mean() - y.mean()) ** 2)


def test_concordance_is_the_formula_of_each_target(logits):
    targets = torch.randn(12, 4, generator=torch.Generator().manual_seed(9)) + 100
    outputs = logits + 100
    holes = targets.clone()
    holes[:5, 1] = NAN

    whole, some = Concordance()(outputs, targets), Concordance()(outputs, holes)

    each = [1 - ccc(x, y) for x, y in zip(outputs.double().T, targets.double().T, strict=True)]
    torch.testing.assert_close(whole.value.double(), torch.stack(each).mean(), rtol=1e-4, atol=0)
    each[1] = 1 - ccc(outputs[5:, 1].double(), targets[5:, 1].double())
    torch.testing.assert_close(some.value.double(), torch.stack(each).mean(), rtol=1e-4, atol=0)
    assert int(whole.count) == 12


@pytest.mark.parametrize(
    ("outputs", "targets"),
    [
        (torch.ones(3, 1), torch.ones(3, 1)),
        (torch.ones(3, 1), torch.full((3, 1), NAN)),
        (torch.ones(0, 1), torch.ones(0, 1)),
    ],
)
def test_a_concordance_that_is_not_defined_costs_nothing(outputs, targets):
    leaf = outputs.clone().requires_grad_()

    found = Concordance()(leaf, targets)
    found.value.backward()

    assert found.value.item() == 0
    assert (leaf.grad == 0).all()


def test_losses_are_computed_in_float32_under_autocast(logits, flags):
    with torch.autocast("cpu", torch.bfloat16):
        half = logits.bfloat16()
        found = [
            BinaryCrossEntropy()(half, flags),
            Focal()(half, torch.arange(12) % 4),
            Huber()(half, flags),
            Concordance()(half, flags),
        ]

    assert all(loss.sum.dtype == torch.float32 for loss in found)
