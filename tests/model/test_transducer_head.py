"""Laws of the transducer's head: steps are the whole, what is said depends on what came before alone."""

import math

import pytest
import torch
from torch import nn

from etude.base.config.section import Section
from etude.model.frames.transducer import DROPOUT, TransducerConfig, TransducerHead
from etude.model.initialisers import initialise
from etude.model.layers.dropout import set_dropout
from etude.model.losses.transducer import Transducer

every_predictor = pytest.mark.parametrize("predictor", ["stateless", "lstm"])
VOCABULARY, WIDTH = 7, 5


def head(predictor="stateless", blank=0, **options):
    sizes = {"d_model": 6, "joint": 8, "layers": 2, "dropout": 0.0}
    model = TransducerHead(TransducerConfig(predictor=predictor, **sizes | options), WIDTH, VOCABULARY, blank)
    initialise(model, 1)
    return model.double()


def targets(*shape, seed=3):
    return torch.randint(1, VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def frames(*shape):
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def stepped(predictor, labels):
    said, state = predictor.start(len(labels), labels.device)
    found = [said]
    for column in labels.T:
        said, state = predictor.step(column, state)
        found.append(said)
    return torch.stack(found, 1)


@every_predictor
@pytest.mark.parametrize("length", [0, 1, 6])
def test_steps_say_what_the_whole_says(predictor, length):
    model, labels = head(predictor), targets(3, length)

    said = model.predictor(labels)

    assert said.shape == (3, length + 1, model.predictor.width)
    torch.testing.assert_close(said, stepped(model.predictor, labels), rtol=0, atol=1e-12)


@every_predictor
def test_what_is_said_depends_on_no_later_label_and_on_no_other_row(predictor):
    model, labels = head(predictor), targets(3, 6)
    padded = labels.clone()
    padded[1, 2:] = -100

    said = model.predictor(padded)

    torch.testing.assert_close(said[1:2, :3], model.predictor(labels[1:2, :2]), rtol=0, atol=1e-12)
    torch.testing.assert_close(said[::2], model.predictor(labels[::2]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("context", [1, 2, 3])
def test_a_stateless_predictor_sees_its_last_labels_alone(context):
    model, labels = head(context=context), targets(2, 6)
    other = labels.clone()
    other[:, 2] = other[:, 2] % (VOCABULARY - 1) + 1

    changed = (model.predictor(labels) != model.predictor(other)).any(2)

    assert changed.tolist() == [[2 < place <= 2 + context for place in range(7)]] * 2


def test_the_recurrent_predictor_is_torchs_lstm_after_a_blank():
    model, labels = head("lstm", blank=6), targets(2, 4)
    theirs = nn.LSTM(6, 6, num_layers=2, batch_first=True).double()
    own = {
        f"{name[:-1]}{index}": value
        for index, layer in enumerate(model.predictor.layers)
        for name, value in layer.cell.named_parameters()
    }
    theirs.load_state_dict({name: value.detach() for name, value in own.items()})

    said = model.predictor(labels)

    blanks = torch.full((2, 1), 6)
    wanted = theirs(model.predictor.embedding(torch.cat((blanks, labels), 1)))[0]
    torch.testing.assert_close(said, wanted, rtol=0, atol=1e-12)


@every_predictor
def test_rows_of_a_state_go_on_as_those_rows(predictor):
    model, labels = head(predictor), targets(3, 4)
    rows = torch.tensor([2, 0, 2])
    said, state = model.predictor.start(3, labels.device)
    for column in labels.T[:3]:
        said, state = model.predictor.step(column, state)

    said, _ = model.predictor.step(labels[rows, 3], tuple(part[rows] for part in state))

    torch.testing.assert_close(said, model.predictor(labels)[rows, -1], rtol=0, atol=1e-12)


def test_the_joint_network_is_the_sum_of_both_through_tanh():
    model = head()
    encoded, said = frames(2, 3), model.predictor(targets(2, 2))

    logits = model.joint(encoded, said)

    joint = model.joint
    for b, t, u in [(0, 0, 0), (1, 2, 1), (0, 1, 2)]:
        hidden = torch.tanh(joint.frame.weight @ encoded[b, t] + joint.frame.bias + joint.said.weight @ said[b, u])
        wanted = joint.output.weight @ hidden + joint.output.bias
        torch.testing.assert_close(logits[b, t, u], wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(model(encoded, targets(2, 2)), logits)


@every_predictor
def test_every_parameter_learns_from_the_loss(predictor):
    model, labels = head(predictor), targets(2, 3)
    lengths = torch.tensor([4, 3]), labels, torch.tensor([3, 2])

    loss = Transducer().over(model.joint, frames(2, 4), model.predictor(labels), *lengths, frames=2)
    loss.sum.backward()

    assert math.isfinite(float(loss.sum.detach()))
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in model.parameters())


@every_predictor
def test_dropout_is_a_rate_of_its_own_that_may_follow_a_schedule(predictor):
    schedule = {"schedule": "linear", "from": 0.0, "to": 0.3, "over": "3 steps"}
    model = head(predictor, dropout=schedule)
    labels = targets(2, 3)
    quiet = model.predictor(labels)
    (value,) = model.scheduled_values()

    value.apply(0.3)

    assert value.key == "model.transducer.dropout"
    assert isinstance(value.spec, Section)
    assert set_dropout(model, "dropout", 0.5) == 0
    assert set_dropout(model, DROPOUT, 0.3) == 1
    assert not torch.equal(model.predictor(labels), quiet)
    assert torch.equal(model.eval().predictor(labels), quiet)
    assert head(predictor).scheduled_values() == []
