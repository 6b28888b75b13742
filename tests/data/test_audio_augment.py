"""All that is changed of a recording, drawn from (seed, epoch, sample)."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from etude.base.schedules import Linear
from etude.data.audio.augment import Augment, Keys
from etude.data.audio.config import STRENGTHS, AugmentConfig

EVERYTHING = AugmentConfig(
    speed=0.2, tempo=0.1, warp=0.15, shift=0.01, reverberation=0.5, gain=10.0, noise=0.7, masks="fixed"
)


def wave(size=4000):
    return 0.1 * torch.randn(size, generator=torch.Generator().manual_seed(0))


def key(seed, epoch, sample):
    return Keys(seed, epoch, np.array([sample]))


def changed_by(augment, samples, one):
    (changed,) = augment.waves([samples], one)
    return changed


def masked_by(augment, features, lengths, keys):
    masked = features.clone()
    augment.mask(masked, lengths, keys)
    return masked


def test_nothing_is_changed_unless_asked_for():
    augment, features = Augment(AugmentConfig(), 8_000), torch.ones(30, 8)
    samples = wave()

    assert changed_by(augment, samples, key(1, 2, 3)) is samples
    assert torch.equal(masked_by(augment, features, [30], key(1, 2, 3)), torch.ones(30, 8))
    assert augment.warps(key(1, 2, 3)).tolist() == [1.0]


@pytest.mark.parametrize("masks", ["fixed", "adaptive"])
def test_the_same_key_gives_the_same_and_another_key_another(masks):
    config = EVERYTHING.model_copy(update={"masks": masks})
    one, other = Augment(config, 8_000), Augment(config, 8_000)
    keys = [key(1, 2, 3), key(2, 2, 3), key(1, 3, 3), key(1, 2, 4)]
    for each in reversed(keys):
        other.waves([wave(700)], each)  # what was changed before does not matter

    changed = [changed_by(one, wave(), each) for each in keys]

    for each, expected in zip(keys, changed, strict=True):
        assert torch.equal(changed_by(other, wave(), each), expected)
        masked = [masked_by(augment, torch.ones(99, 40), [99], each) for augment in (one, other)]
        assert torch.equal(*masked)
        assert one.warps(each) == other.warps(each)
    assert len({tuple(part.tolist()) for part in changed}) == 4
    assert len({one.warps(each).item() for each in keys}) == 4


def test_a_recording_is_changed_alone_as_beside_others():
    augment, sizes = Augment(EVERYTHING, 8_000), [700, 4000, 90]
    samples, rows = Keys(1, 2, np.array([4, 7, 9])), [torch.ones(size // 10, 40) for size in sizes]

    together = augment.waves([wave(size) for size in sizes], samples)
    masked = masked_by(augment, torch.cat(rows), list(map(len, rows)), samples).split(list(map(len, rows)))

    for place, sample in enumerate(samples.samples.tolist()):
        assert torch.equal(together[place], changed_by(augment, wave(sizes[place]), key(1, 2, sample)))
        assert torch.equal(masked[place], masked_by(augment, rows[place], [len(rows[place])], key(1, 2, sample)))
        assert augment.warps(samples)[place] == augment.warps(key(1, 2, sample))


def test_lengths_are_known_before_anything_is_read():
    augment = Augment(EVERYTHING, 8_000)
    samples, lengths = np.array([5, 900, 0, 31]), np.array([4000, 1, 2500, 0])

    planned = augment.lengths(1, 7, samples, lengths)

    changed = augment.waves([wave(n) for n in lengths.tolist()], Keys(1, 7, samples))
    assert planned.tolist() == list(map(len, changed))
    assert planned[0] not in (planned[2], 4000)


def test_one_strength_does_not_change_what_is_drawn_for_another():
    gain, both = (Augment(AugmentConfig(gain=10.0, shift=shift), 8_000) for shift in (0.0, 0.01))

    louder, moved = (changed_by(augment, wave(), key(1, 2, 3)) for augment in (gain, both))

    overlap = np.correlate(moved.numpy(), louder.numpy(), "full")
    assert not torch.equal(louder, moved)
    assert moved.abs().max() == louder.abs().max()
    assert abs(np.argmax(overlap) - 3999) <= 80


def test_shares_say_how_many_recordings_are_changed():
    augment = Augment(AugmentConfig(noise=0.3), 8_000)
    samples = wave(50)

    noisy = sum(changed_by(augment, samples, key(1, 0, i)) is not samples for i in range(2000))

    assert noisy / 2000 == pytest.approx(0.3, abs=0.04)


def test_noise_keeps_its_range_below_the_recording():
    augment = Augment(AugmentConfig(noise=1.0, snr_low=5.0, snr_high=45.0), 8_000)
    samples = wave(1000)

    added = [changed_by(augment, samples, key(1, 0, i)) - samples for i in range(200)]

    below = [20 * torch.log10(samples.square().mean().sqrt() / part.square().mean().sqrt()).item() for part in added]
    assert 5 <= min(below) < 9
    assert 41 < max(below) <= 45.01


def test_gain_goes_both_ways():
    augment = Augment(AugmentConfig(gain=20.0), 8_000)

    levels = [20 * np.log10(changed_by(augment, torch.ones(2), key(1, 0, i))[0].item()) for i in range(300)]

    assert -20 <= min(levels) < -18
    assert 18 < max(levels) <= 20


def test_strengths_may_follow_schedules_and_are_nothing_until_they_are_set():
    rising = Linear(schedule="linear", peak=0.0, end=0.2)
    augment = Augment(AugmentConfig(speed=rising, noise=1.0), 8_000)
    (value,) = augment.scheduled_values()
    before = augment.lengths(1, 0, np.arange(5), np.full(5, 4000))

    value.apply(0.2)

    assert (value.key, value.name, value.spec, value.when) == ("augment.speed", "speed", rising, "epoch")
    assert before.tolist() == [4000] * 5
    fixed = Augment(AugmentConfig(speed=0.2), 8_000)
    assert augment.speeds(1, 0, np.arange(5)).tolist() == fixed.speeds(1, 0, np.arange(5)).tolist()


def test_every_strength_can_be_set_and_nothing_else():
    augment = Augment(AugmentConfig(), 8_000)

    for name in STRENGTHS:
        augment.set(name, 0.5)

    with pytest.raises(KeyError, match="rt60"):
        augment.set("rt60", 0.5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"speed": 1.0}, "less than 1"),
        ({"noise": 1.5}, "less than or equal to 1"),
        ({"rt60": (0.5, 0.1)}, r"rt60 must go from the least to the most, but is \[0.5, 0.1\]"),
        ({"snr_low": 50.0}, "snr_low must be at most snr_high, 45, but is 50"),
        ({"masks": "other"}, "'fixed' or 'adaptive'"),
    ],
)
def test_what_cannot_be_is_a_sentence(given, said):
    with pytest.raises(ValidationError, match=said):
        AugmentConfig(**given)
