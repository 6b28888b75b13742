"""Laws of the attention to the source that a transformer tells of."""

import pytest
import torch
from torch import nn

from etude.base.errors import DataError
from etude.model.transformer import Transformer, TransformerConfig

SHAPES = [("pre", "rotary", "layer"), ("post", "learned", "rms"), ("pre", "sinusoidal", "rms")]


def small(**options):
    torch.manual_seed(3)
    sizes = {"d_model": 16, "heads": 2, "encoder_layers": 2, "decoder_layers": 3, "feedforward": 24}
    return Transformer(TransformerConfig(**sizes | options), 19, 23).double().eval()


def pairs(rows=3, source=7, target=6):
    generator = torch.Generator().manual_seed(5)
    sources = torch.randint(4, 19, (rows, source), generator=generator)
    sources[0, 4:] = 0
    return sources, torch.randint(4, 19, (rows, target), generator=generator)


def calls_of(model, source, target):
    """What each layer's attention to the source was given, and what it gave."""
    heard = []
    for layer in model.decoder:
        layer.cross.register_forward_hook(lambda _, given, out: heard.append((given, out)))
    model(source, target)
    return heard


@pytest.mark.parametrize(("norm", "positions", "normalisation"), SHAPES)
@torch.no_grad()
def test_each_row_of_weights_sums_to_one_and_padding_has_none(norm, positions, normalisation):
    source, target = pairs()

    weights = small(norm=norm, positions=positions, normalisation=normalisation).cross_attention(source, target)

    assert weights.shape == (3, 3, 2, 6, 7)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 3, 2, 6, dtype=torch.float64), rtol=0, atol=1e-12)
    assert weights[0, ..., 4:].eq(0).all()
    assert weights[1:].gt(0).all()


@torch.no_grad()
def test_the_weights_of_a_batch_are_those_of_its_members():
    model = small(positions="rotary")
    source, target = pairs()

    whole = model.cross_attention(source, target)

    torch.testing.assert_close(
        whole[:1, ..., :4], model.cross_attention(source[:1, :4], target[:1]), rtol=0, atol=1e-12
    )
    torch.testing.assert_close(whole[1:2], model.cross_attention(source[1:2], target[1:2]), rtol=0, atol=1e-12)
    torch.testing.assert_close(whole[:, :, :, :2], model.cross_attention(source, target[:, :2]), rtol=0, atol=1e-12)


@torch.no_grad()
def test_weights_and_output_of_each_layer_are_those_of_torchs_own_attention():
    model = small()
    source, target = pairs()

    weights = model.cross_attention(source, target)

    for number, (layer, (given, output)) in enumerate(zip(model.decoder, calls_of(model, source, target), strict=True)):
        cross, (hidden, memory, _) = layer.cross, given
        other = nn.MultiheadAttention(16, 2, batch_first=True, dtype=torch.float64)
        other.in_proj_weight.copy_(torch.cat((cross.query.weight, cross.projection.weight)))
        other.in_proj_bias.copy_(torch.cat((cross.query.bias, cross.projection.bias)))
        other.out_proj.load_state_dict(cross.output.state_dict())
        mixed, expected = other(hidden, memory, memory, key_padding_mask=source == 0, average_attn_weights=False)
        torch.testing.assert_close(weights[:, number], expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(output, mixed, rtol=0, atol=1e-12)


@torch.no_grad()
def test_the_weights_give_what_the_fused_way_gives():
    model = small().float()
    source, target = pairs(source=200, target=200)  # so many that evaluation takes the fused way

    weights = model.cross_attention(source, target)

    for number, (layer, (given, output)) in enumerate(zip(model.decoder, calls_of(model, source, target), strict=True)):
        value = layer.cross.keys_values(given[1])[1]
        mixed = layer.cross.output((weights[:, number] @ value).transpose(1, 2).flatten(2))
        torch.testing.assert_close(mixed, output)


@torch.no_grad()
def test_one_token_may_look_at_one():
    weights = small().cross_attention(torch.tensor([[3]]), torch.tensor([[2]]))

    assert weights.shape == (1, 3, 2, 1, 1)
    assert weights.eq(1).all()


def test_to_tell_of_it_changes_nothing_and_leaves_nothing_behind():
    model = small(dropout=0.0).train()
    source, target = pairs()
    before = model(source, target)

    model.cross_attention(source, target)

    assert model(source, target).equal(before)
    assert not any(part._forward_pre_hooks for part in model.modules())


def test_a_pass_that_fails_leaves_nothing_behind():
    model = small(positions="learned", max_positions=4)

    with pytest.raises(DataError, match="max_positions"):
        model.cross_attention(*pairs())

    assert not any(part._forward_pre_hooks for part in model.modules())


@torch.no_grad()
def test_a_model_whose_pass_is_compiled_tells_of_it_too():
    model = small()
    expected = model.cross_attention(*pairs())
    # As `train.compile` does; a compiled pass hears no hooks, so this one must not be asked.
    object.__setattr__(model, "hidden", lambda *_: None)

    assert model.cross_attention(*pairs()).equal(expected)
