"""A skipped step leaves no trace in the buffers of a module, whoever keeps them and however they are written."""

import pytest
import torch
from torch import nn

import etude

QUIET = {"say": lambda _: None, "progress": False, "device": "cpu", "precision": "float32", "loggers": []}


class Normaliser(nn.Module):
    """Takes the running mean of what it is shown from it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("seen", torch.tensor(0))
        self.register_buffer("first", None)

    def forward(self, inputs):
        if self.training:
            with torch.no_grad():
                self.take_in(inputs.mean(0))
                self.seen += len(inputs)
                self.first = inputs[0].clone() if self.first is None else self.first
        return inputs - self.mean


class InPlace(Normaliser):
    def take_in(self, mean):
        self.mean.lerp_(mean, 0.1)


class Assigned(Normaliser):
    def take_in(self, mean):
        self.mean = 0.9 * self.mean + 0.1 * mean


class BehindAutograd(Normaliser):
    def take_in(self, mean):
        self.mean.data.mul_(0.9).add_(mean, alpha=0.1)


def spectral():
    return nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))


def net(make):
    torch.manual_seed(1)
    return nn.Sequential(make(), nn.Linear(4, 2))


def data(*bad):
    draw = torch.Generator().manual_seed(3)
    batches = [[torch.randn(6, 4, generator=draw), torch.randn(6, 2, generator=draw)] for _ in range(6)]
    for index in bad:
        batches[index][0][1, 2] = float("nan")
    return batches


def fit(model, batches, **options):
    return etude.fit(
        model,
        batches,
        loss=nn.functional.mse_loss,
        max_duration="1 epoch",
        optimizer={"type": "sgd"},
        learning_rate=0.1,
        **{**QUIET, **options},
    )


@pytest.mark.parametrize("make", [InPlace, Assigned, BehindAutograd, lambda: nn.BatchNorm1d(4), spectral])
@pytest.mark.parametrize("bad", [0, 2])
def test_a_skipped_step_leaves_every_buffer_as_a_run_without_it_has_it(make, bad):
    skipping, clean = net(make), net(make)

    result = fit(skipping, data(bad))
    fit(clean, [batch for index, batch in enumerate(data(bad)) if index != bad])

    assert result.skipped == 1
    for name, value in clean.state_dict().items():
        assert torch.equal(skipping.state_dict()[name], value), name


def test_of_a_step_over_several_batches_none_leaves_a_trace():
    skipping, clean = net(InPlace), net(InPlace)

    result = fit(skipping, data(2), accumulate=2)
    fit(clean, [*data()[:2], *data()[4:]], accumulate=2)

    assert result.skipped == 1
    for name, value in clean.state_dict().items():
        assert torch.equal(skipping.state_dict()[name], value), name
