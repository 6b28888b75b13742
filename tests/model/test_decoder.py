"""Laws of the decoder: what a token sees, and that the cache changes nothing."""

import math

import pytest
import torch

from etude.base.errors import DataError
from etude.model.decoder import Decoder
from etude.model.decoder_config import DecoderConfig
from etude.model.initialisers import InitConfig, initialise
from etude.model.losses import CrossEntropy

SMALL = {"layers": 2, "heads": 4, "d_model": 32, "max_positions": 16}
KINDS = [
    {"preset": "gpt2"},
    {"preset": "llama", "kv_heads": 2},
    {"positions": "sinusoidal", "norm": "post", "normalisation": "layer", "activation": "relu"},
    {"positions": "none", "qk_norm": True, "activation": "gelu", "kv_heads": 1, "vocabulary_multiple": 8},
]
NAMES = ["gpt2", "llama", "post", "unplaced"]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=NAMES)


def decoder(vocabulary=11, seed=1, **options):
    model = Decoder(DecoderConfig(**SMALL | options), vocabulary)
    initialise(model, seed, {"*.weight": "normal(0.15)"})
    return model.double()


def tokens_of(*shape, vocabulary=11, seed=3):
    return torch.randint(vocabulary, shape, generator=torch.Generator().manual_seed(seed))


@every_kind
def test_no_token_sees_a_later_one(kind):
    model, tokens = decoder(**kind), tokens_of(2, 9)
    changed = tokens.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % 11

    before, after = model(tokens), model(changed)

    torch.testing.assert_close(before[:, :6], after[:, :6], rtol=0, atol=1e-12)
    assert (before[:, 6:] - after[:, 6:]).abs().amax(-1).min() > 1e-6


@every_kind
def test_a_packed_row_has_the_loss_and_gradient_of_its_documents_alone(kind):
    model = decoder(**kind)
    texts = [tokens_of(length + 1, seed=length) for length in (5, 1, 7, 3)]
    inputs = torch.cat([text[:-1] for text in texts])[None]
    targets = torch.cat([text[1:] for text in texts])[None]
    documents = torch.cat([torch.full((len(text) - 1,), i) for i, text in enumerate(texts)])[None].int()
    positions = torch.cat([torch.arange(len(text) - 1) for text in texts])[None]
    loss = CrossEntropy()

    packed = loss.from_hidden(model.hidden(inputs, documents, positions), model.output_weight, targets).sum
    together = torch.autograd.grad(packed, list(model.parameters()))

    alone = sum(
        loss.from_hidden(model.hidden(text[None, :-1]), model.output_weight, text[None, 1:]).sum for text in texts
    )
    apart = torch.autograd.grad(alone, list(model.parameters()))
    torch.testing.assert_close(packed, alone, rtol=1e-10, atol=0)
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@every_kind
def test_the_steps_of_rows_of_different_lengths_give_the_logits_of_each_whole_row(kind):
    model = decoder(**kind).eval()
    rows = [tokens_of(10, seed=seed).tolist() for seed in range(3)]
    lengths = [3, 1, 6]

    with torch.no_grad():
        logits, cache = model.begin([row[:length] for row, length in zip(rows, lengths, strict=True)], 10)
        found = [logits]
        for offset in range(4):
            taken = torch.tensor([row[length + offset] for row, length in zip(rows, lengths, strict=True)])
            found.append(model.step(taken, cache))

    for number, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        whole = model(torch.tensor([row]))[0, length - 1 : length + 4]
        torch.testing.assert_close(torch.stack(found)[:, number], whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [KINDS[1], KINDS[3]], ids=[NAMES[1], NAMES[3]])
def test_beyond_the_window_the_oldest_keys_are_dropped(kind):
    model = decoder(**kind).eval()
    tokens = tokens_of(1, 40)

    with torch.no_grad():
        logits, cache = model.begin([tokens[0, :5].tolist()], 40)
        steps = torch.stack([logits[0], *(model.step(tokens[:, place], cache)[0] for place in range(5, 40))])

    expected = model.hidden(tokens, window=16)[0, 4:] @ model.output_weight[:11].T
    torch.testing.assert_close(steps, expected, rtol=0, atol=1e-12)
    assert cache.room == 16


@pytest.mark.parametrize("packed", [False, True])
def test_the_compiler_sees_one_graph_for_all_lengths(packed):
    model = decoder(kv_heads=2)
    compiled = torch.compile(model.hidden, backend="eager", fullgraph=True, dynamic=True)
    documents = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 2, 2]], dtype=torch.int32) if packed else None

    with torch.autocast("cpu", dtype=torch.bfloat16):
        for length in (9, 7, 5):
            of_row = None if documents is None else documents[:, :length]
            expected = model.hidden(tokens_of(1, length), of_row)
            torch.testing.assert_close(compiled(tokens_of(1, length), of_row), expected, rtol=0, atol=1e-12)


def test_in_bfloat16_the_hidden_layer_is_about_the_same():
    model = decoder().float()
    documents = torch.tensor([[0] * 4 + [1] * 5], dtype=torch.int32)
    exact = model.hidden(tokens_of(1, 9), documents)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model.hidden(tokens_of(1, 9), documents)

    assert float((rough - exact).detach().norm() / exact.detach().norm()) < 0.03


def test_the_cache_is_never_made_anew():
    model = decoder().eval()

    with torch.no_grad():
        _, cache = model.begin([[1, 2, 3]], 12)
        place = cache.store.data_ptr()
        for token in range(9):
            model.step(torch.tensor([token]), cache)

    assert cache.store.data_ptr() == place
    assert cache.store.shape == (2, 2, 1, 4, 12, 8)


