"""Laws of layer drop: whole layers are left out in training, and nowhere else."""

import pytest
import torch
from pydantic import ValidationError

from etude.model.layers.dropout import LayerDrop
from etude.model.transformer import Transformer, TransformerConfig

LAYERS = 5


def network(layer_drop=0.0, **options):
    torch.manual_seed(3)
    options = {"d_model": 8, "heads": 2, "feedforward": 8, "dropout": 0.0, "encoder_layers": LAYERS, **options}
    return Transformer(TransformerConfig(decoder_layers=2, layer_drop=layer_drop, **options), 11, 11)


def tokens(seed=1):
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(1, 11, (3, 6), generator=draw), torch.randint(1, 11, (3, 4), generator=draw)


def layers(model):
    return [*model.encoder, *model.decoder]


def counted(model):
    """How often each layer has been used."""
    uses = [0] * len(layers(model))

    def count(index):
        def hook(*_):
            uses[index] += 1

        return hook

    for index, layer in enumerate(layers(model)):
        layer.register_forward_hook(count(index))
    return uses


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_layer_left_out_is_as_if_it_were_not_there(norm):
    whole, cut = network(0.5, norm=norm), network(norm=norm)
    source, target = tokens()
    kept = (torch.rand(LAYERS + 2, generator=torch.Generator().manual_seed(9)) >= 0.5).tolist()
    cut.encoder = torch.nn.ModuleList([layer for layer, keep in zip(cut.encoder, kept, strict=False) if keep])
    cut.decoder = torch.nn.ModuleList([layer for layer, keep in zip(cut.decoder, kept[LAYERS:], strict=True) if keep])

    torch.manual_seed(9)
    logits = whole(source, target)

    assert 0 < sum(kept) < len(kept)
    assert torch.equal(logits, cut(source, target))


def test_each_layer_is_used_in_its_share_of_batches():
    model = network(0.3)
    uses = counted(model)
    torch.manual_seed(1)

    with torch.no_grad():
        for _ in range(400):
            model(*tokens())

    assert uses == [pytest.approx(280, abs=40)] * len(uses)


def test_a_layer_left_out_gets_no_gradient():
    model = network(0.999999)

    model(*tokens()).sum().backward()

    assert all(p.grad is None for layer in layers(model) for p in layer.parameters())
    assert model.target_embedding.weight.grad is not None


def test_evaluation_and_decoding_use_every_layer():
    model, plain = network(0.999999), network()
    source, target = tokens()
    uses = counted(model)

    assert torch.equal(model.eval()(source, target), plain.eval()(source, target))
    assert uses == [1] * len(uses)
    memory = plain.encode(source)
    found, wanted = (one.step(target[:, 0], one.start(memory))[0] for one in (model.train(), plain))
    assert torch.equal(found, wanted)


def test_rate_zero_draws_nothing():
    model = network()
    torch.manual_seed(5)
    before = torch.get_rng_state()

    model(*tokens())

    assert torch.equal(torch.get_rng_state(), before)


def test_it_adds_no_parameter_and_changes_no_initial_weight():
    with_drop, without = network(0.5).state_dict(), network().state_dict()

    assert list(with_drop) == list(without)
    assert all(torch.equal(with_drop[name], without[name]) for name in without)


def test_its_rate_may_follow_a_schedule():
    ramp = {"schedule": "linear", "from": 0.2, "to": 0.0, "over": "5 steps"}
    model = network(ramp)

    (value,) = model.scheduled_values()
    value.apply(0.125)

    assert (value.key, value.name) == ("model.layer_drop", "layer_drop")
    assert model.layer_drop.rate == 0.125
    assert model.embedding_dropout.rate == 0.0


def test_a_rate_is_a_share_below_one():
    with pytest.raises(ValidationError):
        TransformerConfig(layer_drop=1.0)


def test_a_module_shows_its_rate():
    assert repr(LayerDrop(0.25)) == "LayerDrop(rate=0.25)"
