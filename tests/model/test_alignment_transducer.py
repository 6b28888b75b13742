"""Laws of a transducer's alignments: the best of all ways, one by one."""

import math
from functools import partial
from itertools import combinations, combinations_with_replacement

import pytest
import torch

from etude.model.alignment.result import NOWHERE
from etude.model.alignment.transducer import LabelFrames, rna_alignment, transducer_alignment
from etude.model.losses.transducer import Transducer

LENGTHS, COUNTS = torch.tensor([5, 3, 2, 4, 1]), torch.tensor([3, 3, 1, 0, 1])
TARGETS = torch.tensor([[1, 2, 2], [3, 1, 3], [2, 9, 9], [9, 9, 9], [1, 9, 9]])


def problem(seed=0, dtype=torch.float32):
    draw = torch.Generator().manual_seed(seed)
    moves = torch.randn(5, 5, 4, 2, dtype=dtype, generator=draw).mul(2).log_softmax(-1)
    return moves[..., 0].clone(), moves[..., 1].clone()


def way_of_graves(blank, label, frames):
    """The score of the labels in these frames, where a blank ends each."""
    said, score = 0, []
    for frame in range(len(blank)):
        while said < len(frames) and frames[said] == frame:
            score.append(float(label[frame, said]))
            said += 1
        score.append(float(blank[frame, said]))
    return math.fsum(score)


def way_of_rna(blank, label, frames):
    """The score of the labels in these frames, where each takes its own."""
    before = [sum(one < frame for one in frames) for frame in range(len(blank))]
    return math.fsum(float((label if t in frames else blank)[t, said]) for t, said in enumerate(before))


def best(ways, score):
    return max(((score(way), way) for way in ways), default=(-math.inf, ()))


