"""The parts of encoders of frames compute what torch's, transformers' and the formulas' own do."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers.models.wav2vec2_conformer.configuration_wav2vec2_conformer import Wav2Vec2ConformerConfig
from transformers.models.wav2vec2_conformer.modeling_wav2vec2_conformer import Wav2Vec2ConformerSelfAttention

from etude.model.frames.blstm import Blstm, BlstmConfig
from etude.model.frames.conformer import ConformerConfig, ConvolutionModule, _spec
from etude.model.frames.depthwise import Depthwise, FramesGroupNorm
from etude.model.frames.encoders import build_encoder
from etude.model.frames.extent import real_frames
from etude.model.frames.mlp import Mlp, MlpConfig
from etude.model.frames.relative import RelativeAttention, relations
from etude.model.layers.dropout import LayerDrop

LENGTHS = torch.tensor([9, 1, 6])


def frames(*shape, seed=3):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_(module, seed=5):
    """Every parameter drawn anew, biases and scales too."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw, dtype=torch.float64) / 2)
    return module


@torch.no_grad()
def test_a_blstm_computes_what_torchs_packed_one_does():
    ours = Blstm(BlstmConfig(d_model=6, layers=2)).double().eval()
    theirs = nn.LSTM(6, 6, num_layers=2, bidirectional=True, batch_first=True).double()
    own = {
        f"{name}{end}": value
        for layer, part in enumerate(ours.layers)
        for side, end in ((part.ahead, ""), (part.back, "_reverse"))
        for name, value in ((f"{key[:-1]}{layer}", value) for key, value in side.cell.named_parameters())
    }
    theirs.load_state_dict(own)
    batch, real = frames(3, 9, 6), real_frames(LENGTHS, 9, torch.device("cpu"))

    hidden = ours(batch, real)

    packed, _ = theirs(pack_padded_sequence(batch, LENGTHS, batch_first=True, enforce_sorted=False))
    expected, _ = pad_packed_sequence(packed, batch_first=True)
    torch.testing.assert_close(hidden.masked_fill(~real[:, :, None], 0.0), expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_relative_attention_computes_what_transformers_conformer_does():
    spec = _spec(ConformerConfig(d_model=12, heads=3))
    ours = random_(RelativeAttention(spec).double().eval())
    config = Wav2Vec2ConformerConfig(
        hidden_size=12, num_attention_heads=3, attention_dropout=0.0, position_embeddings_type="relative"
    )
    theirs = Wav2Vec2ConformerSelfAttention(config).double().eval()
    for part, weight, bias in zip(
        (theirs.linear_q, theirs.linear_k, theirs.linear_v),
        ours.projection.weight.chunk(3),
        ours.projection.bias.chunk(3),
        strict=True,
    ):
        part.weight.copy_(weight)
        part.bias.copy_(bias)
    theirs.linear_out.load_state_dict(ours.output.state_dict())
    theirs.linear_pos.load_state_dict(ours.relation.state_dict())
    theirs.pos_bias_u.copy_(ours.content_bias.view(3, 4))
    theirs.pos_bias_v.copy_(ours.distance_bias.view(3, 4))
    batch, distances = frames(2, 7, 12), relations(7, 7, 12, frames(1))

    mixed = ours(batch, distances, torch.zeros(1, 1, 1, 7, dtype=torch.bool))

    expected = theirs(batch, relative_position_embeddings=distances[None])[0]
    torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"causal": True, "chunk": 4, "left_context": 3}], ids=["whole", "causal"])
def test_fused_attention_of_long_sequences_gives_what_plain_attention_does(options):
    config = ConformerConfig(d_model=8, heads=2, layers=1, feedforward=8, kernel=3, subsampling=1, **options)
    encoder = build_encoder(config, 4).double().eval()
    batch, lengths = frames(2, 190, 4), torch.tensor([190, 120])

    plain, _ = encoder(batch, lengths)  # with a gradient, plain attention holds for longer
    with torch.no_grad():
        fused, _ = encoder(batch, lengths)

    torch.testing.assert_close(fused, plain, rtol=0, atol=1e-12)


def test_relations_are_sines_and_cosines_of_falling_distances():
    found = relations(2, 4, 6, frames(1))

    distances = np.arange(3, -2, -1)[:, None] / 10_000.0 ** (np.arange(3) / 3)
    expected = np.concatenate((np.sin(distances), np.cos(distances)), axis=1)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-14)


