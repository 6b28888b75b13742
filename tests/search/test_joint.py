"""Laws of joint search: CTC's prefixes by brute force, and beams that find what brute force ranks first."""

import math
from itertools import groupby, product

import pytest
import torch

from etude.data.tokens.tokenizers import BOS, EOS, PAD
from etude.model.frames.attention import AttentionConfig, AttentionHead
from etude.model.initialisers import initialise
from etude.search import attention
from etude.search.attention import FrameLimits
from etude.search.ctc_prefix import PrefixScores
from etude.search.fusion import Fusion
from etude.search.hot_words import HotWords
from etude.search.joint import JointOptions, beam

WIDTH, VOCABULARY = 6, 7
LABELS = [1, 4, 5, 6]
FEW = FrameLimits(ratio=0.0, extra=3)


def head(seed=1):
    config = AttentionConfig(d_model=8, heads=2, layers=1, feedforward=12, dropout=0.0)
    model = AttentionHead(config, WIDTH, VOCABULARY)
    initialise(model, seed)
    return model.double().eval()


def problem(seed=0, frames=4, classes=VOCABULARY):
    draw = torch.Generator().manual_seed(seed)
    encoded = torch.randn(4, frames, WIDTH, generator=draw, dtype=torch.float64).mul(2)
    logs = torch.randn(4, frames, classes, generator=draw, dtype=torch.float64).mul(1.5).log_softmax(-1)
    return encoded, torch.tensor([frames, frames - 1, 2, frames]), logs


def every_text(logs, blank):
    """The probability of every label sequence of CTC, by its definition."""
    found = {}
    for path in product(range(logs.size(1)), repeat=len(logs)):
        text = tuple(label for label, _ in groupby(path) if label != blank)
        found[text] = found.get(text, 0.0) + math.exp(math.fsum(float(logs[t, v]) for t, v in enumerate(path)))
    return found


