"""What optimizers and averages know of a network that grows."""

import pytest
import torch
from torch import nn

from etude.model.growth import Growth, plan_transfer
from etude.train.averaging import Average, NoAverage
from etude.train.optim.carry import carried
from etude.train.optim.muon import Muon
from etude.train.optim.slot import Slot
from etude.train.world.sharding import Whole

ROWS, COLUMNS = 3, 2


class Net(nn.Module):
    def __init__(self, rows=ROWS, columns=COLUMNS, layers=1):
        super().__init__()
        torch.manual_seed(rows + columns + layers)
        self.layers = nn.ModuleList(nn.Linear(columns, rows) for _ in range(layers))


def slot(module, make, **options):
    names = {parameter: name for name, parameter in module.named_parameters()}
    return Slot("0", make(list(module.parameters()), **options), names=names, notice=pytest.fail)


def stepped(module, make, steps=3, **options):
    """A slot that has taken steps, each gradient another."""
    one = slot(module, make, **options)
    for step in range(steps):
        for index, parameter in enumerate(module.parameters()):
            generator = torch.Generator().manual_seed(10 * step + index)
            parameter.grad = torch.rand(parameter.shape, generator=generator) + 0.1
        with one.counted():
            one.optimizer.step()
        one.drop_gradients()
    return one


def grown(make, new, *, how=None, said=None, **options):
    """The old slot's state, the state carried into a new one, and that slot after it was loaded."""
    old = Net()
    before = stepped(old, make, **options).state_dict()
    after = slot(new, make, **options)
    transfer = plan_transfer(old, new, how or Growth())
    state = carried(before, transfer, after, pytest.fail if said is None else said.append)
    after.load_state_dict(state)
    return before, state, after


def padded(value, *sizes):
    """The tensor in the corner of zeros."""
    wider = torch.zeros(sizes)
    wider[tuple(slice(size) for size in value.shape)] = value
    return wider


@pytest.mark.parametrize(
    ("make", "options", "moments"),
    [
        (torch.optim.AdamW, {"amsgrad": True}, ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"]),
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}, ["momentum_buffer"]),
        (torch.optim.RMSprop, {}, ["square_avg"]),
    ],
)
def test_moments_lie_where_their_values_do_and_are_zero_for_new_ones(make, options, moments):
    before, state, after = grown(make, Net(5, 4), **options)

    old, new = before["state"]["layers.0.weight"], state["state"]["layers.0.weight"]
    for moment in moments:
        assert torch.equal(new[moment], padded(old[moment], 5, 4))
    assert new.get("step") == old.get("step")
    assert after.steps == 3


def test_a_carried_state_is_stepped_on():
    _, _, after = grown(torch.optim.AdamW, Net(5, 4))

    for parameter in after.parameters:
        parameter.grad = torch.ones_like(parameter)
    after.optimizer.step()

    assert [int(state["step"]) for state in after.optimizer.state.values()] == [4, 4]


def test_options_of_groups_are_the_new_ones():
    old, new = Net(), Net(5, 4)
    before = stepped(old, torch.optim.AdamW, lr=0.5).state_dict()
    after = slot(new, torch.optim.AdamW, lr=0.25)

    state = carried(before, plan_transfer(old, new, Growth()), after, pytest.fail)

    assert state["groups"][0]["lr"] == 0.25


def test_factors_of_adafactor_go_with_their_dimensions():
    before, state, after = grown(torch.optim.Adafactor, Net(5, 4))

    old, new = before["state"]["layers.0.weight"], state["state"]["layers.0.weight"]
    assert torch.equal(new["row_var"], padded(old["row_var"], 5, 1))
    assert torch.equal(new["col_var"], padded(old["col_var"], 1, 4))
    assert torch.equal(
        state["state"]["layers.0.bias"]["variance"], padded(before["state"]["layers.0.bias"]["variance"], 5)
    )
    for parameter in after.parameters:
        parameter.grad = torch.ones_like(parameter)
    after.optimizer.step()
    assert all(parameter.isfinite().all() for parameter in after.parameters)


class OfColumns(nn.Module):
    def __init__(self, columns):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(columns, 2)])


def test_factors_of_a_dimension_of_one_go_with_it():
    old, new = OfColumns(1), OfColumns(3)
    before = stepped(old, torch.optim.Adafactor).state_dict()

    state = carried(before, plan_transfer(old, new, Growth()), slot(new, torch.optim.Adafactor), pytest.fail)

    found = state["state"]["layers.0.weight"]
    assert tuple(found["row_var"].shape) == (2, 1)
    assert tuple(found["col_var"].shape) == (1, 3)


class Keeps(torch.optim.SGD):
    """An optimizer whose state is given: of each parameter what a function makes of it."""

    def __init__(self, parameters, makes):
        super().__init__(parameters, lr=0.1)
        self.makes = makes

    def step(self, closure=None):
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter] = self.makes(parameter)


def test_factors_without_their_dimension_are_told_by_name():
    def makes(parameter):
        rows, columns = parameter.shape[:-1], (*parameter.shape[:-2], parameter.shape[-1])
        return {"exp_avg_sq_row": torch.ones(rows), "exp_avg_sq_col": torch.ones(columns)} if parameter.ndim > 1 else {}

    _, state, _ = grown(Keeps, Net(5, 4), makes=makes)

    assert state["state"]["layers.0.weight"]["exp_avg_sq_row"].tolist() == [1, 1, 1, 0, 0]
    assert state["state"]["layers.0.weight"]["exp_avg_sq_col"].tolist() == [1, 1, 0, 0]


