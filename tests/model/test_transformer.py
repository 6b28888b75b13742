"""Laws of the transformer: cached equals uncached, padding is never seen, what is shared is one."""

import itertools

import pytest
import torch
from pydantic import ValidationError

from etude.base.errors import ConfigError, DataError
from etude.model.layers.dropout import Dropout
from etude.model.transformer import Transformer, TransformerConfig

SHAPES = list(itertools.product(("pre", "post"), ("learned", "sinusoidal", "rotary"), ("layer", "rms")))


def small(**options):
    torch.manual_seed(3)
    sizes = {"d_model": 16, "heads": 2, "encoder_layers": 2, "decoder_layers": 2, "feedforward": 24}
    return Transformer(TransformerConfig(**sizes | options), 19, 19 if options.get("share_embeddings") else 23)


def pairs(rows=3, source=7, target=6):
    generator = torch.Generator().manual_seed(5)
    return (
        torch.randint(4, 19, (rows, source), generator=generator),
        torch.randint(4, 19, (rows, target), generator=generator),
    )


@pytest.mark.parametrize(("norm", "positions", "normalisation"), SHAPES)
def test_every_parameter_gets_a_gradient(norm, positions, normalisation):
    model = small(norm=norm, positions=positions, normalisation=normalisation, activation="swiglu")
    source, target = pairs()

    model(source, target).square().sum().backward()

    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@pytest.mark.parametrize(("norm", "positions", "normalisation"), SHAPES)
def test_decoding_with_the_cache_equals_decoding_without(norm, positions, normalisation):
    model = small(norm=norm, positions=positions, normalisation=normalisation).double().eval()
    source, target = pairs(target=40)  # longer than the cache is at first
    source[0, 5:] = 0

    cache = model.start(model.encode(source))
    stepped = torch.stack([model.step(target[:, t], cache)[0] for t in range(target.size(1))], dim=1)

    torch.testing.assert_close(stepped, model(source, target), rtol=0, atol=1e-11)


def test_beams_share_their_source_and_follow_a_reordering():
    model = small().double().eval()
    source, target = pairs(rows=2)
    order = torch.tensor([1, 1, 2, 3, 5, 3])  # three beams a sentence
    cache = model.start(model.encode(source), width=3)
    model.step(torch.arange(4, 10), cache)
    cache.reorder(order)

    logits, _ = model.step(torch.arange(10, 16), cache)

    history = torch.stack((torch.arange(4, 10)[order], torch.arange(10, 16)), dim=1)
    expected = model(source.repeat_interleave(3, dim=0), history)[:, -1]
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-11)
    assert cache.layers[0].source_keys.size(0) == 2
    assert len(target) == 2


def test_a_cache_goes_on_with_the_sentences_that_are_kept():
    model = small().double().eval()
    source, target = pairs(rows=3)
    source[1, 4:] = 0
    cache = model.start(model.encode(source))
    model.step(target[:, 0], cache)
    kept = torch.tensor([1, 2])
    cache.keep(kept)

    logits, _ = model.step(target[kept, 1], cache)

    torch.testing.assert_close(logits, model(source, target)[kept, 1], rtol=0, atol=1e-11)


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary"])
def test_padding_changes_no_logit(positions):
    model = small(positions=positions).double().eval()
    source, target = pairs(rows=1)
    padded_source = torch.nn.functional.pad(source, (0, 4))
    padded_target = torch.nn.functional.pad(target, (0, 5))

    logits = model(padded_source, padded_target)[:, : target.size(1)]

    torch.testing.assert_close(logits, model(source, target), rtol=0, atol=1e-11)


def test_a_source_of_padding_alone_gives_finite_logits():
    model = small().eval()
    source, target = pairs(rows=2)
    source[0] = 0

    assert model(source, target).isfinite().all()


def test_bfloat16_stays_near_float32():
    model = small().eval()
    source, target = pairs()

    with torch.autocast("cpu", torch.bfloat16):
        logits = model(source, target)

    torch.testing.assert_close(logits.float(), model(source, target), rtol=0.1, atol=0.1)


def test_shared_and_tied_embeddings_are_one_parameter():
    model = small(share_embeddings=True, tie_output=True)
    matrices = [name for name, p in model.named_parameters() if p.size(0) == 19]

    assert matrices == ["source_embedding.weight"]
    assert model.output_weight is model.source_embedding.weight


def test_untied_output_and_separate_embeddings_are_three_parameters():
    model = small(tie_output=False)

    assert model.output_weight.shape == model.target_embedding.weight.shape
    assert len({id(model.output_weight), id(model.target_embedding.weight), id(model.source_embedding.weight)}) == 3


def test_shared_embeddings_need_one_vocabulary():
    with pytest.raises(ConfigError, match="share_embeddings needs one tokenizer"):
        Transformer(TransformerConfig(share_embeddings=True), 10, 11)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValidationError, match="heads must divide d_model = 16"):
        TransformerConfig(d_model=16, heads=3)


def test_learned_positions_end_somewhere():
    model = small(positions="learned", max_positions=5)
    source, target = pairs()

    with pytest.raises(DataError, match=r"7 tokens does not fit model\.max_positions = 5"):
        model(source, target)


def test_without_biases_no_parameter_is_called_bias():
    assert [name for name, _ in small(bias=False).named_parameters() if name.endswith("bias")] == []


def test_a_rate_of_dropout_is_set_on_all_its_places():
    model = small(embedding_dropout=0.3)

    places = model.set_dropout("dropout", 0.25)

    rates = [part.rate for part in model.modules() if isinstance(part, Dropout) and part.kind == "dropout"]
    assert rates == [0.25] * places
    assert model.embedding_dropout.rate == 0.3


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary"])
def test_a_model_that_was_searched_first_can_still_be_trained(positions):
    model = small(positions=positions)
    source, target = pairs()
    with torch.inference_mode():
        model.step(target[:, 0], model.start(model.encode(source)))

    model(source, target).sum().backward()

    assert model.source_embedding.weight.grad is not None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_hidden_keys_stay_hidden_in_half_precision(dtype):
    model = small().to(dtype).eval()
    source, target = pairs(rows=2)
    source[0] = 0
    changed = target.clone()
    changed[:, -1] = 5

    logits = model(source, target)

    assert logits.isfinite().all()
    assert torch.equal(logits[:, :-1], model(source, changed)[:, :-1])
