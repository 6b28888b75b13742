"""Laws of CTC search, against the sum over all paths of every label sequence."""

import math
from collections import defaultdict
from itertools import groupby, product

import pytest
import torch

from etude.search.ctc import Label, _prefixes, beam, greedy, timed


def merged(path, blank):
    return tuple(label for label, _ in groupby(path) if label != blank)


def every_text(logs, blank):
    """The probability of every label sequence, by its definition, most probable first."""
    found = defaultdict(float)
    for path in product(range(logs.size(1)), repeat=len(logs)):
        found[merged(path, blank)] += math.exp(math.fsum(float(logs[t, v]) for t, v in enumerate(path)))
    return sorted(((text, math.log(share)) for text, share in found.items()), key=lambda one: -one[1])


def textbook(logs, width, blank=0):
    """Prefix search as it is written down: the probabilities of paths that end with a blank, and with a label."""
    live = {(): (1.0, 0.0)}
    for frame in logs.exp().tolist():
        found = defaultdict(lambda: [0.0, 0.0])
        for prefix, (by_blank, by_label) in live.items():
            found[prefix][0] += (by_blank + by_label) * frame[blank]
            for label in set(range(len(frame))) - {blank}:
                if prefix[-1:] == (label,):
                    found[prefix][1] += by_label * frame[label]
                    found[*prefix, label][1] += by_blank * frame[label]
                else:
                    found[*prefix, label][1] += (by_blank + by_label) * frame[label]
        live = dict(sorted(found.items(), key=lambda one: -sum(one[1]))[:width])
    return list(live)


def problem(seed, classes=3):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(3, 5, classes, generator=draw).mul(1.5).log_softmax(-1), torch.tensor([5, 3, 4])


def spoken(path, sure=0.9, classes=4):
    """Frames that say this path."""
    rest = (1 - sure) / (classes - 1)
    return torch.tensor([[[sure if v == label else rest for v in range(classes)] for label in path]]).log()


@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("seed", range(3))
def test_a_wide_beam_finds_every_text_with_its_probability(seed, blank):
    logs, lengths = problem(seed)

    found = beam(logs, lengths, width=200, blank=blank)

    for one, row, frames in zip(found, logs, lengths.tolist(), strict=True):
        wanted = every_text(row[:frames], blank)
        assert [text.tokens for text in one] == [text for text, _ in wanted]
        assert [text.score for text in one] == pytest.approx([score for _, score in wanted], abs=1e-5)


@pytest.mark.parametrize("width", [1, 2, 3, 7])
def test_a_narrow_beam_keeps_the_prefixes_that_the_textbook_keeps(width):
    for seed in range(10):
        logs, _ = problem(seed, classes=5)
        for row in logs:
            assert _prefixes(row, width, 5, 0) == textbook(row, width)


@pytest.mark.parametrize("width", [1, 2, 4])
def test_the_best_of_a_beam_is_never_below_the_greedy_one(width):
    for seed in range(8):
        logs, lengths = problem(seed, classes=6)
        for best, first in zip(beam(logs, lengths, width=width), greedy(logs, lengths), strict=True):
            assert len(best) <= width
            assert best[0].score >= first.score
            assert [one.score for one in best] == sorted((one.score for one in best), reverse=True)


def test_a_beam_finds_what_is_spread_over_many_paths():
    # The best path is two blanks, 0.36; but label 1 has 0.4 * 0.6 * 2 + 0.16 = 0.64.
    logs = torch.tensor([[[0.6, 0.4], [0.6, 0.4]]]).log()

    first, best = greedy(logs, torch.tensor([2]))[0], beam(logs, torch.tensor([2]), width=2)[0]

    assert (first.tokens, math.exp(first.score)) == ((), pytest.approx(0.36))
    assert [one.tokens for one in best] == [(1,), ()]
    assert math.exp(best[0].score) == pytest.approx(0.64)


