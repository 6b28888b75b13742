"""Laws of alignments: the best of all paths, one by one."""

import math
from itertools import groupby, product

import pytest
import torch

from etude.model.alignment.ctc import ctc_alignment
from etude.model.alignment.linear import linear_alignment
from etude.model.alignment.result import NOWHERE, Span


def merged(path, blank):
    return [label for label, _ in groupby(path) if label != blank]


def best_path(logs, labels, blank):
    """The most probable of all paths that become the labels, and its log-probability."""
    every = [path for path in product(range(logs.size(1)), repeat=len(logs)) if merged(path, blank) == labels]
    scores = [math.fsum(float(logs[t, v]) for t, v in enumerate(path)) for path in every]
    best = max(range(len(every)), key=scores.__getitem__)
    return list(every[best]), scores[best]


def problem(seed=0, dtype=torch.float32):
    draw = torch.Generator().manual_seed(seed)
    logs = torch.randn(5, 6, 4, dtype=dtype, generator=draw).log_softmax(-1)
    targets = torch.tensor([[1, 2, 2], [3, 3, 9], [9, 9, 9], [2, 1, 3], [1, 9, 9]])
    return logs, torch.tensor([6, 3, 4, 3, 1]), targets, torch.tensor([3, 2, 0, 3, 1])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("blank", [0, 3])
def test_the_path_is_the_best_of_all_that_become_the_labels(seed, blank):
    logs, lengths, targets, target_lengths = problem(seed)
    targets = targets if blank == 0 else targets - 1

    found = ctc_alignment(logs, lengths, targets, target_lengths, blank=blank)

    for at, (frames, labels) in enumerate(zip(lengths.tolist(), target_lengths.tolist(), strict=True)):
        path, score = best_path(logs[at, :frames], targets[at, :labels].tolist(), blank)
        assert found.classes[at].tolist() == path + [NOWHERE] * (6 - frames)
        assert float(found.scores[at]) == pytest.approx(score, rel=1e-6)


def test_each_frame_tells_which_label_of_the_sequence_it_is_of():
    logs = torch.full((1, 7, 3), -9.0)
    for frame, label in enumerate([0, 1, 1, 0, 1, 2, 2]):
        logs[0, frame, label] = -0.1

    found = ctc_alignment(logs, torch.tensor([7]), torch.tensor([[1, 1, 2]]), torch.tensor([3]))

    assert found.indices.tolist() == [[NOWHERE, 0, 0, NOWHERE, 1, 2, 2]]
    assert found.spans() == [[Span(1, 1, 3), Span(1, 4, 5), Span(2, 5, 7)]]


def test_labels_that_do_not_fit_have_no_path():
    logs, _, targets, target_lengths = problem()

    found = ctc_alignment(logs, torch.tensor([3, 2, 0, 0, 0]), targets, target_lengths)

    assert found.scores.tolist() == [-math.inf, -math.inf, 0.0, -math.inf, -math.inf]
    assert found.spans() == [[], [], [], [], []]
    assert (found.classes == NOWHERE).all()


def test_no_frames_and_no_labels_are_an_empty_path():
    nothing = torch.zeros(2, dtype=torch.int64)

    found = ctc_alignment(torch.zeros(2, 0, 3), nothing, torch.zeros(2, 0, dtype=torch.int64), nothing)
    divided = linear_alignment(0, nothing, torch.zeros(2, 0, dtype=torch.int64), nothing)

    assert (found.classes.shape, found.scores.tolist()) == ((2, 0), [0.0, 0.0])
    assert (divided.classes.shape, divided.scores.tolist()) == ((2, 0), [0.0, 0.0])


def test_padding_and_company_do_not_change_a_path():
    logs, lengths, targets, target_lengths = problem()
    changed = logs.clone()
    for row, frames in zip(changed, lengths.tolist(), strict=True):
        row[frames:] = math.nan

    whole = ctc_alignment(changed, lengths, targets, target_lengths)

    for at, (frames, labels) in enumerate(zip(lengths.tolist(), target_lengths.tolist(), strict=True)):
        alone = ctc_alignment(
            logs[at : at + 1, :frames], lengths[at : at + 1], targets[at : at + 1, :labels], target_lengths[at : at + 1]
        )
        assert torch.equal(alone.classes[0], whole.classes[at, :frames])
        assert torch.equal(alone.scores[0], whole.scores[at])


def test_equal_paths_take_the_later_place_from_the_last_frame_back():
    found = ctc_alignment(torch.zeros(1, 5, 2), torch.tensor([5]), torch.tensor([[1]]), torch.tensor([1]))

    assert found.classes.tolist() == [[1, 0, 0, 0, 0]]


def test_half_precision_is_aligned_in_float32():
    logs, *rest = problem()

    found = ctc_alignment(logs.bfloat16(), *rest)

    assert found.scores.dtype == torch.float32
    assert torch.equal(found.classes, ctc_alignment(logs.bfloat16().float(), *rest).classes)


def test_a_linear_alignment_divides_the_frames_of_each_sequence_evenly():
    targets = torch.tensor([[4, 4, 6], [5, 9, 9], [9, 9, 9], [1, 2, 3]])

    found = linear_alignment(7, torch.tensor([7, 3, 4, 2]), targets, torch.tensor([3, 1, 0, 3]))

    assert found.indices[0].tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert found.spans() == [[Span(4, 0, 3), Span(4, 3, 5), Span(6, 5, 7)], [Span(5, 0, 3)], [], []]
    assert found.scores.tolist() == [0.0, 0.0, 0.0, -math.inf]


def test_every_label_of_a_linear_alignment_has_a_frame_where_there_are_as_many():
    for frames in range(1, 30):
        for labels in range(1, frames + 1):
            targets = torch.arange(labels)[None]

            spans = linear_alignment(frames, torch.tensor([frames]), targets, torch.tensor([labels])).spans()[0]

            sizes = [span.end - span.start for span in spans]
            assert [span.label for span in spans] == list(range(labels))
            assert (sum(sizes), max(sizes) - min(sizes) <= 1) == (frames, True)
