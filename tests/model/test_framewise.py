"""Laws of losses on alignments, against torch's cross entropy and the nodes of a whole lattice."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from etude.model.alignment.convert import of_ctc, to_transducer
from etude.model.alignment.linear import linear_alignment
from etude.model.alignment.result import NOWHERE
from etude.model.losses.framewise import Framewise, labels_before

LENGTHS = torch.tensor([5, 3, 0])
CLASSES = torch.tensor([[0, 2, 0, 2, 1], [3, 0, 0, NOWHERE, NOWHERE], [NOWHERE] * 5])


def logits(dtype=torch.float32):
    return torch.randn(3, 5, 4, dtype=dtype, generator=torch.Generator().manual_seed(1))


def real(values):
    return torch.cat([row[:frames] for row, frames in zip(values, LENGTHS.tolist(), strict=True)])


class Joined(nn.Module):
    """A joint network, which tells how many nodes it was asked for."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.out = nn.Linear(6, 4, dtype=torch.float64)
        self.nodes = 0

    def forward(self, encoded, said):
        found = self.out((encoded[:, :, None] + said[:, None]).tanh())
        self.nodes += found[..., 0].numel()
        return found


def parts():
    draw = torch.Generator().manual_seed(3)
    encoded = torch.randn(3, 5, 6, dtype=torch.float64, generator=draw)
    said = torch.randn(3, 4, 6, dtype=torch.float64, generator=draw)
    return encoded, said


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_it_is_torchs_cross_entropy_over_real_frames(smoothing):
    given = logits()

    loss = Framewise(smoothing)(given, CLASSES)

    wanted = F.cross_entropy(real(given), real(CLASSES), label_smoothing=smoothing, reduction="sum")
    torch.testing.assert_close(loss.sum, wanted, rtol=1e-6, atol=0)
    assert int(loss.count) == 8


def test_padding_has_no_gradient_and_evaluation_has_no_smoothing():
    given = logits().requires_grad_()

    Framewise(0.1)(given, CLASSES).sum.backward()

    assert (given.grad[CLASSES == NOWHERE] == 0).all()
    assert (given.grad[CLASSES != NOWHERE] != 0).all()
    assert Framewise(0.1).plain()(given, CLASSES).sum == Framewise()(given, CLASSES).sum


def test_a_batch_is_the_sum_of_its_members():
    given = logits(torch.float64)
    encoded, said = parts()
    joint = Joined().requires_grad_(False)

    whole = Framewise(0.1)(given, CLASSES), Framewise(0.1).along(joint, encoded, said, CLASSES)

    alone = [
        (
            Framewise(0.1)(given[at : at + 1, :frames], CLASSES[at : at + 1, :frames]),
            Framewise(0.1).along(
                joint, encoded[at : at + 1, :frames], said[at : at + 1], CLASSES[at : at + 1, :frames]
            ),
        )
        for at, frames in enumerate(LENGTHS.tolist())
    ]
    for kind in (0, 1):
        assert float(whole[kind].sum) == pytest.approx(math.fsum(float(one[kind].sum) for one in alone), rel=1e-12)
        assert int(whole[kind].count) == sum(int(one[kind].count) for one in alone)


def test_nothing_that_counts_is_no_loss():
    nowhere = torch.full((2, 3), NOWHERE)

    losses = [Framewise(0.1)(torch.zeros(2, 3, 4), nowhere), Framewise()(torch.zeros(0, 3, 4), nowhere[:0])]

    assert [(float(loss.value), int(loss.count)) for loss in losses] == [(0.0, 0)] * 2


def test_half_precision_is_summed_in_float32():
    assert Framewise()(logits().bfloat16(), CLASSES).sum.dtype == torch.float32


def test_frames_that_are_not_as_many_are_refused():
    with pytest.raises(ValueError, match=r"An alignment of \(3, 4\) sequences and frames cannot be that of logits"):
        Framewise()(logits(), CLASSES[:, :4])


def test_a_linear_alignment_is_a_target():
    found = linear_alignment(5, LENGTHS, torch.tensor([[1, 2], [3, 3], [0, 0]]), torch.tensor([2, 1, 0]))

    loss = Framewise()(logits(), found.classes)

    wanted = F.cross_entropy(real(logits()), torch.tensor([1, 1, 1, 2, 2, 3, 3, 3]), reduction="sum")
    torch.testing.assert_close(loss.sum, wanted, rtol=1e-6, atol=0)


def test_along_a_path_it_is_the_loss_of_the_nodes_of_the_whole_lattice():
    encoded, said = parts()
    joint = Joined()

    loss = Framewise(0.1).along(joint, encoded, said, CLASSES)

    assert joint.nodes == CLASSES.numel()
    lattice = joint(encoded, said)
    # Which node is which is counted here by hand: frame, labels said before it.
    nodes = [(0, 0, 0), (0, 1, 0), (0, 2, 1), (0, 3, 1), (0, 4, 2), (1, 0, 0), (1, 1, 1), (1, 2, 1)]
    found = torch.stack([lattice[node] for node in nodes])
    wanted = F.cross_entropy(found, real(CLASSES), label_smoothing=0.1, reduction="sum")
    torch.testing.assert_close(loss.sum, wanted, rtol=1e-12, atol=0)
    assert int(loss.count) == 8


def test_gradients_reach_encoder_prediction_and_joint():
    encoded, said = (one.requires_grad_() for one in parts())
    joint = Joined()

    Framewise().along(joint, encoded, said, CLASSES).sum.backward()

    assert (encoded.grad.abs().sum(-1) > 0).tolist() == (CLASSES != NOWHERE).tolist()
    assert (said.grad.abs().sum(-1) > 0).tolist() == [
        [True, True, True, False],
        [True, True, False, False],
        [False] * 4,
    ]
    assert all(parameter.grad.abs().sum() > 0 for parameter in joint.parameters())


def test_a_path_of_ctc_is_one_of_a_transducer_once_it_is_converted():
    path = of_ctc(torch.tensor([[9, 1, 1, 9, 1, 2, 2]]), blank=9)

    before = labels_before(to_transducer(path, blank=9).classes, blank=9)

    assert before.tolist() == [[0, 0, 1, 1, 1, 2, 3]]
