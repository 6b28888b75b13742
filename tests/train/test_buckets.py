"""Gradients set off to the other ranks in the backward pass; the bits of their sums do not depend on when."""

import pytest
import torch
from in_ranks import in_ranks
from torch import nn

from etude.train.step import buckets as module
from etude.train.step.buckets import Buckets
from etude.train.world import ALONE, joined

WIDTH, LAYERS = 8, 4
ONE_LAYER = (WIDTH + 1) * WIDTH * 4


@pytest.fixture(autouse=True)
def a_bucket_for_each_layer(monkeypatch):
    monkeypatch.setattr(module, "BYTES", ONE_LAYER)
    monkeypatch.setattr(module, "FIRST_BYTES", ONE_LAYER)


class Twice:
    """A world in which another rank always has the same; it notes what sets off, and what is waited for."""

    def __init__(self):
        self.sent = []
        self.waited = []

    def begin_to_add_up(self, tensor):
        number = len(self.sent)
        self.sent.append(tensor.clone())

        def wait():
            tensor.mul_(2)
            self.waited.append(number)

        return wait


def layers():
    torch.manual_seed(1)
    return nn.Sequential(*[nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)])


def differentiate(model, seed=2):
    draw = torch.Generator().manual_seed(seed)
    model(torch.randn(5, WIDTH, generator=draw)).square().sum().backward()


def step(buckets, model, *, sums=True, late=False, seed=2):
    """One step's gradients, as `Ranks` has them added up."""
    with buckets.setting_off():
        differentiate(model, seed)
    own = [p.grad.clone() for p in model.parameters()]
    buckets.learn(sums=sums, late=late or buckets.late)
    buckets.add_up(list(model.parameters()))
    return own


def test_buckets_set_off_in_the_backward_pass_once_a_step_has_shown_that_they_may():
    model, world = layers(), Twice()
    buckets = Buckets(world, list(model.parameters()))
    seen = []
    model[0].weight.register_post_accumulate_grad_hook(lambda _: seen.append(len(world.sent)))

    for _ in range(2):
        own = step(buckets, model)
        for parameter, grad in zip(model.parameters(), own, strict=True):
            assert torch.equal(parameter.grad, 2 * grad)
            parameter.grad = None

    assert seen == [0, LAYERS + LAYERS - 1]  # all but the first layer's, of whose gradients one is missing
    assert world.waited == [*range(LAYERS), *range(LAYERS, 2 * LAYERS)]
    first, second = world.sent[:LAYERS], world.sent[LAYERS:]
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert torch.equal(first[0][:WIDTH], own[-1]), "the last layer's bias goes first"


def test_a_gradient_that_is_not_there_holds_up_what_is_behind_it_and_goes_as_zeros():
    model, world = layers(), Twice()
    buckets = Buckets(world, list(model.parameters()))
    step(buckets, model)
    model.zero_grad()
    world.sent.clear()

    with buckets.setting_off():
        (model[0](torch.ones(1, WIDTH)).sum() + model[3](torch.ones(1, WIDTH)).sum()).backward()
        early = len(world.sent)
    assert (early, len(world.sent)) == (1, LAYERS)
    assert not world.sent[1].any()
    buckets.learn(sums=True, late=False)
    buckets.add_up([*model[0].parameters(), *model[3].parameters()])

    assert model[1].weight.grad is None
    assert torch.equal(model[3].bias.grad, torch.full((WIDTH,), 2.0))


def test_a_gradient_that_changes_on_its_way_is_sent_again():
    model, world = layers(), Twice()
    buckets = Buckets(world, list(model.parameters()))
    step(buckets, model)
    model.zero_grad()

    with buckets.setting_off():
        differentiate(model, 3)
        assert not buckets.late
        differentiate(model, 4)
    assert buckets.late
    own = [p.grad.clone() for p in model.parameters()]
    buckets.learn(sums=True, late=True)
    buckets.add_up(list(model.parameters()))

    assert all(torch.equal(p.grad, 2 * grad) for p, grad in zip(model.parameters(), own, strict=True))
    world.sent.clear()
    with buckets.setting_off():
        differentiate(model)
        assert not world.sent, "what was late once may be late again"


def test_what_was_no_sum_is_not_sent_early_the_next_time():
    model, world = layers(), Twice()
    buckets = Buckets(world, list(model.parameters()))
    step(buckets, model)

    step(buckets, model, sums=False)

    world.sent.clear()
    with buckets.setting_off():
        differentiate(model)
        assert not world.sent


def test_gradients_lie_as_their_parameters_do():
    weight = nn.Parameter(torch.randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last))
    buckets = Buckets(ALONE, [weight])
    with buckets.setting_off():
        (weight * torch.arange(48.0).view(4, 3, 2, 2)).sum().backward()
    buckets.add_up([weight])

    assert weight.grad.stride() == weight.stride()
    assert torch.equal(weight.grad, torch.arange(48.0).view(4, 3, 2, 2))


def test_a_sparse_gradient_is_left_to_others():
    table, dense = nn.Embedding(6, 2, sparse=True), nn.Parameter(torch.ones(2))
    buckets = Buckets(Twice(), [table.weight, dense])
    with buckets.setting_off():
        (table(torch.tensor([1, 3])) * dense).sum().backward()
    buckets.add_up([dense])

    assert table.weight.grad.is_sparse


def sums(rank):
    """Sums over three ranks, of gradients that set off behind the backward pass and in it."""
    with joined() as here:
        model = layers()
        buckets = Buckets(here.world, list(model.parameters()))
        found = []
        for _ in range(3):
            step(buckets, model, seed=rank)
            found.append([p.grad.clone() for p in model.parameters()])
            model.zero_grad()
        return found


def test_sums_have_the_same_bits_whenever_they_set_off():
    first, *others = in_ranks(3, sums)

    behind, *within = first
    for grads in within:
        assert all(torch.equal(one, other) for one, other in zip(behind, grads, strict=True))
    for other in others:
        assert all(torch.equal(one, same) for one, same in zip(behind, other[0], strict=True))
