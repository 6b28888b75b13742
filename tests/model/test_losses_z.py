"""Laws of the z-loss, of L2 and L1, and of losses in narrow precision, against formulas in float64 and torch's own."""

import math

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import etude
from etude.base.errors import ConfigError
from etude.model.losses import CrossEntropyWithZ, LossConfig, MeanSquaredError, ZLoss
from etude.model.losses import fused as fused_loss
from etude.model.losses.penalties import l1, l2


def problem():
    draw = torch.Generator().manual_seed(4)
    hidden = torch.randn(3, 10, 6, dtype=torch.float64, generator=draw).requires_grad_()
    weight = torch.randn(11, 6, dtype=torch.float64, generator=draw).requires_grad_()
    return hidden, weight, torch.randint(0, 11, (3, 10), generator=draw)


def test_the_z_loss_is_the_mean_square_of_the_log_of_the_sum_of_exponentials():
    hidden, weight, targets = problem()
    logits = hidden @ weight.T
    rows = [
        row for row, target in zip(logits.flatten(0, 1).tolist(), targets.flatten().tolist(), strict=True) if target
    ]

    loss = ZLoss(0.5, ignore_index=0)(logits, targets)

    squares = [math.log(math.fsum(map(math.exp, row))) ** 2 for row in rows]
    assert float(loss.value.detach()) == pytest.approx(math.fsum(squares) / len(rows), rel=1e-14)
    assert (int(loss.count), loss.weight) == (len(rows), 0.5)


def test_cross_entropy_with_z_is_the_two_as_named_terms():
    hidden, weight, targets = problem()
    logits = hidden @ weight.T

    terms = CrossEntropyWithZ(0.1, z_loss=0.2, ignore_index=0)(logits, targets)

    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=0, label_smoothing=0.1)
    assert list(terms) == ["cross_entropy", "z_loss"]
    torch.testing.assert_close(terms["cross_entropy"].value, expected)
    torch.testing.assert_close(terms["z_loss"].value, ZLoss(ignore_index=0)(logits, targets).value)
    assert (terms["cross_entropy"].weight, terms["z_loss"].weight) == (1.0, 0.2)


@pytest.mark.parametrize("factors", [(1.0, 0.3), (1.0, 0.0), (0.0, 1.0), (1e-9, 1e6), (0.0, 0.0)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [264, 1, 1 << 23])
def test_both_terms_from_hidden_layers_have_the_values_and_gradients_of_the_plain_ones(
    chunk, smoothing, factors, monkeypatch
):
    monkeypatch.setitem(fused_loss.CHUNK_BYTES, "cpu", chunk)
    hidden, weight, targets = problem()
    loss = CrossEntropyWithZ(smoothing, ignore_index=0)

    plain = loss(hidden @ weight.T, targets)
    fused = loss.from_hidden(hidden, weight, targets)

    for name in plain:
        torch.testing.assert_close(fused[name].value, plain[name].value, rtol=1e-13, atol=0)
    wanted, found = (
        torch.autograd.grad(
            sum(f * term.value for f, term in zip(factors, terms.values(), strict=True)), (hidden, weight)
        )
        for terms in (plain, fused)
    )
    for a, b in zip(wanted, found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-12, atol=1e-14)


def test_each_of_the_two_can_be_differentiated_alone_over_one_graph():
    hidden, weight, targets = problem()
    loss = CrossEntropyWithZ(0.1, ignore_index=0)
    plain, fused = loss(hidden @ weight.T, targets), loss.from_hidden(hidden, weight, targets)

    for name in plain:
        found = torch.autograd.grad(fused[name].sum, weight, retain_graph=True)
        wanted = torch.autograd.grad(plain[name].sum, weight, retain_graph=True)
        torch.testing.assert_close(found, wanted)


def test_the_logits_are_never_all_held():
    class Largest(TorchDispatchMode):
        most = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            made = function(*args, **(kwargs or {}))
            self.most = max(self.most, made.numel() if isinstance(made, torch.Tensor) else 0)
            return made

    draw = torch.Generator().manual_seed(1)
    hidden = torch.randn(9000, 4, generator=draw).requires_grad_()
    weight = torch.randn(2000, 4, generator=draw).requires_grad_()
    targets = torch.randint(0, 2000, (9000,), generator=draw)

    with Largest() as seen:
        terms = CrossEntropyWithZ().from_hidden(hidden, weight, targets)
        sum(term.value * term.weight for term in terms.values()).backward()

    assert weight.grad is not None
    assert seen.most < 9000 * 2000 / 4


def test_bfloat16_products_keep_both_terms_in_float32():
    hidden, weight, targets = (tensor.detach() for tensor in problem())
    hidden, weight = hidden.float().requires_grad_(), weight.float().requires_grad_()
    loss = CrossEntropyWithZ(0.1, z_loss=0.1, ignore_index=0)

    with torch.autocast("cpu", torch.bfloat16):
        fused = loss.from_hidden(hidden, weight, targets)
    sum(term.value * term.weight for term in fused.values()).backward()

    plain = loss(hidden @ weight.T, targets)
    assert hidden.grad.dtype == weight.grad.dtype == torch.float32
    for name, term in fused.items():
        assert term.value.dtype == torch.float32
        torch.testing.assert_close(term.value, plain[name].value, rtol=0.01, atol=0)


def test_without_gradients_both_are_the_same():
    hidden, weight, targets = problem()
    loss = CrossEntropyWithZ(0.1, ignore_index=0)

    with torch.no_grad():
        found = loss.from_hidden(hidden, weight, targets)

    for name, term in loss(hidden @ weight.T, targets).items():
        torch.testing.assert_close(found[name].value, term.value.detach())


@pytest.mark.parametrize("whole", [True, False])
def test_targets_that_are_all_padding_give_zero(whole):
    hidden, weight, _ = problem()
    padding = torch.zeros(3, 10, dtype=torch.long)
    loss = CrossEntropyWithZ(0.1, ignore_index=0)

    terms = loss(hidden @ weight.T, padding) if whole else loss.from_hidden(hidden, weight, padding)
    sum(term.value for term in terms.values()).backward()

    assert [float(term.sum.detach()) for term in terms.values()] == [0.0, 0.0]
    assert float(hidden.grad.abs().max()) == float(weight.grad.abs().max()) == 0.0


def test_what_evaluation_reports_is_neither_smoothed_nor_weighted_by_z():
    hidden, weight, targets = problem()
    logits = hidden @ weight.T

    terms = CrossEntropyWithZ(0.3, z_loss=0.2, ignore_index=0).plain()(logits, targets)

    torch.testing.assert_close(
        terms["cross_entropy"].value, F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=0)
    )
    assert terms["z_loss"].weight == 0.0


