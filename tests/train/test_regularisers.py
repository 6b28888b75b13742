"""Laws of the loss's further terms and of weights by name: each is what a loop by hand would add."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import etude
from etude.base.errors import ConfigError
from etude.base.horizon import Horizon
from etude.base.progress import Progress
from etude.model.losses.penalties import l1, l2
from etude.train.optim.build import build_optimizer
from etude.train.optim.config import AdamWConfig
from etude.train.optim.slot import Slot
from etude.train.step.precision import Precision
from etude.train.step.regularisers import OfParameters, Regulariser, chosen
from etude.train.step.terms import NameCheck, Term, weighted
from etude.train.step.update import Update

CPU = torch.device("cpu")


class Fitting(etude.Task):
    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.body = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Tanh())
        self.head = nn.Linear(6, 1)

    def training_step(self, batch):
        inputs, targets = batch
        error = F.mse_loss(self.head(self.body(inputs)), targets, reduction="sum")
        return {"error": etude.Loss(error, len(inputs)), "size": etude.Loss(inputs.square().sum(), len(inputs), 0.0)}


class Named(Fitting):
    """The same with terms that are both differentiable."""

    def training_step(self, batch):
        outputs = self.head(self.body(batch[0]))
        return {
            "error": etude.Loss((outputs - batch[1]).square().sum(), len(batch[0])),
            "level": etude.Loss(outputs.square().sum(), 2 * len(batch[0]), 0.25),
        }


def data(samples=21):
    draw = torch.Generator().manual_seed(6)
    inputs = torch.randn(samples, 4, generator=draw, dtype=torch.float64)
    return inputs, inputs.sum(1, keepdim=True)


def parts(sizes):
    return list(zip(*(tensor.split(sizes) for tensor in data()), strict=True))


def gradients_of(task, batches, terms=(), weights=None, names=None):
    """The gradient that a step of `batches` ends with, by parameter, and what the step gave."""
    kept = {}

    class Reading(torch.optim.SGD):
        def step(self, closure=None):
            kept.update({name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None})

    own = [p for name, p in task.named_parameters() if names is None or name in names]
    slot = Slot("0", Reading(own, lr=0.0), notice=lambda _: None)
    update = Update(
        task, [slot], device=CPU, precision=Precision("float32", CPU), extra_terms=terms, term_weights=weights
    )
    return kept, update(batches, Progress())


def by_hand(task, total):
    task.zero_grad()
    total(task).backward()
    return {name: p.grad for name, p in task.named_parameters()}


def squares(task, weight=0.3):
    return weight * (task.body[0].weight.square().sum() + task.head.weight.square().sum())


def decay(task, weight=0.3, penalty=l2):
    return Regulariser("decay", OfParameters(penalty, chosen(task, None, "loss.terms.decay.match")), weight)


def assert_equal(found, wanted):
    assert sorted(found) == sorted(name for name, value in wanted.items() if value is not None)
    for name, value in found.items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("sizes", [(21,), (7, 7, 7), (10, 10, 1)])
def test_a_regulariser_counts_once_a_step_however_many_batches_it_has(sizes):
    inputs, targets = data()
    task = Fitting().double()

    found, outcome = gradients_of(task, parts(sizes), [decay(task)])

    def total(task):
        return F.mse_loss(task.head(task.body(inputs)), targets) + squares(task)

    wanted = by_hand(task, total)
    assert_equal(found, wanted)
    assert float(outcome.loss) == pytest.approx(float(total(task).detach()), rel=1e-12)
    assert list(outcome.terms) == ["error", "size", "decay"]
    assert outcome.terms["decay"][0] == pytest.approx(float(squares(task, 1.0).detach()), rel=1e-12)


def test_a_term_of_weight_zero_is_told_of_and_has_no_graph():
    task = Fitting().double()
    silent = decay(task, 0.0)

    found, outcome = gradients_of(task, parts((7, 14)), [silent])

    wanted, _ = gradients_of(task, parts((7, 14)))
    assert_equal(found, wanted)
    assert outcome.terms["decay"][2] == 0.0
    assert outcome.terms["decay"][0] > 0
    assert not silent(task).sum.requires_grad


def test_the_weight_is_read_when_the_term_is_computed():
    task = Fitting()
    term = decay(task, 0.0)
    term.weight = 2.0

    loss = term(task)

    assert (loss.weight, loss.sum.requires_grad) == (2.0, True)


def test_unless_told_what_it_acts_on_a_penalty_acts_on_what_weight_decay_does():
    task = Fitting()
    config = AdamWConfig(weight_decay=0.1, learning_rate=0.1)
    slot = build_optimizer(task, config, Horizon(10, 10, 1, 1), lambda _: None)
    groups = [group for group in slot.optimizer.param_groups if group["weight_decay"]]
    decayed = {p for group in groups for p in group["params"]}

    assert set(chosen(task, None, "match")) == decayed == {task.body[0].weight, task.head.weight}
    assert set(chosen(task, None, "match", decay_all=True)) == set(task.parameters())


def test_patterns_choose_parameters_each_once():
    task = Fitting()

    assert chosen(task, ["head.*", "*weight"], "match") == [
        task.head.weight,
        task.head.bias,
        task.body[0].weight,
        task.body[1].weight,
    ]
    with pytest.raises(ConfigError, match=r"loss\.terms\.decay\.match has the pattern 'haed\.\*'"):
        chosen(task, ["head.*", "haed.*"], "loss.terms.decay.match")


def test_what_is_frozen_adds_nothing_to_a_penalty():
    task = Fitting().double()
    task.body.requires_grad_(False)

    found, outcome = gradients_of(task, parts((21,)), [decay(task)], names=["head.weight", "head.bias"])

    assert outcome.terms["decay"][0] == pytest.approx(float(task.head.weight.detach().square().sum()), rel=1e-12)
    assert sorted(found) == ["head.bias", "head.weight"]


def test_of_several_optimizers_each_has_a_penalty_on_its_own_parameters():
    task = Fitting().double()
    penalised = {}

    class Reading(torch.optim.SGD):
        def step(self, closure=None):
            penalised.update({p: p.grad.clone() for group in self.param_groups for p in group["params"]})

    everything = list(task.parameters())
    slots = [
        Slot(name, Reading(part.parameters(), lr=0.0), others=everything)
        for name, part in (("body", task.body), ("head", task.head))
    ]
    terms = [decay(task, penalty=l1)]
    update = Update(task, slots, device=CPU, precision=Precision("float32", CPU), extra_terms=terms)

    outcome = update(parts((21,)), Progress())

    def total(task):
        inputs, targets = data()
        return F.mse_loss(task.head(task.body(inputs)), targets) + 0.3 * l1([task.body[0].weight, task.head.weight]).sum

    wanted = by_hand(task, total)
    assert_equal({name: penalised[p] for name, p in task.named_parameters()}, wanted)
    own = {name: float(total) for name, (total, _, _) in outcome.terms.items() if name.startswith("decay")}
    assert own == pytest.approx(
        {
            "decay/body": float(task.body[0].weight.detach().abs().sum()),
            "decay/head": float(task.head.weight.detach().abs().sum()),
        }
    )


def test_a_function_of_the_task_is_a_term():
    task = Fitting().double()
    term = Regulariser("level", lambda task: task.head.bias.square().sum(), 0.5)
    averaged = Regulariser("share", lambda task: etude.Loss(task.head.bias.sum() * 3, 3, 0.5), 0.5)

    found, _ = gradients_of(task, parts((21,)), [term, averaged])

    without, _ = gradients_of(task, parts((21,)))
    bias = task.head.bias.detach()
    torch.testing.assert_close(found["head.bias"], without["head.bias"] + bias + 0.25)


@pytest.mark.parametrize(
    ("given", "told"), [(lambda _: 1.0, "float"), (lambda task: task.head.weight, r"shape \(1, 6\)")]
)
def test_a_term_that_gives_no_scalar_is_refused(given, told):
    with pytest.raises(ConfigError, match=rf"loss\.terms\.odd must give a scalar tensor or a Loss, but gives .*{told}"):
        Regulariser("odd", given)(Fitting())


@pytest.mark.parametrize("sizes", [(21,), (7, 7, 7), (10, 10, 1)])
def test_a_weight_by_name_takes_the_place_of_the_terms_own(sizes):
    inputs, targets = data()
    task = Named().double()

    found, outcome = gradients_of(task, parts(sizes), weights={"level": 3.0})

    def total(task):
        outputs = task.head(task.body(inputs))
        return (outputs - targets).square().sum() / 21 + 3.0 * outputs.square().sum() / 42

    wanted = by_hand(task, total)
    for name, value in found.items():
        torch.testing.assert_close(value, wanted[name])
    assert float(outcome.loss) == pytest.approx(float(total(task).detach()))


def test_weights_by_name_leave_the_other_terms_alone():
    terms = (Term("a", torch.ones(()), 2, 0.5), Term("b", torch.ones(()), 3, 0.5, is_mean=True))

    assert weighted(terms, {"b": 0.0}) == (terms[0], Term("b", terms[1].value, 3, 0.0, is_mean=True))


def test_a_weight_of_no_term_is_refused_with_the_terms_that_there_are():
    with pytest.raises(ConfigError, match=r"loss\.weights\.ctv .* returns ctc, attention"):
        NameCheck({"ctc": 1.0, "ctv": 0.5}, [], ["0"]).see("0", ["ctc", "attention", "ctc"])
    NameCheck({"ctc": 1.0}, ["decay"], ["0"]).see("0", ["ctc", "attention"])


def test_a_term_of_another_optimizer_is_waited_for():
    check = NameCheck({"fake": 0.5}, [], ["critic", "generator"])

    check.see("critic", ["real"])
    check.see("critic", ["real"])

    with pytest.raises(ConfigError, match=r"loss\.weights\.fake .* returns real, other"):
        check.see("generator", ["other"])


def test_a_further_term_with_the_name_of_a_steps_term_is_refused():
    with pytest.raises(ConfigError, match=r"loss\.terms\.ctc must have another name"):
        NameCheck({}, ["decay", "ctc"], ["0"]).see("0", ["ctc"])
