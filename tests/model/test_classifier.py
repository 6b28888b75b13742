"""The classifier: padding and neighbours change nothing, and its weighted loss is torch's."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from etude.model.classifier import TextClassifier
from etude.model.encoder import EmbeddingConfig, EncoderConfig
from etude.model.layers.pooling import masked_mean
from etude.model.losses.weighted import balanced_weights, weighted_cross_entropy
from etude.model.recurrent_encoder import RecurrentEncoder, RecurrentEncoderConfig

TEXTS = [[5, 6, 7, 3], [8, 3], [9, 4, 4, 4, 6, 7, 3]]
KINDS = [
    EncoderConfig(d_model=16, heads=2, layers=2, feedforward=32),
    EncoderConfig(d_model=16, heads=2, layers=1, feedforward=32, positions="rotary", norm="post"),
    EmbeddingConfig(d_model=16),
    RecurrentEncoderConfig(d_model=16, layers=2),
    RecurrentEncoderConfig(type="gru", d_model=16, bidirectional=False),
]
every_kind = pytest.mark.parametrize("config", KINDS, ids=["encoder", "rotary", "embedding", "lstm", "gru"])


def padded(texts, width):
    return torch.tensor([text + [0] * (width - len(text)) for text in texts])


@every_kind
def test_a_batch_equals_its_members_and_padding_changes_nothing(config):
    torch.manual_seed(0)
    model = TextClassifier(config, 12, 3).eval()

    together, wider = model(padded(TEXTS, 7)), model(padded(TEXTS, 19))
    alone = torch.cat([model(torch.tensor([text])) for text in TEXTS])

    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(wider, alone, rtol=0, atol=1e-5)


@every_kind
def test_the_gradient_of_a_batch_is_that_of_its_members(config):
    torch.manual_seed(0)
    model = TextClassifier(config, 12, 3).eval()
    labels = torch.tensor([0, 2, 1])

    def gradient(batches):
        model.zero_grad()
        for tokens, target in batches:
            F.cross_entropy(model(tokens), target, reduction="sum").backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    together = gradient([(padded(TEXTS, 11), labels)])
    alone = gradient([(torch.tensor([text]), labels[row : row + 1]) for row, text in enumerate(TEXTS)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_the_mean_is_of_real_places_and_zero_of_none():
    hidden = torch.tensor([[[1.0], [3.0], [100.0]], [[7.0], [7.0], [7.0]]])
    real = torch.tensor([[True, True, False], [False, False, False]])

    assert masked_mean(hidden, real).tolist() == [[2.0], [0.0]]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_weighted_loss_is_torchs(smoothing):
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 3), torch.tensor([0, 0, 0, 1, 1, 2])
    weights = balanced_weights(torch.bincount(labels))

    found = weighted_cross_entropy(logits, labels, weights, label_smoothing=smoothing)

    expected = F.cross_entropy(logits, labels, weight=weights, label_smoothing=smoothing)
    torch.testing.assert_close(found.value, expected)
    assert found.targets == 6
    exact = weighted_cross_entropy(logits.double(), labels, weights, label_smoothing=smoothing)
    torch.testing.assert_close(exact.value.float(), expected)


def test_balanced_weights_make_classes_count_alike():
    assert balanced_weights(torch.tensor([3, 2, 1])).tolist() == pytest.approx([6 / 9, 6 / 6, 6 / 3])
    assert balanced_weights(torch.tensor([3, 0, 1])).tolist() == pytest.approx([4 / 6, 0, 4 / 2])


def test_both_directions_are_torchs_packed_lstm():
    torch.manual_seed(0)
    encoder = RecurrentEncoder(RecurrentEncoderConfig(d_model=16, layers=1), 12).eval()
    lstm = nn.LSTM(16, 8, batch_first=True, bidirectional=True)
    for number, direction in enumerate(encoder.layers[0]):
        for name, parameter in direction.cell.named_parameters():
            getattr(lstm, name + "_reverse" * number).data.copy_(parameter)
    tokens = padded(TEXTS, 9)

    found = encoder(tokens)

    lengths = torch.tensor([len(text) for text in TEXTS])
    packed = nn.utils.rnn.pack_padded_sequence(
        encoder.embedding(tokens), lengths, batch_first=True, enforce_sorted=False
    )
    expected = nn.utils.rnn.pad_packed_sequence(lstm(packed)[0], batch_first=True)[0]
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(found[row, :length], expected[row, :length], rtol=0, atol=1e-6)
