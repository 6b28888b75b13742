"""Laws of causal encoders: frames that come in pieces give what the whole gives, and nothing looks ahead."""

from itertools import pairwise

import pytest
import torch

from etude.base.errors import ConfigError
from etude.model.frames.blstm import BlstmConfig
from etude.model.frames.cnn import CnnConfig
from etude.model.frames.conformer import ConformerConfig
from etude.model.frames.encoders import build_encoder
from etude.model.frames.mlp import MlpConfig
from etude.model.initialisers import initialise

FEATURES = 5
LSTM = {"d_model": 8, "layers": 2, "subsample_channels": 3, "bidirectional": False}
CONFORMER = {"d_model": 8, "layers": 2, "subsample_channels": 3, "heads": 2, "feedforward": 12, "causal": True}
KINDS = {
    "lstm": BlstmConfig(**LSTM, subsampling=1),
    "lstm by 6": BlstmConfig(**LSTM, subsampling=6, projection=5),
    "lstm of stacks": BlstmConfig(**LSTM, subsampling=4, subsample="stack"),
    "frame by frame": ConformerConfig(**CONFORMER, kernel=4, subsampling=2),
    "chunks": ConformerConfig(**CONFORMER, kernel=5, chunk=3, left_context=2),
    "chunks alone": ConformerConfig(**CONFORMER, kernel=3, chunk=4, left_context=0, subsampling=6),
    "chunks of stacks": ConformerConfig(**CONFORMER, chunk=2, left_context=1, subsampling=8, subsample="stack"),
    "all before": ConformerConfig(**CONFORMER, kernel=3, chunk=2, subsampling=1),
    "mlp": MlpConfig(widths=(6,)),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def encoder_of(kind):
    encoder = build_encoder(KINDS[kind], FEATURES)
    initialise(encoder, 1, {})
    return encoder.double().eval()


def frames(*shape, seed=3):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_cuts(length, seed):
    """Lengths of pieces, some of them empty."""
    draw = torch.Generator().manual_seed(seed)
    cuts = torch.randint(length + 1, (int(torch.randint(12, (), generator=draw)),), generator=draw).sort().values
    edges = [0, *cuts.tolist(), length]
    return [after - before for before, after in pairwise(edges)]


@torch.no_grad()
def in_pieces(encoder, batch, pieces):
    state, outputs = encoder.stream(len(batch)), []
    parts = batch.split(pieces, dim=1)
    for index, part in enumerate(parts):
        output, state = encoder.advance(part, state, last=index + 1 == len(parts))
        outputs.append(output)
    return torch.cat(outputs, dim=1)


@pytest.mark.parametrize("length", [1, 2, 7, 24, 61])
@every_kind
def test_any_pieces_give_the_frames_of_the_whole(kind, length):
    encoder, batch = encoder_of(kind), frames(2, length, FEATURES)
    with torch.no_grad():
        whole, _ = encoder(batch, torch.tensor([length, length]))

    for seed in range(6):
        found = in_pieces(encoder, batch, random_cuts(length, seed))

        torch.testing.assert_close(found, whole, rtol=0, atol=1e-12)


@every_kind
def test_single_frames_give_the_frames_of_the_whole(kind):
    encoder, batch = encoder_of(kind), frames(1, 30, FEATURES)
    with torch.no_grad():
        whole, _ = encoder(batch, torch.tensor([30]))

    found = in_pieces(encoder, batch, [1] * 30)

    torch.testing.assert_close(found, whole, rtol=0, atol=1e-12)


def test_no_chunk_sees_a_later_one():
    encoder, batch = encoder_of("chunks"), frames(1, 48, FEATURES).requires_grad_()
    hidden, _ = encoder(batch, torch.tensor([48]))

    (gradient,) = torch.autograd.grad(hidden[:, :6].sin().sum(), batch)

    seen = gradient[0].abs().sum(1) > 0
    assert seen.tolist() == [True] * 21 + [False] * 27  # chunks of 12 frames; the last output frame begins at frame 20


def test_attention_sees_as_many_chunks_back_as_the_config_says():
    config = ConformerConfig(**{**CONFORMER, "layers": 1}, kernel=1, chunk=3, left_context=2, subsampling=1)
    encoder = build_encoder(config, FEATURES).double().eval()
    batch = frames(1, 18, FEATURES).requires_grad_()
    hidden, _ = encoder(batch, torch.tensor([18]))

    (gradient,) = torch.autograd.grad(hidden[:, 13].sin().sum(), batch)

    seen = gradient[0].abs().sum(1) > 0
    assert seen.tolist() == [False] * 6 + [True] * 9 + [False] * 3


def test_a_state_may_be_gone_on_with_twice():
    encoder, batch = encoder_of("chunks"), frames(1, 40, FEATURES)
    with torch.no_grad():
        _, state = encoder.advance(batch[:, :20], encoder.stream(), last=False)
        first, _ = encoder.advance(batch[:, 20:], state, last=True)
        second, _ = encoder.advance(batch[:, 20:], state, last=True)

    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (ConformerConfig(), "model.causal = true"),
        (BlstmConfig(), "model.bidirectional = false"),
        (CnnConfig(), "model.causal = true"),
    ],
    ids=["conformer", "blstm", "cnn"],
)
def test_an_encoder_that_looks_ahead_says_which_key_makes_it_causal(config, key):
    encoder = build_encoder(config, FEATURES)

    with pytest.raises(ConfigError, match=key):
        encoder.stream()
