"""Laws of fusion: what a beam finds is what brute force finds with the model's scores; models of labels and words."""

import math
import random
from itertools import groupby, product

import pytest
import torch

from etude.base.errors import DataError
from etude.data.tokens.tokenizers import EOS
from etude.model.decoder import Decoder
from etude.model.decoder_config import DecoderConfig
from etude.model.frames.transducer import TransducerConfig, TransducerHead
from etude.model.initialisers import initialise
from etude.model.recurrent import Recurrent, RecurrentConfig
from etude.search import transducer
from etude.search.arpa import read_arpa
from etude.search.ctc import beam, greedy
from etude.search.fusion import FusedGains, Fusion, Together
from etude.search.hot_words import HotWords
from etude.search.network_fusion import NetworkModel, Told
from etude.search.ngrams import LabelNgram, WordNgram

ARPA = """\\data\\
ngram 1=7
ngram 2=4

\\1-grams:
-99 <s> -0.4
-1.0 </s>
-0.6 a -0.3
-0.7 b -0.2
-0.9 ab -0.1
-1.1 ba
-1.5 <unk>

\\2-grams:
-0.2 <s> ab
-0.3 a b
-0.4 b </s>
-0.5 ab ba

\\end\\
"""
TEXTS = {1: "a", 2: "b", 3: " "}
BLANK = 0


@pytest.fixture
def ngram(tmp_path):
    (tmp_path / "model.arpa").write_text(ARPA)
    return read_arpa(tmp_path / "model.arpa")


def total(model, labels):
    """What a model adds to a text: its labels one after another, and the end."""
    state, found = model.start(), 0.0
    for label in labels:
        log, state = model.score(state, label)
        found += log
    return found + model.end(state)


def of_words(ngram, words):
    context, found = ngram.start(), 0.0
    for word in words:
        log, context = ngram.score(context, word)
        found += log
    return found + ngram.end(context)


def every_text(logs):
    """The log-probability of every label sequence of CTC, by its definition."""
    found = {}
    for path in product(range(logs.size(1)), repeat=len(logs)):
        text = tuple(label for label, _ in groupby(path) if label != BLANK)
        found[text] = found.get(text, 0.0) + math.exp(math.fsum(float(logs[t, v]) for t, v in enumerate(path)))
    return {text: math.log(share) for text, share in found.items()}


def problem(seed=0, frames=5):
    draw = torch.Generator().manual_seed(seed)
    logs = torch.randn(3, frames, 4, generator=draw, dtype=torch.float64).mul(1.5).log_softmax(-1)
    return logs, torch.tensor([frames, frames - 2, 0])


def models(ngram):
    return {
        "labels": LabelNgram(ngram, TEXTS),
        "words": WordNgram(ngram, TEXTS),
        "hot": HotWords([(1, 2), (2, 1, 2)], 0.7),
        "both": Together(((WordNgram(ngram, TEXTS), 0.5), (HotWords([(1, 2)], 0.7, separator=3), 2.0))),
    }


@pytest.mark.parametrize("name", ["labels", "words", "hot", "both"])
@pytest.mark.parametrize(("weight", "bonus"), [(0.5, 0.0), (1.3, -0.4), (0.0, 0.8)])
def test_a_wide_beam_ranks_every_text_by_both(ngram, name, weight, bonus):
    model, (logs, lengths) = models(ngram)[name], problem()

    found = beam(logs, lengths, width=1000, fusion=Fusion(model, weight, bonus))

    for one, row, frames in zip(found, logs, lengths.tolist(), strict=True):
        texts = every_text(row[:frames])
        fused = {text: weight * total(model, text) + bonus * len(text) for text in texts}
        assert {text.tokens for text in one} == set(texts)
        for text in one:
            assert text.score == pytest.approx(texts[text.tokens], abs=1e-9)
            assert text.fused == pytest.approx(fused[text.tokens], abs=1e-9)
        ranks = [texts[text.tokens] + fused[text.tokens] for text in one]
        assert ranks == pytest.approx(sorted(ranks, reverse=True), abs=1e-9)


def test_fusion_of_no_weight_changes_nothing(ngram):
    logs, lengths = problem(1)

    for width in (1, 3):
        assert beam(logs, lengths, width=width, fusion=Fusion(LabelNgram(ngram, TEXTS), 0.0)) == beam(
            logs, lengths, width=width
        )


def test_a_narrow_beam_keeps_what_the_model_likes():
    logs, lengths = torch.tensor([[[0.1, 0.46, 0.44]] * 2]).log(), torch.tensor([2])
    likes = HotWords([(2,)], 1.0)

    plain, fused = (beam(logs, lengths, width=1, fusion=fusion)[0][0] for fusion in (None, Fusion(likes)))

    assert (plain.tokens, fused.tokens) == ((1,), (2,))
    assert (fused.score, fused.fused) == (pytest.approx(math.log(0.44**2 + 2 * 0.44 * 0.1)), 1.0)
    assert greedy(logs, lengths)[0].tokens == (1,)