def test_a_row_beyond_the_learned_positions_is_an_error():
    with pytest.raises(DataError, match=r"17 tokens does not fit model.max_positions = 16"):
        decoder(positions="learned")(tokens_of(1, 17))


def test_padded_rows_of_the_vocabulary_are_never_predicted():
    model = decoder(vocabulary=11, vocabulary_multiple=64)

    logits = model(tokens_of(1, 4))

    assert model.output_weight.shape == (64, 32)
    assert logits.shape == (1, 4, 11)
    assert model.begin([[1, 2]], 4)[0].shape == (1, 11)


def test_grouped_heads_are_those_of_a_model_whose_keys_are_repeated():
    grouped, whole = decoder(kv_heads=2), decoder(kv_heads=4)
    with torch.no_grad():
        whole.load_state_dict(grouped.state_dict() | {k: v for k, v in whole.state_dict().items() if "projection" in k})
        for small, large in zip(grouped.layers, whole.layers, strict=True):
            query, key, value = small.attention.projection.weight.split((32, 16, 16))
            repeated = [part.view(2, 8, 32).repeat_interleave(2, 0).flatten(0, 1) for part in (key, value)]
            large.attention.projection.weight.copy_(torch.cat((query, *repeated)))

    torch.testing.assert_close(grouped(tokens_of(2, 9)), whole(tokens_of(2, 9)), rtol=0, atol=1e-12)


def test_dropout_of_every_kind_reaches_its_places():
    model = decoder(dropout=0.1, attention_dropout=0.1, activation_dropout=0.1, embedding_dropout=0.1, layer_drop=0.1)

    places = {
        kind: model.set_dropout(kind, 0.5)
        for kind in ("dropout", "attention_dropout", "activation_dropout", "embedding_dropout", "layer_drop")
    }

    assert places == {
        "dropout": 2,
        "attention_dropout": 2,
        "activation_dropout": 2,
        "embedding_dropout": 1,
        "layer_drop": 1,
    }
    torch.manual_seed(1)
    assert not torch.equal(model(tokens_of(1, 5)), model(tokens_of(1, 5)))
    assert torch.equal(model.eval()(tokens_of(1, 5)), model(tokens_of(1, 5)))


def test_a_scheduled_rate_is_told_of():
    config = DecoderConfig(**SMALL, dropout={"schedule": "linear", "from": 0.0, "to": 0.2, "over": "3 steps"})

    assert [value.key for value in Decoder(config, 11).scheduled_values()] == ["model.dropout"]


def test_matrices_begin_as_those_of_gpt2():
    model = Decoder(DecoderConfig(layers=8, d_model=128, heads=4, preset="gpt2"), 500)
    initialise(model, 1)

    layer = model.layers[3]
    deviations = {
        "embedding": model.embedding.weight,
        "projection": layer.attention.projection.weight,
        "inner": layer.feedforward.inner.weight,
    }
    added = [layer.attention.output.weight, layer.feedforward.outer.weight]
    for weight in deviations.values():
        assert float(weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    for weight in added:
        assert float(weight.detach().std()) == pytest.approx(0.02 / math.sqrt(16), rel=0.05)
    assert float(layer.attention.projection.bias.detach().abs().max()) == 0.0


def test_a_parameter_begins_at_what_seed_and_name_say():
    shallow, deep = decoder(layers=1), decoder(layers=3, tie_output=False)

    deeper = dict(deep.named_parameters())
    assert all(torch.equal(value, deeper[name]) for name, value in shallow.named_parameters())


def wide(width, scheme):
    init = InitConfig(scheme=scheme, base_width=64, base_head_width=16)
    model = Decoder(DecoderConfig(layers=2, heads=4, d_model=width, max_positions=32, tie_output=False), 64, init)
    initialise(model, 1, scheme=scheme)
    return model


def moved_logits(width, scheme):
    """How far three steps of Adam move the logits, at one learning rate for every width."""
    model, tokens = wide(width, scheme), tokens_of(8, 17, vocabulary=64)
    rates = model.rate_multipliers()
    groups = [{"params": [value], "lr": 0.01 * rates.get(name, 1.0)} for name, value in model.named_parameters()]
    optimizer = torch.optim.Adam(groups)
    first = model(tokens[:, :-1]).detach()
    for _ in range(3):
        optimizer.zero_grad()
        CrossEntropy()(model(tokens[:, :-1]), tokens[:, 1:]).value.backward()
        optimizer.step()
    return float((model(tokens[:, :-1]) - first).detach().square().mean().sqrt())


def test_with_mup_the_steps_of_a_wider_model_move_its_logits_no_further():
    narrow, broad = moved_logits(64, "mup"), moved_logits(512, "mup")

    assert broad / narrow < 1.5
    assert moved_logits(512, "default") / moved_logits(64, "default") > 2.5


def test_at_the_base_width_mup_is_the_default():
    model, plain = wide(64, "mup"), wide(64, "default")

    assert model.rate_multipliers() == {}
    assert torch.equal(model(tokens_of(2, 7)), plain(tokens_of(2, 7)))


def test_mup_slows_the_hidden_matrices_alone():
    rates = wide(256, "mup").rate_multipliers()

    assert set(rates.values()) == {0.25}
    assert len(rates) == 2 * 4
    assert all(name.startswith("layers.") and "norm" not in name for name in rates)
