"""The moving average of the weights: its formula, and that looking at it leaves the weights as they are."""

import pytest
import torch
from torch import nn

from etude.train.averaging import Average


class Tied(nn.Module):
    """One matrix under two names, and a buffer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.embedding = nn.Embedding(5, 3)
        self.output = nn.Linear(3, 5, bias=False)
        self.output.weight = self.embedding.weight
        self.register_buffer("seen", torch.zeros(2))


def stepped(module, average, steps=3):
    for step in range(steps):
        with torch.no_grad():
            module.embedding.weight.add_(torch.full((5, 3), 0.1 * (step + 1)))
            module.seen.add_(1.0)
        average.update()


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_validations_leave_tied_weights_as_they_are(passes):
    module = Tied()
    average = Average(module, 0.9)
    stepped(module, average)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    averaged = {name: value.clone() for name, value in average.weights().items()}

    for _ in range(passes):
        with average.applied():
            assert all(torch.equal(value, averaged[name]) for name, value in module.state_dict().items())

    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(torch.equal(value, averaged[name]) for name, value in average.weights().items())


def test_a_tied_weight_is_averaged_once_a_step():
    module = Tied()
    average = Average(module, 0.9)
    expected = module.embedding.weight.detach().clone()
    for step in range(3):
        stepped(module, average, steps=1)
        decay = min(0.9, (2 + step) / (11 + step))
        expected.lerp_(module.embedding.weight.detach(), 1 - decay)

    weights = average.weights()

    assert torch.equal(weights["embedding.weight"], expected)
    assert torch.equal(weights["output.weight"], expected)
    assert torch.equal(weights["seen"], module.seen)
