"""Laws of pooling: over real frames alone, and nothing of nothing."""

import numpy as np
import pytest
import torch

from etude.model.frames.pooling import build_pooling
from etude.model.initialisers import initialise

KINDS = ("mean", "attention", "last")
every_kind = pytest.mark.parametrize("kind", KINDS)
WIDTH = 6
LENGTHS = [0, 1, 2, 7]


def pooling_of(kind):
    pooling = build_pooling(kind, WIDTH)
    initialise(pooling, 1, {})
    return pooling.double().eval()


def sequences():
    draw = torch.Generator().manual_seed(3)
    return [torch.randn(length, WIDTH, generator=draw, dtype=torch.float64) for length in LENGTHS]


def padded(filling):
    batch = torch.full((len(LENGTHS), 9, WIDTH), filling, dtype=torch.float64)
    for row, sequence in zip(batch, sequences(), strict=True):
        row[: len(sequence)] = sequence
    return batch


def expected_of(kind, pooling, frames):
    """By the formula, one sequence at a time."""
    if not len(frames):
        return np.zeros(pooling.width)
    match kind:
        case "mean":
            return frames.mean(0)
        case "last":
            return frames[-1]
    weight, bias = pooling.inner.weight.detach().numpy(), pooling.inner.bias.detach().numpy()
    scores = np.tanh(frames @ weight.T + bias) @ pooling.score.weight.detach().numpy()[0]
    attention = np.exp(scores) / np.exp(scores).sum()
    mean = attention @ frames
    variance = attention @ frames**2 - mean**2
    return np.concatenate((mean, np.sqrt(np.maximum(variance, 1e-8))))


@every_kind
def test_it_is_what_the_formula_says_of_each_sequence_alone(kind):
    pooling = pooling_of(kind)

    pooled = pooling(padded(float("nan")), torch.tensor(LENGTHS)).detach().numpy()

    assert pooled.shape == (len(LENGTHS), pooling.width)
    for row, sequence in zip(pooled, sequences(), strict=True):
        np.testing.assert_allclose(row, expected_of(kind, pooling, sequence.numpy()), rtol=0, atol=1e-9)


@every_kind
def test_no_frames_give_zeros_and_no_slope_that_is_not_a_number(kind):
    pooling = pooling_of(kind)
    batch = padded(0.0).requires_grad_()

    pooled = pooling(batch, torch.tensor(LENGTHS))
    pooled.square().sum().backward()

    assert torch.equal(pooled[0], torch.zeros(pooling.width, dtype=torch.float64))
    assert torch.equal(batch.grad[0], torch.zeros_like(batch[0]))
    assert batch.grad.isfinite().all()
    assert pooling(batch[:, :0], torch.zeros(len(LENGTHS), dtype=torch.int64)).abs().sum() == 0


@every_kind
def test_bfloat16_frames_pool_to_nearly_the_same(kind):
    pooling, batch, lengths = pooling_of(kind).float(), padded(0.0).float(), torch.tensor(LENGTHS)
    exact = pooling(batch, lengths)

    with torch.autocast("cpu", torch.bfloat16):
        rough = pooling(batch.bfloat16(), lengths)

    assert (rough.float() - exact).norm() < 0.02 * exact.norm()
