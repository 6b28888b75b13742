"""A recogniser grows: its heads take what the encoder gives, in both directions."""

import pytest
import torch

from etude.model.frames.attention import AttentionConfig
from etude.model.frames.blstm import BlstmConfig
from etude.model.frames.encoders import build_encoder
from etude.model.frames.transducer import TransducerConfig
from etude.model.growth import Growth, plan_transfer
from etude.tasks.speech_recognition.framewise import FramewiseHead
from etude.tasks.speech_recognition.heads import AttendingHead, CtcHead, TransductionHead
from etude.tasks.speech_recognition.model import SpeechModel

NET2NET, ZEROS = Growth(new_weights="net2net"), Growth(new_weights="zeros_out")
LENGTHS = torch.tensor([12, 7])


def recogniser(width, classes=6, *, attention=8, heads=2, inner=8, joint=5):
    encoder = build_encoder(BlstmConfig(d_model=width, layers=2, subsampling=2, subsample_channels=3), 6)
    decoder = AttentionConfig(
        d_model=attention, heads=heads, layers=2, feedforward=inner, positions="rotary", tie_output=False
    )
    made = {
        "ctc": CtcHead(encoder.width, classes, 0),
        "framewise": FramewiseHead(encoder.width, classes, 0),
        "transducer": TransductionHead(TransducerConfig(d_model=4, joint=joint), encoder.width, classes, 0, 1 << 20),
        "attention": AttendingHead(decoder, encoder.width, classes),
    }
    model = SpeechModel(encoder, made).eval().double()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64), alpha=0.3)
    return model


def heard(model):
    """The logits of every head, of the first six classes."""
    features = torch.randn((2, 12, 6), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    labels = torch.tensor([[1, 2, 3], [4, 5, 1]])
    encoded, lengths = model(features, LENGTHS)
    heads = model.heads
    return {
        "ctc": heads["ctc"].output(encoded)[..., :6],
        "framewise": heads["framewise"].output(encoded)[..., :6],
        "transducer": heads["transducer"].network(encoded, labels)[..., :6],
        "attention": heads["attention"].network(encoded, lengths, labels)[..., :6],
    }


@pytest.mark.parametrize("how", [NET2NET, ZEROS])
def test_a_recogniser_grows_in_widths_and_labels(how):
    old, new = recogniser(3), recogniser(5, 9, inner=11, joint=8)

    plan_transfer(old, new, how).apply(old.state_dict(), new)

    torch.testing.assert_close(heard(new), heard(old), rtol=1e-6, atol=1e-6)


def test_attention_without_a_layer_before_it_takes_both_directions():
    old, new = recogniser(4), recogniser(8, attention=16, heads=4)  # as wide as the frames

    plan_transfer(old, new, NET2NET).apply(old.state_dict(), new)

    torch.testing.assert_close(heard(new), heard(old), rtol=1e-6, atol=1e-6)
