"""Laws of the decoder's config: presets and sizes fill in, what is given wins."""

import pytest
import torch
from pydantic import ValidationError

from etude.model.decoder import Decoder
from etude.model.decoder_config import PRESET_SIZES, SMALL_SIZES, DecoderConfig
from etude.model.flops import count_parameters


def test_gpt2_of_124_million_has_the_published_shape():
    config = DecoderConfig(preset="gpt2", size="124m")

    shape = (config.layers, config.heads, config.kv_heads, config.d_model, config.feedforward, config.max_positions)
    assert shape == (12, 12, 12, 768, 3072, 1024)
    assert (config.positions, config.normalisation, config.activation) == ("learned", "layer", "gelu_tanh")
    assert config.bias
    assert config.tie_output


@pytest.mark.parametrize(
    ("preset", "size", "vocabulary", "published"),
    [
        ("gpt2", "124m", 50257, 124_439_808),
        ("gpt2", "355m", 50257, 354_823_168),
        ("gpt2", "774m", 50257, 774_030_080),
        ("gpt2", "1.5b", 50257, 1_557_611_200),
        ("llama", "1.1b", 32000, 1_100_048_384),
        ("llama", "7b", 32000, 6_738_415_616),
        ("llama", "8b", 128256, 8_030_261_248),
    ],
)
def test_a_size_has_the_published_number_of_parameters(preset, size, vocabulary, published):
    with torch.device("meta"):
        model = Decoder(DecoderConfig(preset=preset, size=size), vocabulary)

    assert count_parameters(model).total == published


def test_what_is_given_wins_over_preset_and_size():
    config = DecoderConfig(preset="llama", size="small", layers=2, tie_output=True, d_model=96, kv_heads=3)

    assert (config.layers, config.tie_output, config.d_model, config.kv_heads, config.heads) == (2, True, 96, 3, 6)
    assert config.feedforward == 256
    assert config.normalisation == "rms"


def test_a_composed_config_says_it_all_and_reads_back():
    config = DecoderConfig(preset="gpt2", size="tiny")

    written = config.model_dump()

    assert (written["feedforward"], written["positions"]) == (512, "learned")
    assert DecoderConfig(**written) == config


def test_the_default_is_what_its_fields_say():
    shown = {name: field.default for name, field in DecoderConfig.model_fields.items()}

    built = DecoderConfig()

    assert {name: getattr(built, name) for name in shown} == shown


@pytest.mark.parametrize("preset", [None, "gpt2", "llama"])
def test_every_size_fits(preset):
    for size in [*SMALL_SIZES, *PRESET_SIZES.get(preset, {})]:
        assert DecoderConfig(preset=preset, size=size).size == size


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": "7b"}, 'is one of the preset "llama"'),
        ({"preset": "llama", "size": "124m"}, 'is one of the preset "gpt2"'),
        ({"heads": 5}, "heads must divide d_model = 256, but is 5"),
        ({"kv_heads": 3}, "kv_heads must divide heads = 4, but is 3"),
        ({"d_model": 20, "heads": 4}, "must be even for rotary positions, but is 5"),
        ({"d_model": 15, "heads": 3, "positions": "sinusoidal"}, "d_model must be even for sinusoidal"),
        ({"layers": 0}, "greater than or equal to 1"),
        ({"size": "huge"}, "Input should be 'tiny'"),
    ],
)
def test_what_does_not_fit_is_told(given, message):
    with pytest.raises(ValidationError, match=message):
        DecoderConfig(**given)
