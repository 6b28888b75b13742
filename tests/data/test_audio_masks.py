"""SpecAugment: fixed and adaptive masks."""

import numpy as np
import pytest
import torch

from etude.base.randomness import generator
from etude.data.audio import masks as policies
from etude.data.audio.masks import Masks


def fixed(features, masks, chance):
    return masked_by(policies.fixed, features, masks, chance)


def adaptive(features, masks, chance):
    return masked_by(policies.adaptive, features, masks, chance)


def masked_by(policy, features, masks, chance):
    masked = features.clone()
    policy(masked.numpy(), masks, chance)
    return masked


POLICIES = [fixed, adaptive]


def times(masked):
    return (masked == 0).all(1)


def bins(masked):
    return (masked == 0).all(0)


def stretches(hidden):
    return int(hidden[0]) + int((hidden[1:] & ~hidden[:-1]).sum())


@pytest.mark.parametrize("policy", POLICIES)
def test_whole_frames_and_whole_features_are_masked_and_nothing_else_changes(policy):
    features = torch.randn(120, 40, generator=torch.Generator().manual_seed(0))

    masked = policy(features, Masks(), generator(1, "masks"))

    hidden = times(masked)[:, None] | bins(masked)
    assert torch.equal(masked, features.masked_fill(hidden, 0))
    assert hidden.any()


@pytest.mark.parametrize("frames", [1, 9, 10, 40, 400])
def test_fixed_masks_are_as_wide_as_a_share_of_the_recording_at_most(frames):
    for seed in range(60):
        masked = fixed(torch.ones(frames, 40), Masks(frequency_masks=3), generator(seed, "masks"))

        assert times(masked).sum() <= 2 * int(0.1 * frames)
        assert stretches(times(masked)) <= 2
        assert bins(masked).sum() <= 3 * 8
        assert stretches(bins(masked)) <= 3


def test_fixed_masks_are_of_every_width_and_at_every_place():
    widths, hit = set(), torch.zeros(30)
    for seed in range(400):
        masked = fixed(torch.ones(30, 8), Masks(1, 0.2, 0, 0), generator(seed, "masks"))
        widths.add(int(times(masked).sum()))
        hit += times(masked)

    assert widths == {0, 1, 2, 3, 4, 5, 6}
    assert hit.min() > 0


def test_a_share_of_one_may_hide_everything_and_of_nothing_hides_nothing():
    everything = [fixed(torch.ones(5, 8), Masks(1, 1.0, 0, 0), generator(seed, "masks")) for seed in range(50)]

    assert any(not masked.any() for masked in everything)
    assert fixed(torch.ones(5, 8), Masks(2, 0.0, 2, 0.0), generator(1, "masks")).all()
    assert fixed(torch.ones(5, 8), Masks(0, 1.0, 0, 8.0), generator(1, "masks")).all()


@pytest.mark.parametrize(("frames", "most"), [(50, 8), (250, 8), (500, 20), (1000, 40)])
def test_the_number_of_adaptive_masks_over_time_grows_with_length(frames, most):
    # One frame wide, and features left alone: each mask is one frame.
    masks = Masks(4, 0.1, 0, 0, time_frames=1)

    found = [int(times(adaptive(torch.ones(frames, 8), masks, generator(seed, "m"))).sum()) for seed in range(600)]

    assert (min(found), max(found)) == (2, most)


@pytest.mark.parametrize(("strength", "least", "most"), [(1, 0, 2), (2, 1, 3), (4, 2, 5)])
def test_adaptive_masks_over_features_are_as_many_as_returnns(strength, least, most):
    masks = Masks(0, 0, strength, 1)

    found = [int(bins(adaptive(torch.ones(50, 40), masks, generator(seed, "masks"))).sum()) for seed in range(200)]

    assert (min(found), max(found)) == (least, most)


@pytest.mark.parametrize("frames", [9, 40, 1000])
def test_adaptive_masks_are_bounded_by_frames_and_by_the_recordings_length(frames):
    for seed in range(40):
        masked = adaptive(torch.ones(frames, 40), Masks(1, 0.1, 0, 0), generator(seed, "masks"))

        assert times(masked).sum() <= min(20, int(0.1 * frames)) * max(frames // 100, 2)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (2, 3), (300, 2)])
def test_short_and_narrow_recordings_are_masked_too(policy, shape):
    for seed in range(20):
        masked = policy(torch.ones(shape), Masks(6, 1.0, 6, 50), generator(seed, "masks"))

        assert masked.shape == shape
        assert set(np.unique(masked.numpy())) <= {0.0, 1.0}
