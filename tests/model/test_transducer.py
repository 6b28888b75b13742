"""Laws of the transducer loss, against the sum over all ways, published cases, a closed form, and float64."""

import math
from itertools import combinations

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from etude.model.losses import transducer
from etude.model.losses.transducer import Transducer, frames_within, joint_bytes

# The two cases that warp-transducer is tested with: logits [B, T, U, V], labels, costs.
SMALL = [0.1, 0.6, 0.1, 0.1, 0.1, 0.1, 0.1, 0.6, 0.1, 0.1, 0.1, 0.1, 0.2, 0.8, 0.1]
SMALL += [0.1, 0.6, 0.1, 0.1, 0.1, 0.1, 0.1, 0.2, 0.1, 0.1, 0.7, 0.1, 0.2, 0.1, 0.1]
SMALL_GRADIENT = [-0.13116688, -0.3999269, 0.17703125, 0.17703125, 0.17703125]
SMALL_GRADIENT += [-0.18572757, 0.12247056, -0.18168412, 0.12247056, 0.12247056]
SMALL_GRADIENT += [-0.32091254, 0.06269141, 0.06928472, 0.12624499, 0.06269141]
SMALL_GRADIENT += [0.05456069, -0.21824276, 0.05456069, 0.05456069, 0.05456069]
SMALL_GRADIENT += [0.12073959, 0.12073959, -0.48295835, 0.12073959, 0.12073959]
SMALL_GRADIENT += [-0.6925882, 0.16871116, 0.18645467, 0.16871116, 0.16871116]
TWO = [0.065357, 0.787530, 0.081592, 0.529716, 0.750675, 0.754135, 0.609764, 0.868140, 0.622532, 0.668522, 0.858039]
TWO += [0.164539, 0.989780, 0.944298, 0.603168, 0.946783, 0.666203, 0.286882, 0.094184, 0.366674, 0.736168, 0.166680]
TWO += [0.714154, 0.399400, 0.535982, 0.291821, 0.612642, 0.324241, 0.800764, 0.524106, 0.779195, 0.183314, 0.113745]
TWO += [0.240222, 0.339470, 0.134160, 0.505562, 0.051597, 0.640290, 0.430733, 0.829473, 0.177467, 0.320700, 0.042883]
TWO += [0.302803, 0.675178, 0.569537, 0.558474, 0.083132, 0.060165, 0.107958, 0.748615, 0.943918, 0.486356, 0.418199]
TWO += [0.652408, 0.024243, 0.134582, 0.366342, 0.295830, 0.923670, 0.689929, 0.741898, 0.250005, 0.603430, 0.987289]
TWO += [0.592606, 0.884672, 0.543450, 0.660770, 0.377128, 0.358021]


def brute(logits, labels, blank=0):
    """The loss by its definition: all orders of labels among frames, the last move a blank."""
    logs = logits.double().log_softmax(-1).tolist()
    frames = logits.size(0)
    ways = []
    for places in combinations(range(frames + len(labels) - 1), len(labels)):
        frame = said = 0
        way = 0.0
        for move in range(frames + len(labels)):
            if move in places:
                way, said = way + logs[frame][said][labels[said]], said + 1
            else:
                way, frame = way + logs[frame][said][blank], frame + 1
        ways.append(way)
    return -math.log(math.fsum(map(math.exp, ways)))


def problem(dtype=torch.float64, *, frames=4, labels=3, classes=4):
    draw = torch.Generator().manual_seed(5)
    logits = torch.randn(4, frames, labels + 1, classes, dtype=dtype, generator=draw).requires_grad_()
    targets = torch.randint(1, classes, (4, labels), generator=draw)
    lengths = torch.tensor([frames, frames - 1, 1, frames])
    return logits, lengths, targets, torch.tensor([labels, labels - 1, labels, 0])


def of_one(logits, labels, blank=0):
    lengths = torch.tensor([logits.size(0)]), torch.tensor([labels], dtype=torch.int64), torch.tensor([len(labels)])
    return Transducer(blank)(logits[None], *lengths)


