"""Laws of search: width 1 is greedy, a batch is its members, a wide enough beam is exhaustive, ties are decided."""

import itertools
import math

import pytest
import torch

from etude.data.tokens.tokenizers import BOS, EOS, PAD
from etude.model.transformer import Transformer, TransformerConfig
from etude.search.beam import beam, beam_by, best_first
from etude.search.greedy import greedy, greedy_by
from etude.search.hypotheses import Limits, length_penalty


def model_of(vocabulary=12, seed=1, **options):
    torch.manual_seed(seed)
    sizes = {"d_model": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "feedforward": 16}
    model = Transformer(TransformerConfig(**sizes | options), vocabulary, vocabulary).double().eval()
    # Sharper than a fresh model, so that hypotheses end at different lengths.
    model.target_embedding.weight.data *= 3
    return model


def sources(rows=9, longest=8, vocabulary=12):
    generator = torch.Generator().manual_seed(9)
    source = torch.randint(4, vocabulary, (rows, longest), generator=generator)
    for row in range(rows):
        length = 1 + row % longest
        source[row, length - 1] = EOS
        source[row, length:] = PAD
    return source


def log_probability(model, source, tokens):
    given = torch.tensor([[BOS, *tokens]])
    logs = model(source, given).detach().log_softmax(-1)[0]
    return float(logs[torch.arange(len(tokens) + 1), torch.tensor([*tokens, EOS])].sum())


@pytest.mark.parametrize("seed", range(4))
def test_beam_of_one_is_greedy(seed):
    model, source = model_of(seed=seed), sources()

    found = [best[0] for best in beam(model, source, width=1)]

    alone = greedy(model, source)
    assert [one.tokens for one in found] == [one.tokens for one in alone]
    assert [one.score for one in found] == pytest.approx([one.score for one in alone], abs=1e-12)


def test_beam_of_one_is_greedy_in_float32_where_rounding_makes_ties():
    model, source = model_of(vocabulary=300).float(), sources(vocabulary=300)

    assert [b[0].tokens for b in beam(model, source, width=1)] == [one.tokens for one in greedy(model, source)]


@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_a_batch_is_its_members_alone(width, seed):
    model, source = model_of(seed=seed), sources()

    together = beam(model, source, width=width)

    for row, found in enumerate(together):
        length = int((source[row] != PAD).sum())
        (alone,) = beam(model, source[row : row + 1, :length], width=width)
        assert [one.tokens for one in found] == [one.tokens for one in alone]
        assert [one.score for one in found] == pytest.approx([one.score for one in alone], abs=1e-9)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_beam_as_wide_as_all_sequences_finds_the_best(alpha, seed):
    model, source = model_of(vocabulary=7, seed=seed), sources(rows=2, vocabulary=7)
    letters = [token for token in range(7) if token not in {PAD, BOS, EOS}]
    every = [tokens for length in range(4) for tokens in itertools.product(letters, repeat=length)]

    found = beam(model, source, width=len(every), limits=Limits(0.0, 3), alpha=alpha)

    for row, best in enumerate(found):
        scores = {
            tokens: log_probability(model, source[row : row + 1], tokens) / length_penalty(len(tokens) + 1, alpha)
            for tokens in every
        }
        ranked = sorted(every, key=lambda tokens: -scores[tokens])
        assert [one.tokens for one in best] == ranked
        assert [one.score for one in best] == pytest.approx([scores[tokens] for tokens in ranked], abs=1e-9)


def test_scores_are_the_models_own_log_probabilities():
    model, source = model_of(), sources(rows=3)

    for row, best in enumerate(beam(model, source, width=3)):
        for one in best:
            assert one.log_probability == pytest.approx(
                log_probability(model, source[row : row + 1], one.tokens), abs=1e-9
            )


def test_the_best_comes_first_and_none_twice():
    for best in beam(model_of(), sources(), width=4):
        assert [one.score for one in best] == sorted((one.score for one in best), reverse=True)
        assert len({one.tokens for one in best}) == len(best) == 4


def test_no_translation_is_longer_than_its_limit():
    limits = Limits(ratio=1.0, extra=1)
    model, source = model_of(), sources()
    model.target_embedding.weight.data[EOS] = 0.0

    for row, best in enumerate(beam(model, source, width=2, limits=limits)):
        assert all(len(one.tokens) <= limits.of(source)[row] for one in best)
    assert limits.of(source).tolist() == [max(1, int(n)) for n in (source != PAD).sum(1)]


class Flat:
    """Every token is as probable as every other."""

    def encode(self, source):
        return len(source)

    def start(self, memory, width=1):
        return self

    def step(self, tokens, cache):
        return torch.zeros(len(tokens), 9), cache

    def reorder(self, rows): ...
    def keep(self, sentences): ...


@pytest.mark.parametrize("width", [1, 3])
def test_a_step_function_and_limits_are_all_that_a_search_needs(width):
    model, source = model_of(), sources()
    limits, memory = Limits(1.0, 2), model.encode(source)

    by_step = beam_by(model.step, model.start(memory, width), limits.of(source), width=width)

    assert by_step == beam(model, source, width=width, limits=limits)
    assert greedy_by(model.step, model.start(memory), limits.of(source)) == greedy(model, source, limits=limits)


def test_of_equal_tokens_the_lowest_is_taken():
    source = torch.tensor([[5, EOS]])

    assert greedy(Flat(), source)[0].tokens == beam(Flat(), source, width=1)[0][0].tokens == (1,) * 12
    assert [one.tokens for one in beam(Flat(), source, width=2, limits=Limits(0, 2), alpha=0)[0]] == [(), (1,)]


def test_a_model_that_gives_no_numbers_translates_into_nothing():
    class Broken(Flat):
        def step(self, tokens, cache):
            return torch.full((len(tokens), 9), math.nan), cache

    found = beam(Broken(), torch.tensor([[5, EOS]]), width=2)

    assert found[0][0].tokens == ()
    assert math.isnan(found[0][0].score)


def test_a_greedy_search_of_a_model_that_gives_no_numbers_ends_at_its_limit():
    class Nothing(Flat):
        def step(self, tokens, cache):
            return torch.full((len(tokens), 9), math.nan), cache

    found = greedy(Nothing(), torch.full((2, 3), 5), limits=Limits(1.0, 2, 40))

    assert [len(one.tokens) for one in found] == [4, 4]  # of two tokens and eos: 1.0 x 2 + 2
    assert all(math.isnan(one.score) for one in found)


def test_best_first_is_a_stable_sort():
    generator = torch.Generator().manual_seed(2)
    values = torch.randint(0, 4, (50, 12), generator=generator).float()
    values[::3] = -math.inf
    values[::3, 5] = 1.0

    for count in (1, 3, 11, 12, 20):
        best, indices = best_first(values, count)
        expected = values.sort(dim=1, descending=True, stable=True)
        finite = best > -math.inf
        assert torch.equal(best, expected.values[:, :count])
        assert torch.equal(indices[finite], expected.indices[:, :count][finite])
