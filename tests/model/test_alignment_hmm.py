"""Laws of frame-wise alignments and priors: the best of all paths, one by one."""

import math
from itertools import pairwise, product

import pytest
import torch

from etude.model.alignment.hmm import hmm_alignment, scaled
from etude.model.alignment.priors import LabelCounts
from etude.model.alignment.result import NOWHERE, Alignment, Span


def every_path(frames, labels, silence):
    """All ways to give each label a frame or more, in order, and silence any number: the index of each frame."""
    for path in product(range(-1, len(labels)), repeat=frames):
        said = [index for index in path if index >= 0]
        if said == sorted(said) and set(said) == set(range(len(labels))) and (silence is not None or -1 not in path):
            ways = [(at, index) for at, index in enumerate(path) if index >= 0]
            if all(b - a == 1 for (a, i), (b, j) in pairwise(ways) if i == j):
                yield path


def best_path(logs, labels, silence):
    """The best of them, and its score; of equal ones, from the last frame back, that of the later place."""
    every = {
        path: math.fsum(float(logs[at, silence if i < 0 else labels[i]]) for at, i in enumerate(path))
        for path in every_path(len(logs), labels, silence)
    }
    return max(every.items(), key=lambda one: (one[1], places(one[0])[::-1]))


def places(path):
    """2 i + 1 in label i, 2 i in the silence before it."""
    return [2 * index + 1 if index >= 0 else 2 * (max(path[:at], default=-1) + 1) for at, index in enumerate(path)]


def problem(seed=0, dtype=torch.float32):
    draw = torch.Generator().manual_seed(seed)
    logs = torch.randn(5, 6, 4, dtype=dtype, generator=draw).log_softmax(-1)
    targets = torch.tensor([[1, 2, 2], [3, 3, 9], [1, 1, 1], [2, 1, 3], [1, 9, 9]])
    return logs, torch.tensor([6, 5, 3, 4, 1]), targets, torch.tensor([3, 2, 3, 3, 1])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("silence", [None, 0, 3])
def test_the_path_is_the_best_of_all(seed, silence):
    logs, lengths, targets, target_lengths = problem(seed)
    targets = targets if silence == 0 or silence is None else targets - 1

    found = hmm_alignment(logs, lengths, targets, target_lengths, silence=silence)

    for at, (frames, count) in enumerate(zip(lengths.tolist(), target_lengths.tolist(), strict=True)):
        labels = targets[at, :count].tolist()
        path, score = best_path(logs[at, :frames], labels, silence)
        assert found.indices[at].tolist() == list(path) + [NOWHERE] * (6 - frames)
        assert found.classes[at].tolist() == [silence if i < 0 else labels[i] for i in path] + [NOWHERE] * (6 - frames)
        assert float(found.scores[at]) == pytest.approx(score, rel=1e-6)


def test_a_scaled_prior_changes_the_path_as_the_definition_says():
    logs, lengths, targets, target_lengths = problem(3, torch.float64)
    priors = torch.tensor([0.7, 0.1, 0.1, 0.1], dtype=torch.float64).log()
    plain = hmm_alignment(logs, lengths, targets, target_lengths, silence=0)

    found = hmm_alignment(scaled(logs, priors, 0.8), lengths, targets, target_lengths, silence=0)

    assert (found.classes == 0).sum() < (plain.classes == 0).sum()
    for at, (frames, count) in enumerate(zip(lengths.tolist(), target_lengths.tolist(), strict=True)):
        changed = logs[at, :frames] - 0.8 * priors
        path, score = best_path(changed, targets[at, :count].tolist(), 0)
        assert found.indices[at, :frames].tolist() == list(path)
        assert float(found.scores[at]) == pytest.approx(score, rel=1e-12)


def test_labels_that_do_not_fit_have_no_path():
    logs, _, targets, target_lengths = problem()

    found = hmm_alignment(logs, torch.tensor([2, 1, 3, 0, 0]), targets, target_lengths, silence=0)

    assert found.scores.isinf().tolist() == [True, True, False, True, True]
    assert found.spans() == [[], [], [Span(1, 0, 1), Span(1, 1, 2), Span(1, 2, 3)], [], []]
    assert (found.classes[[0, 1, 3, 4]] == NOWHERE).all()


@pytest.mark.parametrize(("silence", "scores"), [(None, [-math.inf, 0.0]), (2, [-3.0, 0.0])])
def test_no_labels_are_silence_where_there_is_one(silence, scores):
    logs = torch.full((2, 3, 4), -9.0)
    logs[..., 2] = -1.0
    nothing = torch.zeros(2, 0, dtype=torch.int64), torch.tensor([0, 0])

    found = hmm_alignment(logs, torch.tensor([3, 0]), *nothing, silence=silence)

    assert found.scores.tolist() == scores
    assert found.classes.tolist() == [[NOWHERE if silence is None else 2] * 3, [NOWHERE] * 3]


