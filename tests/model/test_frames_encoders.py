"""Laws of every encoder of frames: lengths, padding, precision, first values, schedules."""

import numpy as np
import pytest
import torch
from torch import nn

from etude.model.frames.blstm import BlstmConfig
from etude.model.frames.cnn import CnnConfig
from etude.model.frames.conformer import ConformerConfig
from etude.model.frames.encoders import build_encoder, frames_after
from etude.model.frames.mlp import MlpConfig
from etude.model.initialisers import initialise

FEATURES = 5
FACTORS = (1, 2, 4, 6, 8)
SMALL = {"d_model": 8, "layers": 2, "subsample_channels": 3}
CONFORMER = {**SMALL, "heads": 2, "feedforward": 12, "kernel": 5}
KINDS = {
    "blstm": BlstmConfig(**SMALL),
    "lstm": BlstmConfig(**SMALL, bidirectional=False),
    "projected": BlstmConfig(**SMALL, projection=6, subsample="stack"),
    "conformer": ConformerConfig(**CONFORMER),
    "group": ConformerConfig(**CONFORMER, norm="group", groups=2),
    "causal": ConformerConfig(**CONFORMER, causal=True, chunk=3, left_context=1),
    "cnn": CnnConfig(**SMALL, kernel=3),
    "mlp": MlpConfig(widths=(7, 8), norm="layer"),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
SUBSAMPLING = [kind for kind in KINDS if kind != "mlp"]


def encoder_of(config, seed=1):
    encoder = build_encoder(config, FEATURES)
    initialise(encoder, seed, {})
    return encoder.double().eval()


def with_(config, **options):
    return type(config)(**{**dict(config), **options})


def frames(*shape, seed=3):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def alone_and_together(encoder, lengths, filling=float("nan")):
    """What each sequence gives by itself, and what they give in one batch whose padding is `filling`."""
    sequences = [frames(length, FEATURES, seed=length) for length in lengths]
    batch = torch.full((len(lengths), max(lengths) + 3, FEATURES), filling, dtype=torch.float64)
    for row, sequence in zip(batch, sequences, strict=True):
        row[: len(sequence)] = sequence
    with torch.no_grad():
        alone = [encoder(one[None], torch.tensor([len(one)])) for one in sequences]
        together = encoder(batch, torch.tensor(lengths))
    return alone, together


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("kind", SUBSAMPLING)
def test_a_sequence_in_a_batch_gives_what_it_gives_alone(kind, factor):
    encoder = encoder_of(with_(KINDS[kind], subsampling=factor))
    lengths = [*range(20), 31, 57, 83, 101]

    alone, (hidden, counts) = alone_and_together(encoder, lengths)

    for length, (one, count), row, own in zip(lengths, alone, hidden, counts.tolist(), strict=True):
        assert count.item() == own == one.size(1) == -(-length // factor)
        torch.testing.assert_close(row[:own], one[0], rtol=0, atol=1e-12)
        assert torch.equal(row[own:], torch.zeros_like(row[own:]))


@pytest.mark.parametrize("subsample", ["convolution", "stack"])
@pytest.mark.parametrize("factor", FACTORS)
def test_frames_of_all_lengths_to_400_are_those_of_torchs_own_convolutions(factor, subsample):
    config = CnnConfig(subsampling=factor, subsample=subsample)
    lengths = list(range(1, 401))
    strides = {1: (), 2: (2,), 4: (2, 2), 6: (2, 3), 8: (2, 2, 2)}[factor] if subsample == "convolution" else ()
    expected = []
    for length in lengths:
        value = torch.zeros(1, 1, length)
        for stride in strides:
            value = nn.functional.conv1d(value, torch.zeros(1, 1, 3), stride=stride, padding=1)
        expected.append(value.size(2) if strides else len(list(torch.zeros(length).split(factor))))

    ours = frames_after(config, torch.tensor(lengths))

    assert ours.tolist() == expected
    assert frames_after(config, np.array(lengths)).tolist() == expected
    assert [frames_after(config, length) for length in lengths] == expected


@pytest.mark.parametrize("kind", ["blstm", "group", "causal", "cnn"])
def test_every_length_to_400_gives_alone_what_it_gives_in_a_batch(kind):
    encoder = encoder_of(with_(KINDS[kind], d_model=4, layers=1, subsample_channels=1))

    alone, (hidden, _) = alone_and_together(encoder, range(1, 401))

    for (one, count), row in zip(alone, hidden, strict=True):
        torch.testing.assert_close(row[: count.item()], one[0], rtol=0, atol=1e-12)


@every_kind
def test_a_loss_of_a_batch_has_the_gradient_of_its_members(kind):
    encoder = encoder_of(KINDS[kind])
    lengths = torch.tensor([23, 0, 1, 9])
    batch = frames(4, 23, FEATURES)
    parameters = list(encoder.parameters())

    together = torch.autograd.grad(encoder(batch, lengths)[0].sin().sum(), parameters)

    each = [encoder(batch[i : i + 1, :n], lengths[i : i + 1])[0].sin().sum() for i, n in enumerate(lengths)]
    apart = torch.autograd.grad(sum(each), parameters)
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@every_kind
def test_no_frames_give_no_frames(kind):
    encoder = encoder_of(KINDS[kind])

    hidden, lengths = encoder(frames(2, 0, FEATURES), torch.tensor([0, 0]))

    assert hidden.shape == (2, 0, encoder.width)
    assert lengths.tolist() == [0, 0]


@every_kind
def test_parameters_follow_the_seed_and_the_names_alone(kind):
    one, other = build_encoder(KINDS[kind], FEATURES), build_encoder(KINDS[kind], FEATURES)

    initialise(one, 7, {})
    initialise(other, 7, {})

    for name, value in one.named_parameters():
        assert torch.equal(value, other.get_parameter(name)), name


@every_kind
def test_bfloat16_autocast_gives_nearly_the_same(kind):
    encoder = encoder_of(KINDS[kind]).float()
    batch, lengths = frames(3, 30, FEATURES).float(), torch.tensor([30, 17, 1])
    exact, _ = encoder(batch, lengths)

    with torch.autocast("cpu", torch.bfloat16):
        rough, _ = encoder(batch, lengths)
        rough.float().sin().sum().backward()

    assert (rough.float() - exact).norm() < 0.05 * exact.norm()
    assert all(parameter.grad.isfinite().all() for parameter in encoder.parameters())


RATES = {
    "blstm": ("dropout",),
    "conformer": ("dropout", "attention_dropout", "activation_dropout", "layer_drop"),
    "cnn": ("dropout",),
    "mlp": ("dropout",),
}


@pytest.mark.parametrize("kind", RATES)
def test_every_rate_may_be_a_schedule(kind):
    rising = {"schedule": "linear", "from": 0.0, "to": 0.5}
    config = with_(KINDS[kind], **dict.fromkeys(RATES[kind], rising))
    encoder = build_encoder(config, FEATURES)

    found = encoder.scheduled_values()

    assert [value.key for value in found] == [f"model.{rate}" for rate in RATES[kind]]
    assert all(value.apply(0.25) > 0 for value in found)
    rates = [part.rate for part in encoder.modules() if getattr(part, "kind", None) in RATES[kind]]
    assert set(rates) == {0.25}
