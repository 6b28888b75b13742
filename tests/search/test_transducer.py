"""Laws of transducer search, against a loop over frames and the sum over all ways of every label sequence."""

import math
from itertools import combinations, product

import pytest
import torch

from etude.model.frames.transducer import TransducerConfig, TransducerHead
from etude.model.initialisers import initialise
from etude.search.fusion import Fusion, LabelModel
from etude.search.transducer import beam, best_ways, greedy

WIDTH = 4
every_predictor = pytest.mark.parametrize("predictor", ["stateless", "lstm"])


def head(predictor="stateless", *, blank=0, vocabulary=4, seed=1, scale=3.0):
    config = TransducerConfig(predictor=predictor, d_model=5, joint=6, dropout=0.0)
    model = TransducerHead(config, WIDTH, vocabulary, blank)
    initialise(model, seed)
    with torch.no_grad():
        model.joint.output.weight *= scale
    return model.double().eval()


def problem(seed=0, frames=6):
    draw = torch.Generator().manual_seed(seed)
    encoded = torch.randn(4, frames, WIDTH, generator=draw, dtype=torch.float64).mul(2)
    return encoded, torch.tensor([frames, frames - 2, 1, frames])


def logs_after(model, frame, text):
    said = model.predictor(torch.tensor([text], dtype=torch.int64))[:, -1:]
    return model.joint(frame[None, None], said)[0, 0, 0].log_softmax(0)


@torch.no_grad()
def one_frame_after_another(model, encoded, most):
    """Greedy search as it is written down."""
    found = []
    for time, frame in enumerate(encoded):
        for _ in range(most):
            logs = logs_after(model, frame, [label for label, *_ in found])
            best = int(logs.argmax())
            if best == model.blank:
                break
            found.append((best, time, math.exp(float(logs[best]))))
    return found


@torch.no_grad()
def brute(model, encoded, text):
    """The log-probability of a text: the sum over all orders of labels among frames, the last move a blank."""
    logs = model(encoded[None], torch.tensor([text], dtype=torch.int64))[0].log_softmax(-1).tolist()
    ways = []
    for places in combinations(range(len(encoded) + len(text) - 1), len(text)):
        frame = said = 0
        way = 0.0
        for move in range(len(encoded) + len(text)):
            if move in places:
                way, said = way + logs[frame][said][text[said]], said + 1
            else:
                way, frame = way + logs[frame][said][model.blank], frame + 1
        ways.append(way)
    return math.log(math.fsum(map(math.exp, ways)))


@every_predictor
@pytest.mark.parametrize("blank", [0, 3])
@pytest.mark.parametrize("most", [1, 3])
def test_greedy_search_is_a_loop_over_frames(predictor, blank, most):
    said = 0
    for seed in range(2):
        model, (encoded, lengths) = head(predictor, blank=blank, seed=seed), problem(seed)

        found = greedy(model, encoded, lengths, most=most)

        for one, row, frames in zip(found, encoded, lengths.tolist(), strict=True):
            wanted = one_frame_after_another(model, row[:frames], most)
            assert [(label.label, label.start, label.confidence) for label in one.labels] == [
                (label, time, pytest.approx(share)) for label, time, share in wanted
            ]
            assert all(label.end == label.start + 1 for label in one.labels)
            said += len(wanted)
    assert said > 10


@every_predictor
def test_the_score_of_a_transcript_is_the_sum_over_all_ways(predictor):
    model, (encoded, lengths) = head(predictor), problem()

    found = greedy(model, encoded, lengths, most=2)

    for one, row, frames in zip(found, encoded, lengths.tolist(), strict=True):
        assert one.score == pytest.approx(brute(model, row[:frames], one.tokens), rel=1e-9)


@every_predictor
def test_padding_and_company_do_not_change_a_transcript(predictor):
    model, (encoded, lengths) = head(predictor), problem(3)
    changed = encoded.clone()
    for row, frames in zip(changed, lengths.tolist(), strict=True):
        row[frames:] = math.nan

    together = greedy(model, changed, lengths)

    for at, frames in enumerate(lengths.tolist()):
        alone = greedy(model, encoded[at : at + 1, :frames], lengths[at : at + 1])[0]
        assert alone.tokens == together[at].tokens
        assert alone.score == pytest.approx(together[at].score, rel=1e-12)