@pytest.mark.parametrize("seed", range(6))
def test_the_way_is_the_best_of_all_with_any_number_of_labels_in_a_frame(seed):
    blank, label = problem(seed)

    found = transducer_alignment(blank, label, LENGTHS, COUNTS)

    for at, (frames, count) in enumerate(zip(LENGTHS.tolist(), COUNTS.tolist(), strict=True)):
        score, way = best(
            combinations_with_replacement(range(frames), count),
            partial(way_of_graves, blank[at, :frames], label[at, :frames]),
        )
        assert found.frames[at].tolist() == [*way, *[NOWHERE] * (3 - count)]
        assert float(found.scores[at]) == pytest.approx(score, rel=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_the_way_is_the_best_of_all_with_one_label_in_a_frame(seed):
    blank, label = problem(seed)

    found = rna_alignment(blank, label, LENGTHS, TARGETS, COUNTS, blank=7)

    for at, (frames, count) in enumerate(zip(LENGTHS.tolist(), COUNTS.tolist(), strict=True)):
        score, way = best(
            combinations(range(frames), count),
            partial(way_of_rna, blank[at, :frames], label[at, :frames]),
        )
        assert [(span.label, span.start, span.end) for span in found.spans()[at]] == [
            (one, frame, frame + 1) for one, frame in zip(TARGETS[at].tolist(), way, strict=False)
        ]
        assert found.classes[at, frames:].tolist() == [NOWHERE] * (5 - frames)
        assert (found.classes[at, :frames] == 7).sum() == frames - count
        assert float(found.scores[at]) == pytest.approx(score, rel=1e-6)


def test_the_best_way_is_less_probable_than_all_together():
    logits = torch.randn(3, 5, 4, 6, generator=torch.Generator().manual_seed(8)).mul(3)
    logs, targets = logits.log_softmax(-1), TARGETS[:3].clamp(max=5)
    labels = torch.cat((targets, targets[:, :1]), 1)
    label = logs.gather(3, labels[:, None, :, None].expand(-1, 5, -1, -1))[..., 0]

    found = transducer_alignment(logs[..., 0], label, LENGTHS[:3], COUNTS[:3])

    for at in range(3):
        cost = Transducer()(logits[at : at + 1], LENGTHS[at : at + 1], targets[at : at + 1], COUNTS[at : at + 1]).sum
        assert -float(cost) - math.log(math.comb(8, 3)) < float(found.scores[at]) < -float(cost)


def test_padding_and_company_do_not_change_a_way():
    blank, label = problem()
    changed = blank.clone(), label.clone()
    for at, (frames, count) in enumerate(zip(LENGTHS.tolist(), COUNTS.tolist(), strict=True)):
        for values, columns in zip(changed, (count + 1, count), strict=True):
            values[at, frames:] = math.nan
            values[at, :, columns:] = math.nan

    whole, one_each = (
        transducer_alignment(*changed, LENGTHS, COUNTS),
        rna_alignment(*changed, LENGTHS, TARGETS, COUNTS),
    )

    for at, (frames, count) in enumerate(zip(LENGTHS.tolist(), COUNTS.tolist(), strict=True)):
        lattice = blank[at : at + 1, :frames, : count + 1], label[at : at + 1, :frames, : count + 1]
        row, own = slice(at, at + 1), slice(0, count)
        alone = transducer_alignment(*lattice, LENGTHS[row], COUNTS[row])
        single = rna_alignment(*lattice, LENGTHS[row], TARGETS[row, own], COUNTS[row])
        assert torch.equal(alone.frames[0], whole.frames[at, :count])
        assert torch.equal(alone.scores[0], whole.scores[at])
        assert torch.equal(single.classes[0], one_each.classes[at, :frames])
        assert torch.equal(single.scores[0], one_each.scores[at])


def test_what_does_not_fit_has_no_path():
    blank, label = problem()
    lengths = torch.tensor([2, 0, 1, 0, 5])

    free, one_each = (
        transducer_alignment(blank, label, lengths, COUNTS),
        rna_alignment(blank, label, lengths, TARGETS, COUNTS),
    )

    assert free.scores.isinf().tolist() == [False, True, False, True, False]
    assert (free.frames[1] == NOWHERE).all()
    assert one_each.scores.isinf().tolist() == [True, True, False, False, False]
    assert (one_each.classes[:2] == NOWHERE).all()


def test_no_frames_at_all_are_looked_for_in_vain():
    lattice, nothing = torch.zeros(2, 0, 3), torch.zeros(2, dtype=torch.int64)

    free = transducer_alignment(lattice, lattice, nothing, torch.tensor([2, 0]))
    one_each = rna_alignment(lattice, lattice, nothing, torch.ones(2, 2, dtype=torch.int64), torch.tensor([2, 0]))

    assert (free.frames.tolist(), free.scores.tolist()) == ([[NOWHERE] * 2] * 2, [-math.inf] * 2)
    assert (one_each.classes.shape, one_each.scores.tolist()) == ((2, 0), [-math.inf, 0.0])


def test_of_equal_ways_labels_come_sooner():
    same, lengths, count = torch.zeros(1, 4, 3), torch.tensor([4]), torch.tensor([2])

    assert transducer_alignment(same, same, lengths, count).frames.tolist() == [[0, 0]]
    assert rna_alignment(same, same, lengths, torch.tensor([[5, 6]]), count).classes.tolist() == [[5, 6, 0, 0]]


@pytest.mark.parametrize(("given", "kept"), [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)])
def test_half_precision_is_aligned_in_float32_and_double_stays(given, kept):
    moves = [one.to(given) for one in problem()]

    assert transducer_alignment(*moves, LENGTHS, COUNTS).scores.dtype == kept
    assert rna_alignment(*moves, LENGTHS, TARGETS, COUNTS).scores.dtype == kept


def test_labels_in_one_frame_are_set_apart_without_changing_their_order():
    frames = torch.tensor([[0, 0, 3], [3, 3, 3], [1, 1, NOWHERE], [NOWHERE] * 3, [NOWHERE] * 3])
    free = LabelFrames(frames, torch.tensor([-1.0, -2.0, -3.0, -4.0, -math.inf]))

    found = free.apart(5, torch.tensor([5, 4, 2, 5, 5]), TARGETS, blank=0)

    assert found.classes.tolist() == [
        [1, 2, 0, 2, 0],
        [0, 3, 1, 3, NOWHERE],
        [2, 9, NOWHERE, NOWHERE, NOWHERE],
        [0] * 5,
        [NOWHERE] * 5,
    ]
    assert found.scores.tolist() == [-1.0, -2.0, -3.0, -4.0, -math.inf]


def test_more_labels_than_frames_cannot_be_set_apart():
    free = LabelFrames(torch.tensor([[0, 0], [0, 1]]), torch.zeros(2))

    found = free.apart(2, torch.tensor([1, 2]), torch.tensor([[4, 5], [4, 5]]), blank=0)

    assert found.classes.tolist() == [[NOWHERE, NOWHERE], [4, 5]]
    assert found.scores.tolist() == [-math.inf, 0.0]