def test_greedy_merges_repeats_and_tells_frames_and_confidence():
    logs = spoken([0, 1, 1, 0, 1, 3, 3, 0])
    logs[0, 2] = torch.tensor([0.1, 0.5, 0.3, 0.1]).log()

    found = greedy(logs, torch.tensor([8]))[0]

    assert found.tokens == (1, 1, 3)
    assert [(one.start, one.end) for one in found.labels] == [(1, 3), (4, 5), (5, 7)]
    assert [one.confidence for one in found.labels] == pytest.approx([0.7, 0.9, 0.9])


def test_a_beam_tells_the_frames_of_the_best_path():
    logs = spoken([3, 1, 1, 3, 1, 0, 0, 3])

    found = beam(logs, torch.tensor([8]), width=3, blank=3)[0][0]

    assert found.tokens == (1, 1, 0)
    assert [(one.start, one.end) for one in found.labels] == [(1, 3), (4, 5), (5, 7)]
    assert all(one.confidence == pytest.approx(0.9) for one in found.labels)


def test_padding_and_company_do_not_change_a_transcript():
    logs, lengths = problem(4, classes=5)
    changed = logs.clone()
    for row, frames in zip(changed, lengths.tolist(), strict=True):
        row[frames:] = math.nan

    together = greedy(changed, lengths), beam(changed, lengths, width=3)

    for at, frames in enumerate(lengths.tolist()):
        alone = logs[at : at + 1, :frames], lengths[at : at + 1]
        assert greedy(*alone)[0] == together[0][at]
        assert beam(*alone, width=3)[0] == together[1][at]


def test_no_frames_say_nothing_for_certain_and_what_is_not_a_number_is_not_read():
    logs, _ = problem(0)
    logs[1, 1] = math.nan
    lengths = torch.tensor([0, 3, 5])

    found, best = greedy(logs, lengths), beam(logs, lengths, width=2)

    for one in (*found[:2], best[0][0], best[1][0]):
        assert (one.tokens, abs(one.score)) == ((), 0.0)
    assert greedy(logs[:, :0], torch.zeros(3, dtype=torch.int64))[0].tokens == ()


@pytest.mark.parametrize("search", [greedy, lambda *given: beam(*given, width=2)])
def test_what_is_not_normalised_is_refused(search):
    with pytest.raises(ValueError, match="needs log-probabilities"):
        search(torch.zeros(1, 3, 4), torch.tensor([3]))


def test_of_equal_classes_the_lowest_is_taken():
    logs = torch.full((1, 2, 4), 0.25).log()

    assert greedy(logs, torch.tensor([2]), blank=3)[0].labels == (Label(0, 0, 2, pytest.approx(0.25)),)


def test_classes_that_are_not_looked_at_may_still_be_repeated():
    logs = torch.tensor([[0.1, 0.8, 0.05, 0.05], [0.5, 0.2, 0.15, 0.15]]).log()[None]

    best = beam(logs, torch.tensor([2]), width=8, classes=1)[0]

    # 1 then blank or 1 again, as well as blank then 1: the sum is exact although 1 is second in the second frame.
    assert best[0].tokens == (1,)
    assert math.exp(best[0].score) == pytest.approx(0.8 * 0.7 + 0.1 * 0.2)


def test_given_labels_are_timed_as_the_beam_that_finds_them_times_them():
    logs, lengths = problem(2)
    found = [several[1] for several in beam(logs, lengths, width=4)]

    assert timed(logs, lengths, [one.tokens for one in found]) == found
    (misfit,) = timed(logs[:1], lengths[:1], [(1, 1, 1, 1)])
    assert (misfit.labels, misfit.score) == ((), -math.inf)
    assert timed(logs[:0], lengths[:0], []) == []


@pytest.mark.parametrize("search", [greedy, lambda *given: beam(*given, width=2)])
def test_of_no_sequence_nothing_is_found(search):
    logs, lengths = problem(0)

    assert search(logs[:0], lengths[:0]) == []
