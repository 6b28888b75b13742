"""Laws of the recurrent language models: their state, their dropout, their rows."""

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from etude.base.errors import DataError
from etude.model.initialisers import initialise
from etude.model.losses import CrossEntropy
from etude.model.recurrent import RATES, Recurrent, RecurrentConfig

every_kind = pytest.mark.parametrize("kind", ["lstm", "gru"])


def recurrent(kind="lstm", seed=1, **options):
    sizes = {"layers": 2, "d_model": 12, "embedding_width": 8}
    model = Recurrent(RecurrentConfig(type=kind, **sizes | options), 11)
    initialise(model, seed)
    return model.double()


def tokens_of(*shape, seed=3):
    return torch.randint(11, shape, generator=torch.Generator().manual_seed(seed))


@every_kind
def test_it_computes_what_torchs_own_layers_do(kind):
    model = recurrent(kind, tie_output=False)
    theirs = (nn.LSTM if kind == "lstm" else nn.GRU)(8, 12, num_layers=2, batch_first=True).double()
    own = {
        f"{name[:-1]}{index}": value
        for index, layer in enumerate(model.layers)
        for name, value in layer.cell.named_parameters()
    }
    theirs.load_state_dict({name: value.detach() for name, value in own.items()})
    tokens = tokens_of(3, 9)

    hidden, state = model.hidden(tokens)

    expected, last = theirs(model.embedding(tokens))
    torch.testing.assert_close(hidden, expected, rtol=0, atol=1e-12)
    parts = last if isinstance(last, tuple) else (last,)
    for index, part in enumerate(parts):
        torch.testing.assert_close(torch.stack([layer[index] for layer in state]), part, rtol=0, atol=1e-12)


@every_kind
def test_a_carried_state_makes_pieces_one_text(kind):
    model, tokens = recurrent(kind), tokens_of(3, 9)
    whole, last = model.hidden(tokens)

    first, state = model.hidden(tokens[:, :4])
    second, state = model.hidden(tokens[:, 4:], state)

    torch.testing.assert_close(torch.cat((first, second), 1), whole, rtol=0, atol=1e-12)
    for layer, other in zip(state, last, strict=True):
        torch.testing.assert_close(torch.stack(layer), torch.stack(other), rtol=0, atol=1e-12)


@every_kind
def test_a_packed_row_has_the_loss_and_gradient_of_its_documents_alone(kind):
    model = recurrent(kind)
    texts = [tokens_of(length + 1, seed=length) for length in (5, 1, 7, 3)]
    inputs = torch.stack((torch.cat([text[:-1] for text in texts]), tokens_of(16)))
    targets = torch.stack((torch.cat([text[1:] for text in texts]), torch.full((16,), -100)))
    ids = torch.cat([torch.full((len(text) - 1,), i) for i, text in enumerate(texts)])
    documents = torch.stack((ids, torch.full((16,), 3)))
    loss = CrossEntropy()

    hidden, _ = model.hidden(inputs, documents_BT=documents)
    packed = loss.from_hidden(hidden, model.output_weight, targets).sum
    together = torch.autograd.grad(packed, list(model.parameters()))

    alone = sum(
        loss.from_hidden(model.hidden(text[None, :-1])[0], model.output_weight, text[None, 1:]).sum for text in texts
    )
    apart = torch.autograd.grad(alone, list(model.parameters()))
    torch.testing.assert_close(packed, alone, rtol=1e-10, atol=0)
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_a_state_is_not_carried_into_packed_documents():
    model, tokens = recurrent(), tokens_of(1, 4)
    _, state = model.hidden(tokens)

    with pytest.raises(DataError, match="cannot be carried into rows of packed documents"):
        model.hidden(tokens, state, documents_BT=torch.zeros_like(tokens))


@every_kind
def test_the_steps_of_rows_of_different_lengths_give_the_logits_of_each_whole_row(kind):
    model = recurrent(kind).eval()
    rows, lengths = [tokens_of(10, seed=seed).tolist() for seed in range(3)], [3, 1, 6]

    with torch.no_grad():
        logits, memory = model.begin([row[:length] for row, length in zip(rows, lengths, strict=True)], 10)
        found = [logits]
        for offset in range(4):
            taken = torch.tensor([row[length + offset] for row, length in zip(rows, lengths, strict=True)])
            found.append(model.step(taken, memory))

    assert memory.lengths == [7, 5, 10]
    for number, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        whole = model(torch.tensor([row]))[0, length - 1 : length + 4]
        torch.testing.assert_close(torch.stack(found)[:, number], whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rate", RATES)
def test_each_rate_of_dropout_changes_training_alone(rate):
    model, tokens = recurrent(**{rate: 0.5}), tokens_of(2, 5)
    torch.manual_seed(1)

    first, second = model(tokens), model(tokens)

    assert not torch.equal(first, second)
    assert torch.equal(model.eval()(tokens), recurrent().eval()(tokens))
    assert model.set_dropout(rate, 0.0) > 0
    assert torch.equal(model.train()(tokens), recurrent()(tokens))


def test_variational_dropout_drops_the_same_elements_at_every_step():
    locked, free = (recurrent(layers=1, output_dropout=0.5, variational=on, tie_output=False) for on in (True, False))
    torch.manual_seed(1)

    dropped = [(model.hidden(tokens_of(2, 30))[0] == 0).double().mean(1) for model in (locked, free)]

    assert set(dropped[0].flatten().tolist()) == {0.0, 1.0}
    assert 0.1 < float(dropped[1].mean()) < 0.9
    assert not set(dropped[1].flatten().tolist()) <= {0.0, 1.0}


def test_weight_drop_leaves_the_weights_and_their_gradient_in_place():
    model, tokens = recurrent(weight_drop=0.5), tokens_of(2, 5)
    before = model.layers[0].cell.weight_hh_l0.detach().clone()
    torch.manual_seed(1)

    model(tokens).sum().backward()

    assert torch.equal(model.layers[0].cell.weight_hh_l0, before)
    zero = (model.layers[0].cell.weight_hh_l0.grad == 0).double().mean()
    assert 0.4 < float(zero) < 0.6
    assert model.layers[0].cell._flat_weights[1] is model.layers[0].cell.weight_hh_l0


def test_a_tied_output_is_the_embedding_whatever_its_width():
    tied, free = recurrent(embedding_width=8), recurrent(tie_output=False)

    assert tied.output_weight is tied.embedding.weight
    assert tied(tokens_of(1, 3)).shape == free(tokens_of(1, 3)).shape == (1, 3, 11)
    assert RecurrentConfig(d_model=40).embedding_width == 40


def test_a_scheduled_rate_is_told_of():
    config = RecurrentConfig(weight_drop={"schedule": "linear", "from": 0.0, "to": 0.2, "over": "3 steps"})

    assert [value.key for value in Recurrent(config, 11).scheduled_values()] == ["model.weight_drop"]


def test_a_kind_that_is_not_there_is_an_error():
    with pytest.raises(ValidationError, match="'lstm' or 'gru'"):
        RecurrentConfig(type="rnn")
