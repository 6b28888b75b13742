"""Laws of a transducer along its aligned path, against a loop over its frames, and of all its ways."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from etude.data.tokens.tokenizers import PAD
from etude.model.frames.transducer import TransducerConfig
from etude.model.losses.transducer import rna_costs
from etude.search.transducer import lattices
from etude.tasks.speech_recognition.build import build_heads
from etude.tasks.speech_recognition.config import CtcConfig, FramewiseConfig, Headed, SumConfig, TransducerLossConfig
from etude.tasks.speech_recognition.framewise import PathHead
from etude.tasks.speech_recognition.heads import Searching, TransductionHead

WIDTH, CLASSES = 6, 9
LENGTHS = torch.tensor([7, 4, 0])
KINDS = ["stateless", "lstm"]


class Labels:
    targets = torch.tensor([[4, 5, 5], [6, PAD, PAD], [7, 8, PAD]])
    target_lengths = torch.tensor([3, 1, 2])
    frame_targets = torch.tensor([[0, 4, 0, 5, 5, 0, 0], [0, 0, 0, 6, -1, -1, -1], [-1] * 7])


def config(kind="stateless"):
    return TransducerConfig(predictor=kind, d_model=8, joint=8, dropout=0.0)


def head(kind="stateless", smoothing=0.0):
    torch.manual_seed(2)
    return PathHead(config(kind), WIDTH, CLASSES, PAD, smoothing)


def encoded():
    torch.manual_seed(1)
    return torch.randn(3, 7, WIDTH)


def by_frames(model, frames, classes, smoothing):
    """The cross entropy of each frame, the predictor led from label to label."""
    said, state = model.network.predictor.start(1, frames.device)
    losses = []
    for frame, label in zip(frames, classes, strict=True):
        logits = model.network.joint(frame[None, None], said[:, None])[0, 0]
        losses.append(F.cross_entropy(logits, label[None], label_smoothing=smoothing))
        if label != PAD:
            said, state = model.network.predictor.step(label[None], state)
    return losses


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_it_is_the_cross_entropy_of_each_frame_after_the_labels_before_it(kind, smoothing):
    model, frames = head(kind, smoothing), encoded()

    loss = model.loss(frames, LENGTHS, Labels())

    losses = [
        one
        for row, length in enumerate(LENGTHS.tolist())
        for one in by_frames(model, frames[row, :length], Labels.frame_targets[row, :length], smoothing)
    ]
    torch.testing.assert_close(loss.sum, torch.stack(losses).sum(), rtol=1e-5, atol=1e-5)
    assert int(loss.count) == len(losses) == 11
    torch.testing.assert_close(loss.value, loss.sum / 11)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_loses_what_its_members_lose(kind):
    model, frames = head(kind), encoded()

    whole = model.loss(frames, LENGTHS, Labels())

    total, count = 0.0, 0
    for row, (length, labels) in enumerate(zip(LENGTHS.tolist(), Labels.target_lengths.tolist(), strict=True)):
        one = Labels()
        one.targets, one.target_lengths = Labels.targets[row : row + 1, :labels], Labels.target_lengths[row : row + 1]
        one.frame_targets = Labels.frame_targets[row : row + 1, :length]
        loss = model.loss(frames[row : row + 1, :length], LENGTHS[row : row + 1], one)
        total, count = total + float(loss.sum.detach()), count + int(loss.count)
    assert float(whole.sum.detach()) == pytest.approx(total, rel=1e-5)
    assert int(whole.count) == count
    assert model.left_out(LENGTHS, Labels()).tolist() == [False, False, True]


def test_padding_has_no_gradient():
    model, frames = head("lstm"), encoded().requires_grad_()

    model.loss(frames, LENGTHS, Labels()).sum.backward()

    assert (frames.grad.abs().sum(-1) > 0).tolist() == (Labels.frame_targets >= 0).tolist()


def test_evaluation_is_without_smoothing():
    smoothed, plain = head(smoothing=0.1), head()

    assert smoothed.loss(encoded(), LENGTHS, Labels()).sum != plain.loss(encoded(), LENGTHS, Labels()).sum
    assert smoothed.eval().loss(encoded(), LENGTHS, Labels()).sum == plain.loss(encoded(), LENGTHS, Labels()).sum


def test_without_alignments_nothing_counts():
    labels = Labels()
    labels.frame_targets = None

    loss = head().loss(encoded(), LENGTHS, labels)

    assert (float(loss.sum.detach()), int(loss.count)) == (0.0, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_its_parameters_are_those_of_the_full_sum(kind):
    full = TransductionHead(config(kind), WIDTH, CLASSES, PAD, 1 << 30)
    given = head(kind).state_dict()

    full.load_state_dict(given)

    assert all(torch.equal(value, given[name]) for name, value in full.state_dict().items())


def test_what_is_probable_along_a_path_is_found_as_that_path_was():
    """A network that was led along one path says its labels, each in its frame, equal neighbours too."""
    model, frames, labels = head(), encoded(), Labels()
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(80):
        optimizer.zero_grad()
        model.loss(frames, LENGTHS, labels).value.backward()
        optimizer.step()

    found = [best[0] for best in model.eval().search(frames, LENGTHS, Searching())]

    assert [one.tokens for one in found] == [(4, 5, 5), (6,), ()]
    assert [label.start for label in found[0].labels] == [1, 3, 4]
    stream = model.stream(Searching(), torch.device("cpu"))
    assert [label.start for label in stream.push(frames[:1, :4]) + stream.push(frames[:1, 4:])] == [1, 3, 4]


def all_ways(blank, label, frames, labels):
    """The log of the sum over all choices of which frames have the labels, in order."""
    totals = []
    for chosen in itertools.combinations(range(frames), labels):
        total, said = 0.0, 0
        for frame in range(frames):
            total += float((label if frame in chosen else blank)[frame, said])
            said += frame in chosen
        totals.append(total)
    return -torch.tensor(totals, dtype=torch.float64).logsumexp(0) if totals else torch.tensor(math.inf)


def test_the_cost_of_labels_is_the_sum_over_all_their_frames():
    draw = torch.Generator().manual_seed(4)
    blank, label = torch.randn(2, 5, 6, 4, dtype=torch.float64, generator=draw).unbind()
    lengths, counts = torch.tensor([6, 4, 2, 0, 3]), torch.tensor([3, 1, 3, 0, 0])

    costs = rna_costs(blank, label, lengths, counts)

    wanted = [float(all_ways(*pair)) for pair in zip(blank, label, lengths.tolist(), counts.tolist(), strict=True)]
    assert costs.tolist() == pytest.approx(wanted, rel=1e-12, abs=1e-12)
    assert costs[2] == math.inf


def test_the_score_of_what_is_found_is_its_exact_log_probability():
    model, frames = head().eval(), encoded()

    found = [best[0] for best in model.search(frames, LENGTHS, Searching())]

    texts = [one.tokens for one in found]
    assert any(texts)
    with torch.no_grad():
        moves = lattices(model.network, frames, texts)
    for row, one in enumerate(found):
        parts = (part[row] for part in moves)
        assert one.score == pytest.approx(-float(all_ways(*parts, int(LENGTHS[row]), len(one.tokens))), rel=1e-9)


def names(loss):
    return list(build_heads(loss, Headed(), WIDTH, CLASSES))


def test_a_sum_may_hold_any_heads(tmp_path):
    linear = SumConfig(heads=("framewise", "ctc", "transducer", "attention"), alignments=tmp_path)
    along = SumConfig(heads=("ctc", "framewise"), alignments=tmp_path, head="transducer")
    alone = FramewiseConfig(alignments=tmp_path, head="transducer")

    assert names(linear) == ["framewise", "ctc", "transducer", "attention"]
    assert names(along) == ["ctc", "transducer"]
    assert names(alone) == names(TransducerLossConfig()) == ["transducer"]
    assert isinstance(build_heads(along, Headed(), WIDTH, CLASSES)["transducer"], PathHead)
    assert names(CtcConfig()) == ["ctc"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"heads": ("framewise", "ctc")}, 'alignments must be given for the head "framewise"'),
        ({"heads": ("attention", "ctc"), "alignments": "a"}, "and only for it"),
        ({"heads": ("transducer", "framewise"), "alignments": "a", "head": "transducer"}, "name each head once"),
    ],
)
def test_sums_that_contradict_themselves_are_refused(given, told):
    with pytest.raises(ValidationError, match=told):
        SumConfig(**given)