@pytest.mark.parametrize("blank", [0, 3])
@pytest.mark.parametrize("prefix", [(), (1,), (1, 1), (2, 1), (1, 2, 2)])
def test_the_prefix_score_is_the_sum_over_all_texts_that_begin_so(blank, prefix):
    _, lengths, logs = problem(classes=5)
    end = 4
    scores = PrefixScores(logs, lengths, width=2, blank=blank, end=end)

    for label in prefix:
        scores.say(torch.full((8,), label))
    longer = scores.longer()

    for row, frames in enumerate(lengths.repeat_interleave(2).tolist()):
        texts = every_text(logs[row // 2, :frames], blank)

        def begin(start, texts=texts):
            return sum(share for text, share in texts.items() if text[: len(start)] == start)

        assert float(scores.prefix_R[row].exp()) == pytest.approx(begin(prefix), abs=1e-12)
        for label in set(range(5)) - {blank, end}:
            wanted = begin((*prefix, label)) / begin(prefix) if begin(prefix) else 0.0
            assert float(longer[row, label].exp()) == pytest.approx(wanted, rel=1e-9, abs=1e-12)
        ends = texts.get(prefix, 0.0) / begin(prefix) if begin(prefix) else 0.0
        assert float(longer[row, end].exp()) == pytest.approx(ends, rel=1e-9, abs=1e-12)
        assert longer[row, blank] == -math.inf


def test_rows_of_prefixes_are_reordered_and_kept():
    _, lengths, logs = problem(classes=5)
    scores = PrefixScores(logs, lengths, width=2, blank=0, end=4)
    scores.say(torch.tensor([1, 2] * 4))
    scores.reorder(torch.tensor([1, 1, 2, 3, 5, 4, 6, 7]))
    scores.keep(torch.tensor([2, 0]))
    scores.say(torch.tensor([3, 1, 3, 3]))

    for row, (number, prefix) in enumerate([(2, (2, 3)), (2, (1, 1)), (0, (2, 3)), (0, (2, 3))]):
        texts = every_text(logs[number, : int(lengths[number])], 0)
        wanted = sum(share for text, share in texts.items() if text[:2] == prefix)
        assert float(scores.prefix_R[row].exp()) == pytest.approx(wanted, abs=1e-12)


def test_impossible_classes_and_no_frames_leave_no_numbers_that_are_none():
    logs = torch.tensor([[[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.5, 0.0, 0.5, 0.0]]] * 2).log()
    scores = PrefixScores(logs, torch.tensor([3, 0]), width=1, blank=0, end=3)

    assert scores.longer().exp().tolist() == [[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    scores.say(torch.tensor([1, 1]))
    assert scores.longer()[0].exp().tolist() == pytest.approx([0.0, 0.0, 0.5, 0.5])
    scores.say(torch.tensor([1, 1]))
    assert (scores.longer() == -math.inf).all()


@torch.no_grad()
def brute(model, encoded, logs, weight, fused):
    """Every text of at most three labels by the weighted sum, best first."""
    inputs = [text for length in range(4) for text in product(LABELS, repeat=length)]
    shares, found = every_text(logs, PAD), []
    for text in inputs:
        own = model(encoded[None], torch.tensor([len(encoded)]), torch.tensor([[BOS, *text]]))[0].log_softmax(-1)
        score = (1 - weight) * sum(float(own[at, label]) for at, label in enumerate((*text, EOS)))
        share = shares.get(text, 0.0)
        if weight:
            score += weight * math.log(share) if share else -math.inf
        found.append((text, score + fused(text)))
    return sorted(found, key=lambda one: -one[1])


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("with_fusion", [False, True])
def test_a_wide_beam_finds_the_best_texts_with_their_scores(weight, with_fusion):
    model, (encoded, lengths, logs) = head(), problem(frames=4)
    fusion = Fusion(HotWords([(4, 5), (6,)], 1.0), 0.8, 0.3) if with_fusion else None
    options = JointOptions(100, weight, limits=FEW, fusion=fusion)

    def fused(text):
        hot = sum(2 for at in range(len(text)) if text[at : at + 2] == (4, 5)) + text.count(6)
        return 0.8 * hot + 0.3 * len(text) if with_fusion else 0.0

    found = beam(model, encoded[1:3], lengths[1:3], options, logs[1:3])

    for number, one in enumerate(found, 1):
        frames = int(lengths[number])
        wanted = [
            text
            for text in brute(model, encoded[number, :frames], logs[number, :frames], weight, fused)
            if text[1] > -math.inf
        ][:20]
        assert [text.tokens for text in one[: len(wanted)]] == [text for text, _ in wanted]
        scores = [text.log_probability for text in one[: len(wanted)]]
        assert scores == pytest.approx([score for _, score in wanted], rel=1e-9)


@pytest.mark.parametrize("width", [1, 3])
def test_without_weight_and_fusion_it_is_the_beam_of_attention(width):
    model, (encoded, lengths, logs) = head(), problem()

    found = beam(model, encoded, lengths, JointOptions(width, 0.0), logs)

    wanted = attention.beam(model, encoded, lengths, width=width)
    assert [[one.tokens for one in several] for several in found] == [
        [one.tokens for one in several] for several in wanted
    ]
    for several, others in zip(found, wanted, strict=True):
        assert [one.score for one in several] == pytest.approx([one.score for one in others], rel=1e-12)
    assert beam(model, encoded, lengths, JointOptions(width, 0.0)) == found


@pytest.mark.parametrize("options", [JointOptions(3), JointOptions(3, 0.5, fusion=Fusion(HotWords([(4,)], 0.5)))])
def test_padding_and_company_change_no_hypothesis(options):
    model, (encoded, lengths, logs) = head(), problem(3)
    changed, others = encoded.clone(), logs.clone()
    for row, other, frames in zip(changed, others, lengths.tolist(), strict=True):
        row[frames:], other[frames:] = math.nan, math.nan

    together = beam(model, changed, lengths, options, others)

    for at, frames in enumerate(lengths.tolist()):
        part = slice(at, at + 1)
        alone = beam(model, encoded[part, :frames], lengths[part], options, logs[part, :frames])[0]
        assert [one.tokens for one in alone] == [one.tokens for one in together[at]]
        assert [one.score for one in alone] == pytest.approx([one.score for one in together[at]], rel=1e-9)


def test_the_best_is_never_below_the_path_of_a_beam_of_one():
    for seed in range(4):
        model, (encoded, lengths, logs) = head(seed), problem(seed)
        firsts = beam(model, encoded, lengths, JointOptions(1), logs)
        for width in (2, 4):
            found = beam(model, encoded, lengths, JointOptions(width), logs)
            for several, first in zip(found, firsts, strict=True):
                assert len(several) <= width
                assert several[0].score >= first[0].score - 1e-9


def test_no_frames_and_frames_that_are_not_numbers_say_nothing():
    model, (encoded, _, logs) = head(), problem()
    encoded[1, 1], logs[2, 0] = math.nan, math.nan
    lengths = torch.tensor([0, 3, 3, 3])

    found = beam(model, encoded, lengths, JointOptions(2), logs)

    assert [several[0].tokens for several in found[:3]] == [()] * 3
    assert [one[0].tokens for one in beam(model, encoded[:, :0], lengths * 0, JointOptions(2), logs[:, :0])] == [()] * 4
    assert beam(model, encoded[:0], lengths[:0], JointOptions(2), logs[:0]) == []


def test_what_is_not_normalised_and_what_is_missing_are_refused():
    model, (encoded, lengths, logs) = head(), problem()

    with pytest.raises(ValueError, match="needs log-probabilities"):
        beam(model, encoded, lengths, JointOptions(2), logs * 2)
    with pytest.raises(ValueError, match="but has none"):
        beam(model, encoded, lengths, JointOptions(2))
    with pytest.raises(ValueError, match="must be from 0 to 1"):
        JointOptions(2, 1.5)
