"""Running statistics computed anew equal those that torch computes for averaged weights."""

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from etude.train.step.batch_norm import has_statistics, renew_statistics


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.BatchNorm1d(4, momentum=0.3))


def batches(count=5):
    draw = torch.Generator().manual_seed(2)
    return [torch.randn(2 + number, 3, generator=draw) for number in range(count)]


def test_statistics_are_the_means_over_batches_that_torch_computes():
    ours, theirs = network(), network()
    for module in (ours, theirs):
        module(torch.ones(4, 3) * 7)  # statistics that must be forgotten

    count = renew_statistics(ours, batches(), ours)
    update_bn(batches(), theirs)

    assert count == 5
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())
    assert [ours[1].momentum, ours[3].momentum] == [0.1, 0.3]
    assert not any(p.grad is not None for p in ours.parameters())


def test_a_layer_in_eval_mode_keeps_its_statistics():
    module = network()
    module[3].eval()
    module[3].running_mean.fill_(2.0)

    renew_statistics(module, batches(), module)

    assert torch.equal(module[3].running_mean, torch.full((4,), 2.0))
    assert int(module[3].num_batches_tracked) == 0
    assert int(module[1].num_batches_tracked) == 5


def test_only_weights_with_running_statistics_have_some():
    assert has_statistics(network().state_dict())
    assert not has_statistics(nn.BatchNorm1d(2, track_running_stats=False).state_dict())
    assert not has_statistics(nn.Linear(2, 2).state_dict())
