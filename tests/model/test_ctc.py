"""Laws of CTC, against the sum over all paths and torch's own."""

import math
from itertools import groupby, product

import pytest
import torch
import torch.nn.functional as F

from etude.model.losses.ctc import Ctc, infeasible, least_frames

BLANK = 0


def merged(path, blank=BLANK):
    return [label for label, _ in groupby(path) if label != blank]


def paths(frames, classes, labels, blank=BLANK):
    return [path for path in product(range(classes), repeat=frames) if merged(path, blank) == labels]


def brute(logits, labels, blank=BLANK):
    """The loss by its definition."""
    logs = logits.double().log_softmax(-1).tolist()
    every = paths(len(logs), logits.size(1), labels, blank)
    return -math.log(math.fsum(math.exp(sum(logs[t][v] for t, v in enumerate(path))) for path in every))


def problem(dtype=torch.float64):
    draw = torch.Generator().manual_seed(3)
    logits = torch.randn(4, 6, 5, dtype=dtype, generator=draw).requires_grad_()
    targets = torch.tensor([[1, 2, 2, 4], [3, 3, 9, 9], [9, 9, 9, 9], [4, 1, 4, 9]])
    return logits, torch.tensor([6, 3, 5, 4]), targets, torch.tensor([4, 2, 0, 3])


def of_one(logits, labels, frames=None):
    frames = logits.size(0) if frames is None else frames
    return Ctc()(logits[None], torch.tensor([frames]), torch.tensor([labels]), torch.tensor([len(labels)]))


@pytest.mark.parametrize(("labels", "count", "value"), [([1, 2], 15, 1.686398954), ([1, 1], 5, 2.785011242)])
def test_uniform_frames_count_the_paths(labels, count, value):
    # Of 81 equal paths the share is count / 81; the published values are for these.
    found = of_one(torch.zeros(4, 3), labels)

    assert len(paths(4, 3, labels)) == count
    assert float(found.sum) == pytest.approx(math.log(81 / count), rel=1e-6)
    assert float(found.sum) == pytest.approx(value, abs=1e-6)


def test_the_loss_is_the_sum_over_all_paths_and_over_the_batch():
    logits, lengths, targets, target_lengths = problem()

    loss = Ctc()(logits, lengths, targets, target_lengths)

    wanted = [
        brute(logits[at, :frames].detach(), targets[at, :labels].tolist())
        for at, (frames, labels) in enumerate(zip(lengths.tolist(), target_lengths.tolist(), strict=True))
    ]
    assert float(loss.sum.detach()) == pytest.approx(math.fsum(wanted), rel=1e-12)
    assert int(loss.count) == 4


def test_values_and_gradients_are_torchs_also_with_another_blank():
    logits, lengths, targets, target_lengths = problem()
    targets = targets.clamp(max=4) - 1
    logs = logits.log_softmax(-1).transpose(0, 1)

    loss = Ctc(blank=4)(logits, lengths, targets, target_lengths)

    wanted = F.ctc_loss(logs, targets, lengths, target_lengths, blank=4, reduction="sum")
    torch.testing.assert_close(loss.sum, wanted)
    torch.testing.assert_close(torch.autograd.grad(loss.sum, logits), torch.autograd.grad(wanted, logits))


def test_the_gradient_is_the_slope():
    logits, lengths, targets, target_lengths = problem()

    assert torch.autograd.gradcheck(lambda x: Ctc()(x, lengths, targets, target_lengths).sum, logits)


def test_what_does_not_fit_is_left_out_of_sum_count_and_gradient():
    logits, _, targets, target_lengths = problem()
    lengths = torch.tensor([4, 3, 0, 2])

    loss = Ctc()(logits, lengths, targets, target_lengths)
    gradient = torch.autograd.grad(loss.sum, logits)[0]

    alone = brute(logits[1, :3].detach(), [3, 3])
    assert infeasible(lengths, targets, target_lengths).tolist() == [True, False, False, True]
    assert (float(loss.sum.detach()), int(loss.count)) == (pytest.approx(alone, rel=1e-12), 2)
    assert gradient.isfinite().all()
    assert gradient.flatten(1).any(1).tolist() == [False, True, False, False]


def test_a_batch_in_which_nothing_fits_is_nothing():
    logits = torch.zeros(1, 2, 3, requires_grad=True)

    loss = Ctc()(logits, torch.tensor([2]), torch.tensor([[1, 1]]), torch.tensor([2]))

    assert (float(loss.value.detach()), int(loss.count)) == (0.0, 0)
    assert not torch.autograd.grad(loss.value, logits)[0].any()


def test_no_frames_at_all_have_no_labels_for_certain():
    lengths = torch.zeros(2, dtype=torch.int64)

    loss = Ctc()(torch.zeros(2, 0, 3), lengths, torch.tensor([[1], [0]]), torch.tensor([1, 0]))

    assert (float(loss.sum), int(loss.count)) == (0.0, 1)


def test_repeats_beyond_a_target_need_no_frame():
    targets = torch.tensor([[1, 1, 1, 1], [2, 2, 3, 3], [1, 2, 1, 2]])

    assert least_frames(targets, torch.tensor([4, 3, 4])).tolist() == [7, 4, 4]
    assert least_frames(torch.zeros(2, 0, dtype=torch.int64), torch.tensor([0, 0])).tolist() == [0, 0]


def test_the_loss_is_in_float32_under_autocast():
    logits, lengths, targets, target_lengths = problem(torch.bfloat16)
    wide = Ctc()(logits.float(), lengths, targets, target_lengths)

    with torch.autocast("cpu", torch.bfloat16):
        loss = Ctc()(logits, lengths, targets, target_lengths)

    assert loss.sum.dtype == torch.float32
    assert torch.equal(loss.sum, wide.sum)


def test_padding_and_company_do_not_change_a_loss():
    logits, lengths, targets, target_lengths = problem(torch.float32)
    changed = logits.detach().clone()
    for row, frames in zip(changed, lengths.tolist(), strict=True):
        row[frames:] = 1e4

    whole = Ctc()(changed, lengths, targets, target_lengths)

    alone = [
        of_one(logits[at, :frames], targets[at, :labels].tolist()).sum
        for at, (frames, labels) in enumerate(zip(lengths.tolist(), target_lengths.tolist(), strict=True))
    ]
    torch.testing.assert_close(whole.sum, torch.stack(alone).sum())