def test_words_are_scored_when_their_separator_or_the_end_comes(ngram):
    model = WordNgram(ngram, TEXTS)
    state, logs = model.start(), []
    for label in (3, 1, 2, 3, 3, 2, 1):
        log, state = model.score(state, label)
        logs.append(log)

    assert logs == [0, 0, 0, pytest.approx(-0.2 * math.log(10)), 0, 0, 0]
    assert model.end(state) == pytest.approx(-(0.5 + 1.0) * math.log(10))


@pytest.mark.parametrize("text", ["", "ab", "ab ba", " ab  ba ", "abba a", "a b ab"])
def test_a_text_of_characters_or_pieces_has_the_score_of_its_words(ngram, text):
    wanted = of_words(ngram, text.split())
    labels = {sign: label for label, sign in TEXTS.items()}
    pieces = {1: "▁ab", 2: "▁a", 3: "ba", 4: "▁", 5: "b", 6: "▁ba", 7: ""}
    spelled = {"": [7], "ab": [2, 5], "ab ba": [1, 6], " ab  ba ": [4, 1, 7, 4, 6, 4], "abba a": [1, 3, 2]}

    assert total(WordNgram(ngram, TEXTS), [labels[sign] for sign in text]) == pytest.approx(wanted)
    if text in spelled:
        assert total(WordNgram(ngram, pieces, "▁"), spelled[text]) == pytest.approx(wanted)


def test_an_n_gram_of_labels_has_the_score_of_its_texts(ngram):
    assert total(LabelNgram(ngram, TEXTS), (1, 2, 9)) == pytest.approx(of_words(ngram, ["a", "b", "?"]))


# -- hot words -------------------------------------------------------------------------------------------------------


def covered(words, text):
    """Which places of a text are in a hot word, by trying every word at every place."""
    return {
        at
        for word in words
        for first in range(len(text))
        if text[first : first + len(word)] == word
        for at in range(first, first + len(word))
    }


def begun(words, text):
    """The places of the longest beginning of a word that a text ends with."""
    for first in range(len(text)):
        if any(len(word) >= len(text) - first and word[: len(text) - first] == text[first:] for word in words):
            return set(range(first, len(text)))
    return set()


