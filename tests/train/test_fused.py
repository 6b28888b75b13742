"""The quick Adam is torch's, to the bit."""

import pytest
import torch
from torch import nn

from etude.train.optim.fused import QuickAdam, QuickAdamW

PAIRS = [(QuickAdam, torch.optim.Adam), (QuickAdamW, torch.optim.AdamW)]


def walk(made, *, quick, amsgrad=False, missing_at=None, reload_at=None):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    groups = [{"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.1}]
    groups += [{"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0}]
    optimizer = made(groups, lr=1e-2, betas=(0.8, 0.95), amsgrad=amsgrad, fused=True)
    for step in range(8):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 / (step + 1)
        model(torch.randn(4, 5)).square().sum().backward()
        if step == missing_at:
            model[2].bias.grad = None
        if step == reload_at:
            optimizer.load_state_dict(optimizer.state_dict())
        optimizer.advance() if quick else optimizer.step()
        optimizer.zero_grad()
    return list(model.parameters()), optimizer


@pytest.mark.parametrize(("quick", "plain"), PAIRS)
@pytest.mark.parametrize("options", [{}, {"amsgrad": True}, {"missing_at": 4}, {"reload_at": 3}])
def test_quick_steps_end_in_the_weights_of_torchs_fused_steps(quick, plain, options):
    ours, optimizer = walk(quick, quick=True, **options)
    theirs, reference = walk(plain, quick=False, **options)

    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    steps = [float(state["step"]) for state in optimizer.state_dict()["state"].values()]
    assert steps == [float(state["step"]) for state in reference.state_dict()["state"].values()]