def test_no_frames_say_nothing_for_certain_and_what_is_not_a_number_is_not_read():
    model, (encoded, _) = head(), problem()
    encoded[1, 1] = math.nan

    found = greedy(model, encoded, torch.tensor([0, 3, 5, 5]))

    assert [(one.tokens, abs(one.score)) for one in found[:2]] == [((), 0.0)] * 2
    assert found[2].tokens
    none = greedy(model, encoded[:, :0], torch.zeros(4, dtype=torch.int64))
    assert [(one.tokens, abs(one.score)) for one in none] == [((), 0.0)] * 4
    assert greedy(model, encoded[:0], torch.zeros(0, dtype=torch.int64)) == []


def test_weights_that_are_not_numbers_say_nothing():
    model, (encoded, lengths) = head(), problem()
    with torch.no_grad():
        model.joint.output.bias[1] = math.nan

    found = greedy(model, encoded, lengths)

    assert [(one.tokens, abs(one.score)) for one in found] == [((), 0.0)] * 4


def test_a_frame_has_at_least_one_label_at_most():
    model, (encoded, lengths) = head(), problem()

    with pytest.raises(ValueError, match="must be at least 1"):
        greedy(model, encoded, lengths, most=0)


def every_text(model, encoded, longest):
    labels = [label for label in range(4) if label != model.blank]
    texts = (text for length in range(longest + 1) for text in product(labels, repeat=length))
    return sorted(((text, brute(model, encoded, text)) for text in texts), key=lambda one: -one[1])


@every_predictor
@pytest.mark.parametrize("blank", [0, 3])
def test_a_wide_beam_finds_the_best_texts_with_their_probabilities(predictor, blank):
    model, (encoded, _) = head(predictor, blank=blank, scale=2.0), problem(frames=3)
    with torch.no_grad():
        model.joint.output.bias[blank] = 3.0  # few labels, so that brute force sees all that matter
    lengths = torch.tensor([3, 2, 1, 3])

    found = beam(model, encoded, lengths, width=130, most=4)

    for one, row, frames in zip(found, encoded, lengths.tolist(), strict=True):
        wanted = every_text(model, row[:frames], 4)[:12]
        short = [text for text in one if len(text.tokens) <= 4]
        assert [text.tokens for text in short[:12]] == [text for text, _ in wanted]
        assert [text.score for text in short[:12]] == pytest.approx([score for _, score in wanted], rel=1e-9)


@every_predictor
@pytest.mark.parametrize("width", [1, 2, 4])
def test_the_best_of_a_beam_is_never_below_the_greedy_one(predictor, width):
    above = 0
    for seed in range(3):
        model, (encoded, lengths) = head(predictor, seed=seed), problem(seed)
        firsts = greedy(model, encoded, lengths)
        for found, first in zip(beam(model, encoded, lengths, width=width), firsts, strict=True):
            assert len(found) <= width
            assert found[0].score >= first.score - 1e-9
            assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
            above += found[0].score > first.score + 1e-6
    assert above


def textbook(model, encoded, width, most):
    """A beam with a limit of labels a frame as it is written down, a network asked for one prefix at a time."""
    live = {(): 1.0}
    for frame in encoded:
        level, over = live, {}
        for depth in range(most + 1):
            longer = {}
            for prefix, mass in level.items():
                shares = logs_after(model, frame, prefix).exp().tolist()
                over[prefix] = over.get(prefix, 0.0) + mass * shares[model.blank]
                if depth < most:
                    longer |= {
                        (*prefix, label): mass * share for label, share in enumerate(shares) if label != model.blank
                    }
            best = dict(sorted(longer.items(), key=lambda one: -one[1])[:width])
            floor = sorted(over.values(), reverse=True)[width - 1] if len(over) >= width else 0.0
            level = {prefix: mass for prefix, mass in best.items() if mass >= floor}
        live = dict(sorted(over.items(), key=lambda one: -one[1])[:width])
    return set(live)


