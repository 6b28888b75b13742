"""Laws of transducer search, against a loop over frames and the sum over all ways of every label sequence."""

import math
from itertools import combinations

import pytest
import torch

from etude.model.frames.transducer import TransducerConfig, TransducerHead
from etude.model.initialisers import initialise
from etude.search.transducer import greedy

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
@pytest.mark.parametrize("most", [1, 2, 10])
def test_greedy_search_is_a_loop_over_frames(predictor, blank, most):
    said = 0
    for seed in range(4):
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
