"""Laws of the losses, against torch's own."""

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from etude.model.losses import CrossEntropy, LossConfig, MeanSquaredError
from etude.model.losses import fused as fused_loss


def problem():
    generator = torch.Generator().manual_seed(4)
    hidden = torch.randn(3, 10, 6, dtype=torch.float64, generator=generator).requires_grad_()
    weight = torch.randn(11, 6, dtype=torch.float64, generator=generator).requires_grad_()
    return hidden, weight, torch.randint(0, 11, (3, 10), generator=generator)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs_with_padding_left_out(smoothing):
    hidden, weight, targets = problem()
    logits = hidden @ weight.T

    loss = CrossEntropy(smoothing, ignore_index=0)(logits, targets)

    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=0, label_smoothing=smoothing)
    torch.testing.assert_close(loss.value, expected)
    assert int(loss.count) == int((targets != 0).sum())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("chunk", "block"), [(264, 100), (1, 1), (1 << 23, 1 << 20)])
def test_cross_entropy_from_hidden_layers_has_the_value_and_gradients_of_the_plain_one(
    smoothing, chunk, block, monkeypatch
):
    monkeypatch.setitem(fused_loss.CHUNK_BYTES, "cpu", chunk)
    monkeypatch.setattr(fused_loss, "BLOCK_ELEMENTS", block)
    hidden, weight, targets = problem()
    loss = CrossEntropy(smoothing, ignore_index=0)

    plain = loss(hidden @ weight.T, targets).value
    fused = loss.from_hidden(hidden, weight, targets).value

    torch.testing.assert_close(fused, plain, rtol=1e-13, atol=0)
    for a, b in zip(
        torch.autograd.grad(plain, (hidden, weight)), torch.autograd.grad(fused, (hidden, weight)), strict=True
    ):
        torch.testing.assert_close(b, a, rtol=0, atol=1e-14)


@pytest.mark.parametrize("right", [True, False])
def test_predictions_that_are_sure_have_the_loss_of_float64_in_float32(right):
    # Logits from 40 to -300: the loss of the largest is below 1e-12, that of the smallest above 300.
    logits = torch.linspace(40, -300, 12).roll(5).expand(9, 12) + torch.arange(9.0)[:, None]
    targets = torch.full((9,), 5 if right else 4)
    hidden, weight = logits.clone().requires_grad_(), torch.eye(12, requires_grad=True)

    fused = CrossEntropy(0.0).from_hidden(hidden, weight, targets).value
    expected = CrossEntropy(0.0)(logits.double(), targets).value

    torch.testing.assert_close(fused.double(), expected, rtol=1e-6, atol=1e-12)
    (gradient,) = torch.autograd.grad(fused, hidden)
    exact = (logits.double().softmax(-1) - torch.eye(12, dtype=torch.float64)[targets]) / 9
    torch.testing.assert_close(gradient.double(), exact, rtol=0, atol=1e-7)


def test_without_gradients_the_value_is_the_same():
    hidden, weight, targets = problem()
    loss = CrossEntropy(0.1, ignore_index=0)

    with torch.no_grad():
        value = loss.from_hidden(hidden, weight, targets).value

    torch.testing.assert_close(value, loss(hidden @ weight.T, targets).value.detach())


def test_bfloat16_products_keep_the_loss_in_float32():
    hidden, weight, targets = (tensor.detach() for tensor in problem())
    hidden, weight = hidden.float().requires_grad_(), weight.float().requires_grad_()
    loss = CrossEntropy(0.1, ignore_index=0)

    with torch.autocast("cpu", torch.bfloat16):
        fused = loss.from_hidden(hidden, weight, targets).value
    fused.backward()

    assert fused.dtype == torch.float32
    assert hidden.grad.dtype == weight.grad.dtype == torch.float32
    torch.testing.assert_close(fused, loss(hidden @ weight.T, targets).value, rtol=0.01, atol=0)


def test_float16_products_of_a_vocabulary_beyond_its_numbers_have_finite_gradients():
    draw = torch.Generator().manual_seed(1)
    hidden, weight = torch.randn(3, 4, generator=draw) / 1000, torch.randn(70_000, 4, generator=draw)
    targets = torch.tensor([1, 69_999, 5])

    def gradient(**precision):
        leaf = hidden.clone().requires_grad_()
        with torch.autocast("cpu", **precision):
            CrossEntropy(0.1).from_hidden(leaf, weight, targets).value.backward()
        return leaf.grad

    torch.testing.assert_close(gradient(dtype=torch.float16), gradient(enabled=False), rtol=0.01, atol=0.005)


def test_targets_that_are_all_padding_give_zero():
    hidden, weight, targets = problem()

    loss = CrossEntropy(0.1, ignore_index=0).from_hidden(hidden, weight, torch.zeros_like(targets))
    loss.value.backward()

    assert float(loss.sum.detach()) == 0.0
    assert float(hidden.grad.abs().max()) == float(weight.grad.abs().max()) == 0.0


def test_mean_squared_error_is_torchs():
    a, b = torch.randn(2, 5, 3)

    torch.testing.assert_close(MeanSquaredError()(a, b).value, F.mse_loss(a, b))


def test_label_smoothing_lies_below_one():
    with pytest.raises(ValidationError):
        LossConfig(label_smoothing=1.0)


def test_a_loss_takes_the_smoothing_of_its_config():
    assert CrossEntropy.of(LossConfig(label_smoothing=0.1)).label_smoothing == 0.1