def test_l2_in_the_loss_is_what_weight_decay_is_in_plain_sgd():
    draw = torch.Generator().manual_seed(1)
    start = torch.randn(5, 3, generator=draw, dtype=torch.float64)
    inputs = torch.randn(4, 5, generator=draw, dtype=torch.float64)
    ends = []
    for decay, weight in ((0.2, 0.0), (0.0, 0.1)):
        matrix = start.clone().requires_grad_()
        optimizer = torch.optim.SGD([matrix], lr=0.1, weight_decay=decay)
        for _ in range(5):
            optimizer.zero_grad()
            penalty = l2([matrix], weight)
            ((inputs @ matrix).square().mean() + penalty.value * penalty.weight).backward()
            optimizer.step()
        ends.append(matrix.detach())

    torch.testing.assert_close(*ends)


def test_l2_and_l1_are_torchs_norms():
    parts = [torch.randn(4, 3), torch.randn(()), torch.randn(2)]
    whole = nn.utils.parameters_to_vector(parts)

    torch.testing.assert_close(l1(parts).value, torch.linalg.vector_norm(whole, 1))
    torch.testing.assert_close(l2(parts).value, torch.linalg.vector_norm(whole) ** 2)
    assert float(l2([]).value) == float(l1([]).value) == 0.0


@pytest.mark.parametrize("penalty", [l1, l2])
def test_penalties_on_narrow_parameters_are_summed_in_float32(penalty):
    parameters = torch.full((3000,), 1 / 256, dtype=torch.bfloat16, requires_grad=True)

    loss = penalty([parameters])
    loss.value.backward()

    assert loss.value.dtype == torch.float32
    assert float(loss.value.detach()) == 3000 * (1 / 256) ** (2 if penalty is l2 else 1)
    assert parameters.grad.dtype == torch.bfloat16


def test_mean_squared_error_refuses_shapes_that_would_only_be_broadcast():
    with pytest.raises(ConfigError, match=r"one shape, but got \(8, 1\) and \(8,\)"):
        MeanSquaredError()(torch.zeros(8, 1), torch.zeros(8))


def test_mean_squared_error_of_narrow_outputs_is_summed_in_float32():
    loss = MeanSquaredError()(torch.full((5000,), 0.5, dtype=torch.bfloat16), torch.zeros(5000))

    assert loss.sum.dtype == torch.float32
    assert float(loss.sum) == 1250.0


@pytest.mark.parametrize("weight", [-0.1, math.inf, math.nan])
def test_a_weight_is_a_finite_number_from_zero(weight):
    with pytest.raises(ValidationError):
        LossConfig(z_loss=weight)
    with pytest.raises(ValidationError):
        LossConfig(weights={"ctc": weight})
    with pytest.raises(ValidationError):
        LossConfig(terms={"decay": {"type": "l2", "weight": weight}})


def test_every_public_loss_tells_what_it_computes():
    for name in etude.losses.__all__:
        assert len(getattr(etude.losses, name).__doc__) > 60, name
