import pytest
import torch

from etude.data.tokens.tokenizers import BOS, EOS, PAD
from etude.model.frames.attention import AttentionConfig
from etude.model.frames.transducer import TransducerConfig
from etude.tasks.speech_recognition.heads import AttendingHead, CtcHead, Searching, TransductionHead, shifted

WIDTH, CLASSES = 6, 9
SMALL = AttentionConfig(d_model=8, heads=2, layers=1, feedforward=16, dropout=0.0)


class Labels:
    targets = torch.tensor([[4, 5, 5], [6, PAD, PAD], [7, 8, PAD]])
    target_lengths = torch.tensor([3, 1, 2])


def encoded():
    torch.manual_seed(1)
    return torch.randn(3, 7, WIDTH), torch.tensor([7, 4, 0])


def heads(most=1 << 30):
    torch.manual_seed(2)
    return {
        "ctc": CtcHead(WIDTH, CLASSES, PAD),
        "transducer": TransductionHead(TransducerConfig(d_model=8, joint=8, dropout=0.0), WIDTH, CLASSES, PAD, most),
        "attention": AttendingHead(SMALL, WIDTH, CLASSES),
    }


@pytest.mark.parametrize("name", ["ctc", "transducer", "attention"])
def test_a_batch_loses_what_its_members_lose(name):
    frames, lengths = encoded()
    head, labels = heads()[name], Labels()

    whole = head.loss(frames, lengths, labels)

    total, count = 0.0, 0
    for row in range(3):
        one = Labels()
        one.targets = labels.targets[row : row + 1, : labels.target_lengths[row]]
        one.target_lengths = labels.target_lengths[row : row + 1]
        loss = head.loss(frames[row : row + 1, : lengths[row]], lengths[row : row + 1], one)
        total, count = total + float(loss.sum.detach()), count + int(loss.count)
    assert float(whole.sum.detach()) == pytest.approx(total, rel=1e-5)
    assert int(whole.count) == count


@pytest.mark.parametrize("name", ["ctc", "transducer", "attention"])
def test_a_sequence_without_frames_contributes_nothing(name):
    frames, lengths = encoded()

    loss = heads()[name].loss(frames, torch.zeros_like(lengths), Labels())

    assert float(loss.sum.detach()) == 0
    assert int(loss.count) == 0


def test_a_joint_in_pieces_gives_the_loss_and_gradient_of_the_whole():
    frames, lengths = encoded()
    results = []
    for most in (1 << 30, 1):
        head = heads(most)["transducer"]
        given = frames.clone().requires_grad_()
        loss = head.loss(given, lengths, Labels())
        loss.sum.backward()
        results.append((loss.sum.detach(), given.grad, head.network.joint.output.weight.grad))

    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["ctc", "transducer", "attention"])
@pytest.mark.parametrize("how", [Searching(), Searching(width=3)])
def test_a_batch_is_transcribed_as_its_members_are(name, how):
    frames, lengths = encoded()
    head = heads()[name].eval()

    together = head.search(frames, lengths, how)

    alone = [
        head.search(frames[row : row + 1, : lengths[row]], lengths[row : row + 1], how)[0] for row in range(len(frames))
    ]
    assert [[one.tokens for one in best] for best in together] == [[one.tokens for one in best] for best in alone]


def test_attention_is_given_bos_and_says_eos():
    given, wanted = shifted(Labels.targets, Labels.target_lengths)

    assert given.tolist() == [[BOS, 4, 5, 5], [BOS, 6, PAD, PAD], [BOS, 7, 8, PAD]]
    assert wanted.tolist() == [[4, 5, 5, EOS], [6, EOS, PAD, PAD], [7, 8, EOS, PAD]]