def test_a_state_that_is_not_understood_is_dropped_which_is_said_once():
    said = []

    def makes(parameter):
        return {"preconditioner": torch.eye(7), "step": 3}

    _, state, _ = grown(Keeps, Net(5, 4), said=said, makes=makes)

    assert state["state"] == {}
    assert said == ["Keeps begins anew with layers.0.weight, layers.0.bias, for it is not known how its state grows."]


class OfModes(Keeps):
    """As schedule-free ones do, it keeps weights."""

    def train(self):
        pass

    eval = train


def test_weights_that_an_optimizer_keeps_are_not_made_zero():
    said = []

    _, state, _ = grown(OfModes, Net(5, 4), said=said, makes=lambda parameter: {"z": parameter.detach().clone()})

    assert state["state"] == {}
    assert said[0].startswith("OfModes begins anew with layers.0.weight")


def test_memory_of_all_parameters_together_is_dropped_where_one_grows():
    said = []
    old, new = Net(layers=2), Net(layers=3)
    before = slot(old, torch.optim.LBFGS)

    def closure():
        before.drop_gradients()
        loss = sum(parameter.square().sum() for parameter in before.parameters)
        loss.backward()
        return loss

    before.optimizer.step(closure)
    after = slot(new, torch.optim.LBFGS)

    state = carried(before.state_dict(), plan_transfer(old, new, Growth()), after, said.append)

    assert state["state"] == {}
    assert len(said) == 1


def test_a_state_that_is_not_understood_is_kept_where_its_parameter_is():
    _, state, _ = grown(Keeps, Net(layers=2), makes=lambda parameter: {"preconditioner": torch.eye(7)})

    assert torch.equal(state["state"]["layers.0.weight"]["preconditioner"], torch.eye(7))


def test_a_layer_that_is_a_copy_begins_without_a_state():
    before, state, _ = grown(torch.optim.AdamW, Net(layers=2), how=Growth(copy_from="last"))

    assert list(state["state"]) == ["layers.0.weight", "layers.0.bias"]
    assert torch.equal(state["state"]["layers.0.weight"]["exp_avg"], before["state"]["layers.0.weight"]["exp_avg"])


def test_layers_that_change_their_number_take_their_state_along():
    old, new = Net(layers=2), Net(layers=3)
    before = stepped(old, torch.optim.AdamW).state_dict()

    transfer = plan_transfer(old, new, Growth(insert="below_last"))
    state = carried(before, transfer, slot(new, torch.optim.AdamW), pytest.fail)["state"]

    assert "layers.1.weight" not in state
    assert torch.equal(state["layers.2.weight"]["exp_avg"], before["state"]["layers.1.weight"]["exp_avg"])


def test_etudes_muon_keeps_both_of_its_parts():
    def make(parameters):
        return Muon([{"params": [p for p in parameters if p.ndim == 2], "muon": True}, {"params": [parameters[1]]}])

    before, state, _ = grown(make, Net(5, 4))

    old, new = before["state"], state["state"]
    assert torch.equal(
        new["layers.0.weight"]["momentum_buffer"], padded(old["layers.0.weight"]["momentum_buffer"], 5, 4)
    )
    assert torch.equal(new["layers.0.bias"]["exp_avg"], padded(old["layers.0.bias"]["exp_avg"], 5))


def test_kept_gradients_go_with_their_parameters():
    old, new = Net(), Net(5, 4)
    one = stepped(old, torch.optim.AdamW)
    for parameter in old.parameters():
        parameter.grad = torch.ones_like(parameter)

    state = carried(one.state_dict(), plan_transfer(old, new, Growth()), slot(new, torch.optim.AdamW), pytest.fail)

    assert torch.equal(state["gradients"]["layers.0.weight"], padded(torch.ones(3, 2), 5, 4))


def test_an_equal_network_keeps_the_state_and_shares_nothing():
    before, state, _ = grown(torch.optim.AdamW, Net())

    old, new = before["state"]["layers.0.weight"], state["state"]["layers.0.weight"]
    assert all(torch.equal(new[key], old[key]) for key in old)
    assert not any(new[key].data_ptr() == old[key].data_ptr() for key in old)


# -- averages ------------------------------------------------------------------------------------------------------


def test_an_average_is_carried_and_goes_on_from_present_weights_where_they_are_new():
    old, new = Net(), Net(5, 4)
    average = Average(old, 0.9)
    with torch.no_grad():
        old.layers[0].weight.add_(1.0)
    average.update()
    transfer = plan_transfer(old, new, Growth())
    transfer.apply(old.state_dict(), new)
    present = new.layers[0].weight.detach().clone()

    after = Average(new, 0.9)
    after.carry(average, transfer, Whole())

    found = after.weights()["layers.0.weight"]
    assert torch.equal(found[:3, :2], average.weights()["layers.0.weight"])
    assert torch.equal(found[3:], present[3:])
    assert torch.equal(new.layers[0].weight, present)
    assert after.updates == 1


def test_an_average_that_begins_now_begins_at_present_weights():
    old, new = Net(), Net(5, 4)
    counted = NoAverage()
    counted.update()
    transfer = plan_transfer(old, new, Growth())

    after = Average(new, 0.9)
    after.carry(counted, transfer, Whole())

    assert torch.equal(after.weights()["layers.0.weight"], new.layers[0].weight)
    assert after.updates == 1