def test_no_frames_at_all_are_an_empty_path():
    nothing = torch.zeros(2, dtype=torch.int64)

    found = hmm_alignment(torch.zeros(2, 0, 3), nothing, torch.zeros(2, 0, dtype=torch.int64), nothing)

    assert (found.classes.shape, found.scores.tolist()) == ((2, 0), [0.0, 0.0])


@pytest.mark.parametrize("silence", [None, 0])
def test_padding_and_company_do_not_change_a_path(silence):
    logs, lengths, targets, target_lengths = problem()
    changed = logs.clone()
    for row, frames in zip(changed, lengths.tolist(), strict=True):
        row[frames:] = math.nan

    whole = hmm_alignment(changed, lengths, targets, target_lengths, silence=silence)

    for at, (frames, labels) in enumerate(zip(lengths.tolist(), target_lengths.tolist(), strict=True)):
        alone = hmm_alignment(
            logs[at : at + 1, :frames],
            lengths[at : at + 1],
            targets[at : at + 1, :labels],
            target_lengths[at : at + 1],
            silence=silence,
        )
        assert torch.equal(alone.classes[0], whole.classes[at, :frames])
        assert torch.equal(alone.scores[0], whole.scores[at])


def test_half_precision_is_aligned_in_float32_and_double_stays():
    logs, *rest = problem()

    assert hmm_alignment(logs.bfloat16(), *rest).scores.dtype == torch.float32
    assert hmm_alignment(logs.double(), *rest).scores.dtype == torch.float64


# -- priors --------------------------------------------------------------------------------------------------------


def test_priors_are_the_shares_of_the_frames_that_have_a_class():
    classes = torch.tensor([[0, 2, 2, NOWHERE], [0, 0, NOWHERE, NOWHERE]])

    counts = LabelCounts.of(Alignment(classes, classes, torch.zeros(2)), 4)

    assert counts.frames.tolist() == [3, 0, 2, 0]
    torch.testing.assert_close(counts.logs().exp(), torch.tensor([3, 1, 2, 1], dtype=torch.float64) / 7)
    torch.testing.assert_close(counts.logs(0.5).exp(), torch.tensor([3, 0.5, 2, 0.5], dtype=torch.float64) / 6)


def test_counts_of_parts_add_up_to_those_of_the_whole():
    logs, lengths, targets, target_lengths = problem()
    whole = hmm_alignment(logs, lengths, targets, target_lengths, silence=0)
    parts = [Alignment(*(part[at] for part in vars(whole).values())) for at in (slice(0, 2), slice(2, 5))]

    counts = LabelCounts.of(parts[0], 4) + LabelCounts.of(parts[1], 4)

    assert torch.equal(counts.frames, LabelCounts.of(whole, 4).frames)
    assert float(counts.frames.sum()) == float(lengths.sum())


def test_averaged_posteriors_are_those_of_real_frames():
    logs, lengths, *_ = problem(dtype=torch.float64)
    changed = logs.clone()
    for row, frames in zip(changed, lengths.tolist(), strict=True):
        row[frames:] = math.nan

    counts = LabelCounts.averaged(changed, lengths)

    frames = torch.cat([row[:count] for row, count in zip(logs, lengths.tolist(), strict=True)])
    torch.testing.assert_close(counts.logs(1e-9).exp(), frames.exp().mean(0), rtol=1e-12, atol=0)
    assert float(counts.frames.sum()) == pytest.approx(float(lengths.sum()), rel=1e-12)


def test_without_frames_all_classes_are_as_probable():
    counts = LabelCounts.averaged(torch.zeros(2, 0, 4), torch.zeros(2, dtype=torch.int64))

    assert counts.logs().exp().tolist() == [0.25] * 4


@pytest.mark.parametrize("floor", [0.0, -1.0, math.nan])
def test_a_floor_of_nothing_is_refused(floor):
    with pytest.raises(ValueError, match="floor must be positive"):
        LabelCounts(torch.ones(2)).logs(floor)


def test_what_cannot_be_scaled_is_refused():
    logs = torch.zeros(1, 2, 2)

    with pytest.raises(ValueError, match="needs a prior above 0"):
        scaled(logs, torch.tensor([0.0, -math.inf]), 0.5)
    with pytest.raises(ValueError, match="prior_scale must be a finite number, but is nan"):
        scaled(logs, torch.zeros(2), math.nan)
