"""Laws of generation: the cache, the batch and the other samples change nothing; options do what they say."""

import math

import pytest
import torch
from torch import nn

from etude.base.errors import ConfigError, DataError
from etude.model.decoder import Decoder
from etude.model.decoder_config import DecoderConfig
from etude.model.initialisers import initialise
from etude.model.recurrent import Recurrent, RecurrentConfig
from etude.search.next_logits import context_start
from etude.search.next_token import Options, sampled
from etude.search.sampling import generate, stream
from etude.search.scoring import score

VOCABULARY = 13
KINDS = {
    "gpt2": DecoderConfig(preset="gpt2", layers=2, heads=2, d_model=16, max_positions=10),
    "llama": DecoderConfig(preset="llama", layers=2, heads=2, kv_heads=1, d_model=16, max_positions=10),
    "sinusoidal": DecoderConfig(positions="sinusoidal", layers=1, heads=2, d_model=16, max_positions=10),
    "lstm": RecurrentConfig(layers=2, d_model=16),
    "gru": RecurrentConfig(type="gru", layers=1, d_model=16),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11], list(range(12)) * 2]


def model_of(kind):
    config = KINDS[kind]
    model = (Recurrent if isinstance(config, RecurrentConfig) else Decoder)(config, VOCABULARY)
    initialise(model, 1, {"*.weight": "normal(0.5)"})
    return model.double().eval()


def letters(tokens):
    return "".join("abcdefghijklm"[token] for token in tokens)


def tokens_in(found):
    return [[sample.tokens for sample in samples] for samples in found]


@every_kind
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_cached_generation_is_uncached_generation_beyond_the_window_too(kind, temperature):
    model, options = model_of(kind), Options(max_tokens=35, temperature=temperature, samples=2, eos=0)

    cached = generate(model, PROMPTS, options)

    assert tokens_in(cached) == tokens_in(generate(model, PROMPTS, options, cached=False))
    assert max(len(sample.tokens) for samples in cached for sample in samples) > 10


@every_kind
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_prompts_side_by_side_give_what_each_gives_alone(kind, temperature):
    model, options = model_of(kind), Options(max_tokens=25, temperature=temperature, eos=0)

    together = generate(model, PROMPTS, options)

    alone = [generate(model, [prompt], options, first=number)[0] for number, prompt in enumerate(PROMPTS)]
    assert tokens_in(together) == tokens_in(alone)
    for samples, others in zip(together, alone, strict=True):
        assert samples[0].log_probability == pytest.approx(others[0].log_probability, abs=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "sinusoidal"])
def test_a_lower_window_is_kept_to(kind):
    model, options = model_of(kind), Options(max_tokens=14)
    wide = generate(model, PROMPTS, options)
    model.window = 6

    found = generate(model, PROMPTS, options)

    assert tokens_in(found) == tokens_in(generate(model, PROMPTS, options, cached=False))
    assert tokens_in(found) != tokens_in(wide)
    assert model.begin([[1]], 40)[1].room == 6


def test_samples_differ_and_more_of_them_change_none():
    model = model_of("llama")

    two, four = (generate(model, PROMPTS, Options(max_tokens=12, samples=samples)) for samples in (2, 4))

    assert tokens_in(two) == [samples[:2] for samples in tokens_in(four)]
    assert len({tuple(sample.tokens) for sample in four[0]}) == 4
    assert tokens_in(two) != tokens_in(generate(model, PROMPTS, Options(max_tokens=12, samples=2, seed=2)))


def test_greedy_generation_takes_the_likeliest_token():
    model = model_of("gpt2")

    (sample,) = generate(model, [[1, 2]], Options(max_tokens=6, temperature=0.0))[0]

    tokens = [1, 2]
    for _ in range(6):
        tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    assert sample.tokens == tokens[2:]
    assert sample.end == "length"


def test_a_sample_ends_at_the_end_token_and_the_others_go_on():
    model = model_of("llama")
    options = Options(max_tokens=6, eos=3, samples=8)

    found = [sample for samples in generate(model, PROMPTS, options) for sample in samples]

    assert {sample.end for sample in found} == {"eos", "length"}
    assert all(3 not in sample.tokens for sample in found)
    assert all(len(sample.tokens) == 6 for sample in found if sample.end == "length")


def test_the_log_probability_is_the_models_own_whatever_the_options():
    model = model_of("llama")
    (sample,) = generate(model, [[1, 2]], Options(max_tokens=6, temperature=0.3, top_k=3, repetition_penalty=1.5))[0]

    values = score(model, [1, 2, *sample.tokens])

    assert sample.log_probability == pytest.approx(sum(values[1:]), abs=1e-5)


def test_a_stop_string_ends_the_text_before_it_wherever_tokens_part():
    model = model_of("llama")
    whole = generate(model, [[1]], Options(max_tokens=30), letters)[0][0]
    stop = whole.text[10:13]

    pieces = list(stream(model, [[1]], Options(max_tokens=30, stop=("zz", stop)), letters))

    assert "".join(piece.text for piece in pieces) == whole.text[: whole.text.index(stop)]
    assert pieces[-1].end == "stop"
    assert whole.text == letters(whole.tokens)


