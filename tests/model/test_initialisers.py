"""Laws of initialisation: a parameter's value depends on (seed, stage, its name) alone."""

import pytest
import torch
from torch import nn

from etude.base.errors import ConfigError
from etude.model.decoder import Decoder
from etude.model.decoder_config import DecoderConfig
from etude.model.frames.conformer import Conformer, ConformerConfig
from etude.model.initialisers import NAMED, initialise, initialiser
from etude.model.recurrent import Recurrent, RecurrentConfig
from etude.model.transformer import Transformer, TransformerConfig


def small(**options):
    sizes = {"d_model": 8, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "feedforward": 12}
    return Transformer(TransformerConfig(**sizes | options), 9, 11)


def weights(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def test_adding_layers_changes_no_other_parameter():
    shallow, deep = small(), small(encoder_layers=3, decoder_layers=2, positions="learned", tie_output=False)
    initialise(shallow, 1)
    initialise(deep, 1)

    deeper = weights(deep)
    assert [name for name, value in weights(shallow).items() if not torch.equal(value, deeper[name])] == []
    assert not torch.equal(deeper["encoder.1.attention.output.weight"], deeper["encoder.2.attention.output.weight"])


def conformer(layers):
    return Conformer(ConformerConfig(d_model=8, heads=2, layers=layers, feedforward=12))


def decoder(layers):
    return Decoder(DecoderConfig(d_model=8, heads=2, layers=layers), 11)


def lstm(layers):
    return Recurrent(RecurrentConfig(d_model=8, layers=layers), 11)


def bidirectional(layers):
    return nn.LSTM(4, 3, layers, bidirectional=True)


@pytest.mark.parametrize("stage", ["", "second"])
@pytest.mark.parametrize("make", [conformer, decoder, lstm, bidirectional])
def test_a_layer_more_changes_no_initial_value_of_the_others_in_any_stage(make, stage):
    shallow, deep = make(1), make(3)
    initialise(shallow, 1, stage=stage)
    initialise(deep, 1, stage=stage)

    deeper, differing = weights(deep), []
    for name, value in weights(shallow).items():
        # What a decoder adds to its residual stream begins smaller the more layers add to it, as in GPT-2.
        added = make is decoder and name.endswith(("attention.output.weight", "feedforward.outer.weight"))
        factor = 3**-0.5 if added else 1.0
        if not torch.allclose(value * factor, deeper[name], rtol=1e-6 if added else 0, atol=0):
            differing.append(name)
    assert differing == []


def test_seed_and_stage_and_nothing_else_decide():
    def drawn(seed, stage, before):
        torch.manual_seed(before)
        model = small()
        initialise(model, seed, stage=stage)
        return model.source_embedding.weight

    first = drawn(1, "", 5)
    assert torch.equal(first, drawn(1, "", 6))
    assert not torch.equal(first, drawn(2, "", 5))
    assert not torch.equal(first, drawn(1, "second", 5))


def test_the_global_generator_is_left_alone():
    model = small()
    before = torch.random.get_rng_state()

    initialise(model, 1, {"*": "normal"})

    assert torch.equal(torch.random.get_rng_state(), before)


def test_of_several_patterns_the_last_that_matches_wins():
    model = small()

    initialise(model, 1, {"*": 0.5, "encoder.*.bias": "zeros", "decoder.0.feedforward.inner.weight": "normal(0.1)"})

    assert float(model.decoder[0].feedforward.inner.bias.detach().mean()) == 0.5
    assert float(model.encoder[0].feedforward.inner.bias.detach().abs().max()) == 0.0
    assert 0.05 < float(model.decoder[0].feedforward.inner.weight.detach().std()) < 0.15


def test_a_rule_changes_no_parameter_that_it_does_not_match():
    plain, ruled = small(), small()
    initialise(plain, 1)
    initialise(ruled, 1, {"encoder.*": "zeros"})

    kept = weights(ruled)
    changed = {name for name, value in weights(plain).items() if not torch.equal(value, kept[name])}
    assert changed
    assert all(name.startswith("encoder.") for name in changed)


def test_a_pattern_without_a_match_is_an_error_with_near_names():
    with pytest.raises(ConfigError, match=r"'source_embeding.weight' matches no parameter.*source_embedding.weight"):
        initialise(small(), 1, {"source_embeding.weight": "zeros"})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("xavier_unifrom", "did you mean 'xavier_uniform'"),
        ("normal(a)", "one number"),
        ("zeros(1)", "no argument"),
        ("no.such:thing", "cannot be imported"),
        ("math:pi", "not a function"),
    ],
)
def test_what_is_no_initialiser_is_said(spec, message):
    with pytest.raises(ConfigError, match=message):
        initialiser(spec)


def test_an_initialiser_that_does_not_fit_a_shape_is_said_with_the_parameter():
    with pytest.raises(ConfigError, match=r"cannot initialise encoder\.0\.attention\.projection\.bias of shape"):
        initialise(small(), 1, {"encoder.*": "orthogonal"})


@pytest.mark.parametrize("name", NAMED)
def test_every_named_initialiser_fills_a_matrix(name):
    matrix = torch.full((6, 4), torch.nan)

    initialiser(name)(matrix)

    assert matrix.isfinite().all()


def test_an_imported_initialiser_is_called_on_the_parameter():
    layer = nn.Linear(2, 2)

    initialise(layer, 1, {"weight": "torch.nn.init:eye_"})

    assert torch.equal(layer.weight.detach(), torch.eye(2))


def test_parts_of_other_libraries_are_drawn_anew_by_their_names():
    first, second = (nn.Sequential(nn.Linear(3, 3), nn.LSTM(3, 2)) for _ in range(2))
    initialise(first, 1)
    initialise(second, 1)

    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_depth_scaling_makes_a_stacks_additions_together_as_large_as_one():
    plain, scaled = small(encoder_layers=2, decoder_layers=3), small(encoder_layers=2, decoder_layers=3)
    initialise(plain, 1)
    initialise(scaled, 1, scheme="depth_scaled")

    before, after = weights(plain), weights(scaled)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    added = ("attention.output.weight", "cross.output.weight", "feedforward.outer.weight")
    assert changed == {name for name in before if name.endswith(added)}
    for name in changed:
        additions = 2 * 2 if name.startswith("encoder") else 3 * 3
        torch.testing.assert_close(after[name], before[name] / additions**0.5)


@pytest.mark.parametrize(("scheme", "said"), [("mup", "works only for decoders"), ("depth_scaled", "is for layers")])
def test_a_scheme_that_a_model_does_not_know_is_an_error(scheme, said):
    with pytest.raises(ConfigError, match=f'init.scheme = "{scheme}" {said}'):
        initialise(nn.Linear(3, 3), 1, scheme=scheme)