def test_the_published_small_case_has_its_cost_and_gradient():
    logits = torch.tensor(SMALL).view(2, 3, 5).requires_grad_()

    loss = of_one(logits, [1, 2])

    assert float(loss.sum.detach()) == pytest.approx(4.495666774, abs=1e-6)
    gradient = torch.autograd.grad(loss.sum, logits)[0]
    torch.testing.assert_close(gradient.flatten(), torch.tensor(SMALL_GRADIENT), rtol=0, atol=5e-7)


def test_the_published_case_of_two_has_its_costs():
    logits = torch.tensor(TWO).view(2, 4, 3, 3)

    costs = [float(of_one(one, labels).sum) for one, labels in zip(logits, ([1, 2], [1, 1]), strict=True)]
    both = Transducer()(logits, torch.tensor([4, 4]), torch.tensor([[1, 2], [1, 1]]), torch.tensor([2, 2]))

    assert costs == pytest.approx([4.280652859, 3.938436982], abs=1e-6)
    assert float(both.sum) == pytest.approx(sum(costs), rel=1e-6)


@pytest.mark.parametrize("blank", [0, 3])
def test_the_loss_is_the_sum_over_all_ways_and_over_the_batch(blank):
    logits, lengths, targets, target_lengths = problem()
    targets = targets if blank == 0 else targets - 1

    loss = Transducer(blank)(logits, lengths, targets, target_lengths)

    wanted = [
        brute(logits[at, :frames, : labels + 1].detach(), targets[at, :labels].tolist(), blank)
        for at, (frames, labels) in enumerate(zip(lengths.tolist(), target_lengths.tolist(), strict=True))
    ]
    assert float(loss.sum.detach()) == pytest.approx(math.fsum(wanted), rel=1e-12)
    assert int(loss.count) == 4


@pytest.mark.parametrize(("frames", "labels", "classes"), [(1, 0, 2), (1, 3, 3), (7, 1, 5), (40, 12, 30)])
def test_uniform_logits_cost_what_counting_the_ways_gives(frames, labels, classes):
    loss = of_one(torch.full((frames, labels + 1, classes), 3.0), [1] * labels)

    ways = math.comb(frames - 1 + labels, labels)
    assert float(loss.sum) == pytest.approx((frames + labels) * math.log(classes) - math.log(ways), rel=1e-6)


def test_the_gradient_is_the_slope():
    logits, lengths, targets, target_lengths = problem()

    assert torch.autograd.gradcheck(lambda x: Transducer()(x, lengths, targets, target_lengths).sum, logits)


def test_float32_keeps_five_digits_after_the_point_of_the_gradient():
    logits, *rest = problem(torch.float32, frames=80, labels=20, classes=12)
    wide = logits.detach().double().requires_grad_()

    found = torch.autograd.grad(Transducer()(logits, *rest).sum, logits)[0]

    wanted = torch.autograd.grad(Transducer()(wide, *rest).sum, wide)[0]
    assert (found - wanted).abs().max() < 2e-6


def test_padding_and_company_change_neither_loss_nor_gradient():
    logits, lengths, targets, target_lengths = problem(torch.float32)
    changed, targets = logits.detach().clone(), targets.clone()
    sizes = list(zip(lengths.tolist(), target_lengths.tolist(), strict=True))
    for at, (frames, labels) in enumerate(sizes):
        changed[at, frames:] = 1e4
        changed[at, :, labels + 1 :] = -1e4
        targets[at, labels:] = -7
    changed.requires_grad_()

    gradient = torch.autograd.grad(Transducer()(changed, lengths, targets, target_lengths).sum, changed)[0]

    for at, (frames, labels) in enumerate(sizes):
        alone = logits[at, :frames, : labels + 1].detach().requires_grad_()
        wanted = torch.autograd.grad(of_one(alone, targets[at, :labels].tolist()).sum, alone)[0]
        torch.testing.assert_close(gradient[at, :frames, : labels + 1], wanted)
        assert not gradient[at, frames:].any()
        assert not gradient[at, :, labels + 1 :].any()


def test_what_has_no_frame_is_left_out_of_sum_count_and_gradient():
    logits, lengths, targets, target_lengths = problem()
    some = torch.tensor([0, 3, 1, 0])

    loss = Transducer()(logits, some, targets, target_lengths)

    wanted = Transducer()(logits[1:3], some[1:3], targets[1:3], target_lengths[1:3])
    gradient = torch.autograd.grad(loss.sum, logits)[0]
    assert float((loss.sum - wanted.sum).detach()) == pytest.approx(0, abs=1e-12)
    assert (int(loss.count), gradient.flatten(1).any(1).tolist()) == (2, [False, True, True, False])
    none = Transducer()(logits[:, :0], torch.zeros_like(lengths), targets, target_lengths)
    assert (float(none.sum.detach()), int(none.count)) == (0.0, 0)