def test_stop_strings_need_a_tokenizer():
    with pytest.raises(ConfigError, match=r"task\.stop needs a tokenizer"):
        generate(model_of("llama"), [[1]], Options(stop=("a",)))


def test_an_empty_prompt_is_an_error():
    with pytest.raises(DataError, match="Prompt 2 has no token"):
        generate(model_of("llama"), [[1], []], Options())


def test_banned_tokens_are_never_chosen():
    model = model_of("llama")

    found = generate(model, PROMPTS, Options(max_tokens=40, temperature=3.0, banned=(0, 5)))

    assert not {0, 5} & {token for samples in found for token in samples[0].tokens}


def test_a_module_of_ones_own_generates_without_a_cache():
    class Next(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, tokens):
            return nn.functional.one_hot((tokens + 1) % 5, 5).float() * 9

    (sample,) = generate(Next(), [[1]], Options(max_tokens=6, temperature=0.0))[0]

    assert sample.tokens == [2, 3, 4, 0, 1, 2]


CHANCES = torch.tensor([[0.4, 0.05, 0.3, 0.25]], dtype=torch.float64)


def chosen(**options):
    """The share of draws that falls on each token."""
    draws = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    tokens = sampled(CHANCES.log().expand(1000, -1), draws, Options(**options))
    return (torch.bincount(tokens, minlength=4) / 1000).tolist()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.4, 0.05, 0.3, 0.25]),
        ({"top_k": 2}, [4 / 7, 0, 3 / 7, 0]),
        ({"top_k": 9}, [0.4, 0.05, 0.3, 0.25]),
        ({"top_p": 0.6}, [4 / 7, 0, 3 / 7, 0]),
        ({"top_p": 0.01}, [1, 0, 0, 0]),
        ({"min_p": 0.7}, [4 / 7, 0, 3 / 7, 0]),
        ({"min_p": 0.5}, [0.4 / 0.95, 0, 0.3 / 0.95, 0.25 / 0.95]),
        ({"top_k": 3, "top_p": 0.72}, [4 / 7, 0, 3 / 7, 0]),
    ],
)
def test_draws_fall_on_tokens_as_often_as_their_chances_say(options, expected):
    assert chosen(**options) == pytest.approx(expected, abs=0.002)


@pytest.mark.parametrize(("options", "expected"), [({"top_k": 2}, 2), ({"top_p": 0.99}, 1), ({}, 2)])
def test_the_last_possible_draw_falls_on_a_possible_token(options, expected):
    logits = CHANCES.log() if options else CHANCES.log().index_fill(1, torch.tensor([3]), -torch.inf)

    tokens = sampled(logits, torch.tensor([1.0], dtype=torch.float64), Options(**options))

    assert tokens.tolist() == [expected]


@pytest.mark.parametrize(
    ("options", "expected"), [({"temperature": 0.0}, 2), ({"temperature": 0.0, "repetition_penalty": 3.0}, 1)]
)
def test_the_penalty_makes_tokens_that_were_there_less_likely(options, expected):
    class Same(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, tokens):
            return torch.tensor([-1.0, 0.5, 1.0]).expand(1, tokens.size(1), 3)

    (sample,) = generate(Same(), [[2]], Options(max_tokens=1, **options))[0]

    assert sample.tokens == [expected]


@pytest.mark.parametrize("window", [1, 2, 5, 8])
def test_a_context_that_begins_anew_fits_the_window_and_keeps_half_of_it(window):
    starts = [context_start(length, window) for length in range(1, 60)]

    contexts = [length - start for length, start in zip(range(1, 60), starts, strict=True)]
    assert starts == sorted(starts)
    assert all(1 <= context <= window for context in contexts)
    assert all(context >= window // 2 for context in contexts[window:])


@every_kind
def test_a_texts_score_is_that_of_its_whole_where_it_fits(kind):
    model, tokens = model_of(kind), [1, 5, 3, 2, 8, 8, 4, 1, 0, 7]

    values = score(model, tokens)

    logs = model(torch.tensor([tokens[:-1]]))[0].log_softmax(-1)
    expected = [float(logs[place, token].detach()) for place, token in enumerate(tokens[1:])]
    assert values == pytest.approx(expected, abs=1e-5)


@every_kind
def test_every_token_of_a_long_text_is_scored_with_half_a_window_before_it(kind):
    model, tokens = model_of(kind), [token % VOCABULARY for token in range(0, 93, 3)] * 2

    values = score(model, tokens)

    assert len(values) == len(tokens) - 1
    half = 5 if "max_positions" in type(KINDS[kind]).model_fields else math.inf
    for place in (3, 10, 17, 24, 40, len(values) - 1):
        start = 0 if place < 10 or half == math.inf else (place - 10) // 5 * 5 + 5
        logs = model(torch.tensor([tokens[start : place + 1]]))[0, -1].log_softmax(-1)
        assert values[place] == pytest.approx(float(logs[tokens[place + 1]].detach()), abs=1e-5)
