"""Laws of dropout."""

import pytest
import torch

from etude.model.layers.dropout import Dropout, drop


def test_dropout_keeps_the_share_and_the_mean():
    torch.manual_seed(1)
    value = torch.ones(400, 500)

    dropped = drop(value, 0.3)

    assert float((dropped == 0).double().mean()) == pytest.approx(0.3, abs=0.004)
    assert float(dropped.double().mean()) == pytest.approx(1.0, abs=0.006)
    assert dropped.unique().numel() == 2


def test_the_scale_is_not_rounded_to_the_values_precision():
    value = torch.full((20_000,), 250.0, dtype=torch.bfloat16)

    kept = drop(value, 0.1).unique()[1]

    assert float(kept) == float(torch.tensor(250 / 0.9, dtype=torch.bfloat16))


def test_the_gradient_goes_where_the_value_went():
    value = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)

    dropped = drop(value, 0.5)
    dropped.sum().backward()

    torch.testing.assert_close(value.grad * value.detach(), dropped.detach())


def test_dropout_draws_from_the_global_generator():
    value = torch.ones(100)
    torch.manual_seed(7)
    first = drop(value, 0.5)
    second = drop(value, 0.5)
    torch.manual_seed(7)

    assert torch.equal(drop(value, 0.5), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("shape", [(0,), (1,), (3, 5), ()])
def test_any_shape_is_kept(shape):
    assert drop(torch.ones(shape), 0.5).shape == shape


def test_dropout_rests_in_evaluation_and_at_rate_zero():
    value = torch.randn(4)

    assert Dropout(0.5).eval()(value) is value
    assert Dropout(0.0)(value) is value


def test_a_rate_near_one_leaves_nothing_but_numbers():
    assert drop(torch.ones(1000), 0.9999999).isfinite().all()