class Joint(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(3, 4, dtype=torch.float64)

    def forward(self, encoded, said):
        return self.out(torch.tanh(encoded[:, :, None] + said[:, None]))


@pytest.mark.parametrize("frames", [1, 3, 9])
def test_a_joint_made_in_pieces_gives_the_loss_and_gradients_of_the_whole(frames):
    draw = torch.Generator().manual_seed(1)
    encoded, said = (torch.randn(4, n, 3, dtype=torch.float64, generator=draw).requires_grad_() for n in (4, 4))
    joint = Joint()
    _, *rest = problem()
    inputs = (encoded, said, *joint.parameters())

    loss = Transducer().over(joint, encoded, said, *rest, frames=frames)

    whole = Transducer()(joint(encoded, said), *rest)
    torch.testing.assert_close(loss.sum, whole.sum)
    torch.testing.assert_close(torch.autograd.grad(loss.sum, inputs), torch.autograd.grad(whole.sum, inputs))


class Largest(TorchDispatchMode):
    """Watches how many numbers the largest new tensor has."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and not function.is_view:
            self.numbers = max(self.numbers, result.numel())
        return result


def test_the_forward_makes_nothing_as_large_as_the_logits(monkeypatch):
    logits, *rest = problem(torch.float32, frames=20, labels=4, classes=50)
    monkeypatch.setitem(transducer.PIECE_ELEMENTS, "cpu", 1000)

    with Largest() as largest:
        Transducer()(logits, *rest)

    assert largest.numbers <= 4 * 20 * 5 * 2 * 2  # two ways, two moves


def test_a_joint_in_pieces_is_never_held_whole():
    _, *rest = problem(frames=20, labels=4, classes=4)
    encoded, said = torch.randn(4, 20, 3, requires_grad=True), torch.randn(4, 5, 3, requires_grad=True)
    out = nn.Linear(3, 200)

    with Largest() as largest:
        loss = Transducer().over(lambda a, b: out(a[:, :, None] + b[:, None]), encoded, said, *rest, frames=2)
        loss.sum.backward()

    assert largest.numbers == 4 * 2 * 5 * 200


def test_pieces_of_the_softmax_change_no_bit(monkeypatch):
    logits, *rest = problem(torch.float32)
    whole = torch.autograd.grad(Transducer()(logits, *rest).sum, logits)[0]
    monkeypatch.setitem(transducer.PIECE_ELEMENTS, "cpu", 20)

    found = torch.autograd.grad(Transducer()(logits, *rest).sum, logits)[0]

    assert torch.equal(found, whole)


def test_the_loss_is_in_float32_under_autocast_and_its_gradient_as_wide_as_the_logits():
    logits, *rest = problem(torch.bfloat16)
    wide = Transducer()(logits.float(), *rest)

    with torch.autocast("cpu", torch.bfloat16):
        loss = Transducer()(logits, *rest)

    assert torch.equal(loss.sum, wide.sum)
    assert loss.sum.dtype == torch.float32
    assert torch.autograd.grad(loss.sum, logits)[0].dtype == torch.bfloat16


def test_evaluation_without_a_graph_costs_the_same():
    logits, *rest = problem()
    trained = Transducer()(logits, *rest)

    with torch.no_grad():
        loss = Transducer()(logits, *rest)

        pieces = Transducer().over(lambda part, _: part, logits, logits, *rest, frames=2)

    torch.testing.assert_close(loss.sum, trained.sum.detach(), rtol=1e-14, atol=0)
    torch.testing.assert_close(pieces.sum, trained.sum.detach(), rtol=1e-14, atol=0)


def test_the_limit_on_memory_gives_frames_whose_logits_and_gradient_fit():
    frames = frames_within(50_000_000, 8, 40, 500)

    assert 2 * joint_bytes(8, frames, 40, 500) <= 50_000_000 < 2 * joint_bytes(8, frames + 1, 40, 500)
    assert frames_within(1, 8, 40, 500) == 1