@torch.no_grad()
def test_a_group_norm_is_torchs_own_of_each_sequence_alone():
    ours = random_(FramesGroupNorm(2, 6, 1e-6).double())
    theirs = nn.GroupNorm(2, 6, eps=1e-6).double()
    theirs.load_state_dict(ours.state_dict())
    batch = frames(3, 9, 6)
    batch[1, 1:] = float("nan")

    normed = ours(batch, real_frames(LENGTHS, 9, batch.device))

    for row, sequence, length in zip(normed, batch, LENGTHS.tolist(), strict=True):
        expected = theirs(sequence[None, :length].transpose(1, 2)).transpose(1, 2)
        torch.testing.assert_close(row[:length], expected[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
@torch.no_grad()
def test_a_depthwise_convolution_is_torchs_own_of_each_sequence_alone(causal):
    ours = random_(Depthwise(6, 5, causal=causal).double())
    batch = frames(3, 9, 6)

    convolved = ours(batch, real_frames(LENGTHS, 9, batch.device))

    for row, sequence, length in zip(convolved, batch, LENGTHS.tolist(), strict=True):
        padded = nn.functional.pad(sequence[None, :length].transpose(1, 2), (4, 0) if causal else (2, 2))
        torch.testing.assert_close(row[:length], ours.convolution(padded)[0].T, rtol=0, atol=1e-12)


@torch.no_grad()
def test_the_convolution_module_is_the_papers():
    config = ConformerConfig(d_model=6, heads=2, kernel=3)
    module = random_(ConvolutionModule(config, _spec(config)).double().eval())
    batch = frames(1, 9, 6)

    output = module(batch, real_frames(LENGTHS[:1], 9, batch.device))

    value, gate = module.inner(batch).chunk(2, dim=-1)
    gated = (value * torch.sigmoid(gate)).transpose(1, 2)
    depthwise = module.depthwise.convolution
    convolved = nn.functional.conv1d(gated, depthwise.weight, depthwise.bias, padding=1, groups=6).transpose(1, 2)
    normed = nn.functional.layer_norm(convolved, (6,), module.norm.weight, module.norm.bias, 1e-6)
    torch.testing.assert_close(output, module.outer(normed * torch.sigmoid(normed)), rtol=0, atol=1e-12)


@torch.no_grad()
def test_an_mlp_takes_vectors_and_frames_alike():
    mlp = Mlp(MlpConfig(widths=(7, 4), activation="tanh", norm="layer"), 5).double().eval()
    first, second = mlp.layers
    theirs = nn.Sequential(first.linear, first.norm, nn.Tanh(), second.linear, second.norm, nn.Tanh())
    batch = frames(3, 9, 5)

    torch.testing.assert_close(mlp(batch[:, 0]), theirs(batch[:, 0]), rtol=0, atol=1e-14)
    torch.testing.assert_close(mlp(batch)[:, 0], mlp(batch[:, 0]), rtol=0, atol=1e-14)


def test_a_conformer_layer_left_out_is_as_if_it_were_not_there():
    config = ConformerConfig(d_model=8, heads=2, layers=5, feedforward=8, dropout=0.0, layer_drop=0.5, subsampling=1)
    encoder = build_encoder(config, 4)
    batch, lengths = frames(2, 6, 4).float(), torch.tensor([6, 6])
    kept = (torch.rand(5, generator=torch.Generator().manual_seed(9)) >= 0.5).tolist()

    torch.manual_seed(9)
    hidden, _ = encoder.train()(batch, lengths)

    body = encoder.body
    assert isinstance(body.layer_drop, LayerDrop)
    assert 0 < sum(kept) < 5
    body.layers = nn.ModuleList([layer for layer, keep in zip(body.layers, kept, strict=True) if keep])
    assert torch.equal(hidden, encoder.eval()(batch, lengths)[0])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"d_model": 12, "heads": 5}, "heads must divide d_model"),
        ({"norm": "group", "groups": 7}, "groups must divide d_model"),
        ({"norm": "group", "causal": True}, 'norm must be "layer" with causal'),
        ({"kernel": 4}, "kernel must be odd"),
        ({"chunk": 4}, "need causal = true"),
        ({"left_context": 4}, "need causal = true"),
        ({"norm": "batch"}, "norm"),
        ({"subsampling": 3}, "subsampling"),
    ],
)
def test_a_conformer_that_cannot_be_is_refused(options, says):
    with pytest.raises(ValidationError, match=says):
        ConformerConfig(**options)
