"""Muon where bfloat16 is emulated: torch's steps, orthogonalised in float32."""

import pytest
import torch
from torch import nn

import etude.train.optim.muon as ours
from etude.train.optim.muon import Float32Muon, Muon, orthogonal

OPTIONS = {"lr": 0.05, "weight_decay": 0.1, "momentum": 0.9, "adjust_lr_fn": "match_rms_adamw"}


def matrices():
    torch.manual_seed(2)
    return [nn.Parameter(torch.randn(shape)) for shape in [(6, 6), (4, 9), (9, 4), (3, 5)]]


def stepped(optimizer, parameters, steps, seed=0):
    """The parameters after some steps; the last never has a gradient."""
    torch.manual_seed(seed)
    for _ in range(steps):
        for parameter in parameters[:-1]:
            parameter.grad = torch.randn(parameter.shape)
        optimizer.step()
    return [parameter.detach().clone() for parameter in parameters]


def test_it_steps_as_torch_would_in_float32(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    one, other = matrices(), matrices()

    mine = stepped(Float32Muon(one, **OPTIONS), one, 4)
    torchs = stepped(torch.optim.Muon(other, **OPTIONS), other, 4)

    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(mine, torchs, strict=True))
    assert torch.equal(mine[-1], matrices()[-1])


def test_it_steps_nearly_as_torch_does_in_bfloat16():
    one, other, before = matrices(), matrices(), matrices()

    mine = stepped(Float32Muon(one, **OPTIONS), one, 4)
    torchs = stepped(torch.optim.Muon(other, **OPTIONS), other, 4)

    for a, b, start in zip(mine[:-1], torchs, before, strict=False):
        assert (a - b).norm() < 0.02 * (a - start).norm()


def test_either_goes_on_from_the_state_of_the_other(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    one, other = matrices(), matrices()
    torchs, whole = torch.optim.Muon(one, **OPTIONS), Float32Muon(other, **OPTIONS)
    stepped(torchs, one, 2)
    goes_on = Float32Muon(one, **OPTIONS)
    goes_on.load_state_dict(torchs.state_dict())

    found = stepped(goes_on, one, 2, seed=1)

    stepped(whole, other, 2)
    assert all(
        torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(found, stepped(whole, other, 2, seed=1), strict=True)
    )


@pytest.mark.parametrize("shape", [(8, 8), (5, 20), (20, 5), (1, 7)])
def test_what_is_orthogonalised_has_singular_values_near_one(shape):
    torch.manual_seed(0)
    given = torch.optim.Muon(matrices()).defaults
    options = {"coefficients": given["ns_coefficients"], "steps": given["ns_steps"], "eps": given["eps"]}

    values = torch.linalg.svdvals(orthogonal(100 * torch.randn(shape), **options))

    assert 0.5 < values.min() <= values.max() < 1.3
    assert orthogonal(torch.zeros(shape), **options).abs().max() == 0


@pytest.mark.parametrize(("native", "kind"), [(True, torch.optim.Muon), (False, Float32Muon)])
def test_float32_is_taken_where_bfloat16_is_emulated(monkeypatch, native, kind):
    monkeypatch.setattr(ours, "has_bfloat16", lambda device: native and device.type == "cpu")

    optimizer = Muon([{"params": matrices(), "muon": True}], lr=0.1)

    assert [type(part) for part in optimizer._parts] == [kind]