@pytest.mark.parametrize("seed", range(20))
def test_labels_of_hot_words_count_once_and_broken_beginnings_not_at_all(seed):
    draw = random.Random(seed)
    words = [tuple(draw.choices((1, 2), k=draw.randint(1, 5))) for _ in range(draw.randint(1, 4))]
    text = tuple(draw.choices((1, 2), k=12))
    model = HotWords(words, 0.5)

    state, found = model.start(), 0.0
    for length, label in enumerate(text, 1):
        log, state = model.score(state, label)
        found += log
        here = text[:length]
        assert found == pytest.approx(0.5 * len(covered(words, here) | begun(words, here)), abs=1e-12)

    assert found + model.end(state) == pytest.approx(0.5 * len(covered(words, text)), abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_with_a_separator_only_whole_words_count(seed):
    draw = random.Random(seed)
    words = [tuple(draw.choices((1, 2), k=draw.randint(1, 3))) for _ in range(2)] + [(1, 0, 2)]
    text = tuple(draw.choices((0, 1, 2), k=12))

    found = total(HotWords(words, 0.5, separator=0), text)

    bordered = [(0, *word, 0) for word in words]
    places = covered(bordered, (0, *text, 0))
    assert found == pytest.approx(0.5 * sum((0, *text, 0)[at] != 0 for at in places), abs=1e-12)


def test_no_hot_words_add_nothing():
    assert total(HotWords([], 2.0), (1, 2, 3)) == 0
    assert total(HotWords([], 2.0, separator=3), (1, 2, 3)) == 0


# -- what a search keeps ---------------------------------------------------------------------------------------------


def test_gains_are_the_same_however_prefixes_are_asked_for(ngram):
    fusion = Fusion(LabelNgram(ngram, TEXTS), 0.7, 0.1)
    gains, draw = FusedGains(fusion), random.Random(0)

    for _ in range(60):
        prefix = tuple(draw.choices((1, 2, 3), k=draw.randint(0, 4)))
        wanted = 0.7 * total(fusion.model, prefix) + 0.1 * len(prefix)
        assert gains.ended(prefix) == pytest.approx(wanted, abs=1e-12)
        if draw.random() < 0.5:
            gains.forget()


@pytest.mark.parametrize(("weight", "bonus"), [(-1.0, 0.0), (math.nan, 0.0), (math.inf, 0.0), (1.0, math.inf)])
def test_weights_that_rank_nothing_are_refused(ngram, weight, bonus):
    with pytest.raises(ValueError, match="must be a number"):
        Fusion(LabelNgram(ngram, TEXTS), weight, bonus)


def test_hot_words_without_labels_or_with_an_endless_bonus_are_refused():
    with pytest.raises(ValueError, match="at least one label"):
        HotWords([(1,), ()], 1.0)
    with pytest.raises(ValueError, match="must be a number"):
        HotWords([(1,)], math.inf)


# -- networks, and the beam of a transducer --------------------------------------------------------------------------


def language_model(kind, window=64):
    if kind == "decoder":
        config = DecoderConfig(layers=2, heads=2, d_model=16, feedforward=32, max_positions=window)
        model = Decoder(config, 9)
    else:
        model = Recurrent(RecurrentConfig(layers=1, d_model=12), 9)
    initialise(model, 3)
    return model.eval()


@pytest.mark.parametrize("kind", ["decoder", "lstm"])
@torch.no_grad()
def test_a_network_adds_the_log_probability_of_the_text_as_a_document(kind):
    network, text = language_model(kind), (4, 7, 7, 5)

    found = total(NetworkModel(network), text)

    logs = network(torch.tensor([[EOS, *text]]))[0].log_softmax(-1)
    assert found == pytest.approx(sum(float(logs[at, token]) for at, token in enumerate((*text, EOS))), rel=1e-5)
    assert NetworkModel(network).score(NetworkModel(network).start(), 99)[0] == -math.inf


@pytest.mark.parametrize("kind", ["decoder", "lstm"])
def test_states_that_are_prepared_together_are_those_that_are_asked_for_alone(kind):
    model = NetworkModel(language_model(kind))
    texts = [(), (4,), (4, 7, 7, 5, 8), (6, 5)]

    states = []
    for text in texts:
        state = model.start()
        for label in text:
            state = Told((*state.tokens, label))
        states.append(state)
    model.prepare(states)

    for text, state in zip(texts, states, strict=True):
        alone = Told((EOS, *text))
        assert [model.score(state, label)[0] for label in range(9)] == pytest.approx(
            [model.score(alone, label)[0] for label in range(9)], abs=1e-5
        )


def test_a_window_sees_the_last_tokens():
    model = NetworkModel(language_model("decoder", window=3))

    assert model.score(Told((EOS, 4, 5, 6, 7)), 8)[0] == pytest.approx(model.score(Told((5, 6, 7)), 8)[0], abs=1e-6)


def test_a_network_whose_weights_are_not_numbers_is_refused():
    network = language_model("lstm")
    with torch.no_grad():
        network.embedding.weight[0] = math.nan

    with pytest.raises(DataError, match="not numbers"):
        NetworkModel(network).score(NetworkModel(network).start(), 4)


def transducer_problem():
    head = TransducerHead(TransducerConfig(d_model=5, joint=6, dropout=0.0), 4, 4)
    initialise(head, 2)
    draw = torch.Generator().manual_seed(1)
    return head.double().eval(), torch.randn(2, 3, 4, generator=draw, dtype=torch.float64), torch.tensor([3, 2])


@pytest.mark.parametrize("name", ["labels", "words", "hot", "both"])
def test_a_wide_beam_of_a_transducer_ranks_by_both(ngram, name):
    model, (head, encoded, lengths) = models(ngram)[name], transducer_problem()
    plain = transducer.beam(head, encoded, lengths, width=90, most=2)
    fusion = Fusion(model, 0.7, -0.2)

    found = transducer.beam(head, encoded, lengths, width=90, most=2, fusion=fusion)

    for one, other in zip(found, plain, strict=True):
        scores = {text.tokens: text.score for text in other}
        for text in one:
            assert text.score == pytest.approx(scores.get(text.tokens, text.score), abs=1e-9)
            assert text.fused == pytest.approx(0.7 * total(model, text.tokens) - 0.2 * len(text.tokens), abs=1e-9)
        ranks = [text.score + text.fused for text in one]
        wanted = [scores[text] + 0.7 * total(model, text) - 0.2 * len(text) for text in scores]
        assert ranks[:10] == pytest.approx(sorted(wanted, reverse=True)[:10], abs=1e-9)


def test_fusion_leads_a_narrow_beam_of_a_transducer():
    head, encoded, lengths = transducer_problem()
    likes = Fusion(HotWords([(2,)], 6.0))

    plain, fused = (transducer.beam(head, encoded, lengths, width=2, most=2, fusion=one) for one in (None, likes))

    counts = [[one[0].tokens.count(2) for one in found] for found in (plain, fused)]
    assert all(more > less for less, more in zip(*counts, strict=True))


@pytest.mark.parametrize("search", ["ctc", "transducer"])
def test_a_network_in_a_beam_scores_what_it_scores_alone(search):
    model = NetworkModel(language_model("lstm"))
    fusion = Fusion(model, 0.4)
    if search == "ctc":
        (found,) = beam(problem()[0][:1], torch.tensor([5]), width=4, fusion=fusion)
    else:
        head, encoded, lengths = transducer_problem()
        (found,) = transducer.beam(head, encoded[:1], lengths[:1], width=4, fusion=fusion)

    assert len(found) == 4
    for text in found:
        assert text.fused == pytest.approx(0.4 * total(model, text.tokens), abs=1e-5)