@every_predictor
@torch.no_grad()
def test_a_narrow_beam_keeps_the_prefixes_that_the_textbook_keeps(predictor):
    for seed in range(2):
        model, (encoded, lengths) = head(predictor, seed=seed, scale=2.0), problem(seed)
        found, firsts = beam(model, encoded, lengths, width=3, most=2), greedy(model, encoded, lengths, most=2)

        for one, first, row, frames in zip(found, firsts, encoded, lengths.tolist(), strict=True):
            kept = textbook(model, row[:frames], 3, 2) | {first.tokens}
            assert {text.tokens for text in one} <= kept
            assert len(one) == min(3, len(kept))


@every_predictor
def test_padding_and_company_do_not_change_a_beam(predictor):
    model, (encoded, lengths) = head(predictor), problem(3)
    changed = encoded.clone()
    for row, frames in zip(changed, lengths.tolist(), strict=True):
        row[frames:] = math.nan

    together = beam(model, changed, lengths, width=3)

    for at, frames in enumerate(lengths.tolist()):
        alone = beam(model, encoded[at : at + 1, :frames], lengths[at : at + 1], width=3)[0]
        assert [one.tokens for one in alone] == [one.tokens for one in together[at]]
        assert [one.score for one in alone] == pytest.approx([one.score for one in together[at]], rel=1e-12)
        spans = [
            [(label.label, label.start) for one in found for label in one.labels] for found in (alone, together[at])
        ]
        assert spans[0] == spans[1]


def test_a_beam_of_no_frames_says_nothing_and_what_is_not_a_number_is_not_read():
    model, (encoded, _) = head(), problem()
    encoded[1, 1] = math.nan

    found = beam(model, encoded, torch.tensor([0, 3, 5, 5]), width=2)

    assert [[(one.tokens, abs(one.score)) for one in several] for several in found[:2]] == [[((), 0.0)]] * 2
    assert found[2][0].tokens
    with torch.no_grad():
        model.joint.output.bias[1] = math.nan
    broken = beam(model, encoded, torch.tensor([0, 3, 5, 5]), width=2)
    assert [[(one.tokens, abs(one.score)) for one in several] for several in broken] == [[((), 0.0)]] * 4


def test_the_frames_of_labels_are_those_of_the_best_way():
    draw = torch.Generator().manual_seed(2)
    blank, label = (torch.rand(3, 4, 4, generator=draw, dtype=torch.float64).log() for _ in range(2))
    texts = [(1, 1, 1), (1, 1), ()]

    found = best_ways(blank, label, texts)

    for row, text in enumerate(texts):
        ways = {}
        for frames in product(range(4), repeat=len(text)):
            if list(frames) == sorted(frames):
                said = [sum(frame <= time for frame in frames) for time in range(4)]
                ways[frames] = sum(float(blank[row, time, said[time]]) for time in range(4)) + sum(
                    float(label[row, frame, at]) for at, frame in enumerate(frames)
                )
        assert tuple(found[row]) == max(ways, key=ways.get)


@torch.no_grad()
def test_a_beam_tells_frames_and_their_probabilities():
    model, (encoded, lengths) = head(), problem(1)

    best = beam(model, encoded, lengths, width=3)[0][0]

    assert best.tokens
    for at, label in enumerate(best.labels):
        logs = logs_after(model, encoded[0, label.start], best.tokens[:at])
        assert label.end == label.start + 1
        assert label.confidence == pytest.approx(math.exp(float(logs[label.label])), rel=1e-9)


def test_fusion_that_forbids_everything_leaves_the_greedy_transcript():
    class Forbids(LabelModel):
        def start(self):
            return ()

        def score(self, state, label):
            return -math.inf, ()

        def end(self, state):
            return -math.inf

    model, (encoded, lengths) = head(), problem(1)

    found = beam(model, encoded, lengths, width=2, fusion=Fusion(Forbids()))

    firsts = greedy(model, encoded, lengths)
    for several, first in zip(found, firsts, strict=True):
        by_text = {one.tokens: one for one in several}
        assert by_text[first.tokens].score == pytest.approx(first.score)
        assert by_text[first.tokens].fused == -math.inf
