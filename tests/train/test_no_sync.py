"""A step reads nothing from an accelerator: it runs on tensors without values, whose reading is an error."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import etude
from etude.base.progress import Progress
from etude.train.optim.slot import Slot
from etude.train.step.accumulation import _power_of_two
from etude.train.step.outcome import Outcome, Round
from etude.train.step.precision import Precision
from etude.train.step.regularisers import OfParameters, Regulariser
from etude.train.step.update import Update

VALUELESS = torch.device("meta")


class Counted(etude.Task):
    """Its counts of targets lie on the device, unread."""

    def __init__(self, terms):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3, 2, device=VALUELESS) for _ in range(2))
        self.terms = terms

    def training_step(self, batch):
        losses = {
            f"term {index}": etude.Loss(layer(batch).square().sum(), (batch > 0).sum())
            for index, layer in enumerate(self.layers)
        }
        return losses if self.terms > 1 else etude.Loss(sum(one.sum for one in losses.values()), (batch > 0).sum())


class OnDevice(Slot):
    """As that of a fused optimizer, which leaves out a step by itself."""

    def skip_on_device(self, norm):
        return True


@pytest.fixture
def step(monkeypatch):
    monkeypatch.setattr(torch, "get_device_module", lambda _: SimpleNamespace(manual_seed=lambda _: None))

    def take(task, optimizers, batches, **options):
        slots = [
            OnDevice(name, torch.optim.SGD(parameters, lr=0.1), notice=lambda _: None)
            for name, parameters in optimizers.items()
        ]
        precision = Precision("float32", VALUELESS)
        update = Update(task, slots, device=VALUELESS, precision=precision, clip_grad=1.0, **options)
        return update([torch.empty(4, 3, device=VALUELESS) for _ in range(batches)], Progress())

    return take


@pytest.mark.parametrize("batches", [1, 3])
@pytest.mark.parametrize("terms", [1, 2])
def test_a_step_reads_nothing_from_the_device(step, terms, batches):
    task = Counted(terms)

    outcome = step(task, {"all": task.parameters()}, batches)

    assert len(outcome.terms) == terms
    with pytest.raises(RuntimeError, match="meta"):
        outcome.loss  # noqa: B018 - what would be read is not there


def test_a_step_of_several_optimizers_reads_nothing_from_the_device(step):
    task = Counted(1)

    outcome = step(task, {str(index): layer.parameters() for index, layer in enumerate(task.layers)}, batches=2)

    assert outcome.grad_norm.device == VALUELESS
    assert list(outcome.norms) == ["0", "1"]


def test_a_penalty_on_the_parameters_reads_nothing_from_the_device(step):
    task = Counted(2)

    def squares(parameters):
        return etude.Loss(sum(parameter.square().sum() for parameter in parameters), 1)

    penalty = Regulariser("l2", OfParameters(squares, list(task.parameters())))

    outcome = step(task, {"all": task.parameters()}, batches=2, extra_terms=[penalty])

    assert list(outcome.terms) == ["term 0", "term 1", "l2"]


def test_the_norm_of_several_optimizers_is_that_of_all_their_gradients():
    def turn(norm):
        return Outcome(terms={"loss": (1.0, 1, 1.0)}, grad_norm=norm)

    assert Round({"a": turn(3.0), "b": turn(4.0)}).grad_norm == 5.0
    assert Round({"a": turn(torch.tensor(3.0)), "b": turn(torch.tensor(4.0))}).grad_norm == torch.tensor(5.0)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 1000, 4095, 4096, 123_457, 3 << 22])
def test_a_count_on_the_device_gives_a_power_of_two_near_it(count):
    found = _power_of_two(torch.tensor(count), 5).item()

    assert math.frexp(found)[0] == 0.5
    assert found / 2 <= max(1, 5 * count) <= found
