"""What is changed of samples in training."""

import numpy as np
import pytest
import scipy.signal
import torch

from etude.base.randomness import generator
from etude.data.audio import perturb

RATE = 8000
FACTORS = [0.83, 0.9, 0.999, 1.0, 1.001, 1.1, 1.2]


def sine(hertz, size=RATE):
    return torch.sin(2 * torch.pi * hertz * torch.arange(size, dtype=torch.float64) / RATE).float()


def pitch(wave):
    """The frequency of the strongest part, in Hz."""
    spectrum = np.abs(np.fft.rfft(wave.numpy() * np.hanning(len(wave)), 1 << 18))
    return np.argmax(spectrum) * RATE / (1 << 18)


def decibels(ratio):
    return 20 * np.log10(float(ratio))


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("size", [0, 1, 2, 15, 100, 3333, 40_000])
def test_a_changed_length_is_the_one_that_was_planned(factor, size):
    wave = torch.randn(size, generator=torch.Generator().manual_seed(0))

    planned = perturb.length_after(np.array([size]), np.array([factor]))

    assert len(perturb.resampled(wave, factor)) == planned[0] == perturb.length_after(size, factor)
    assert len(perturb.retimed(wave, factor, RATE)) == planned[0]
    assert bool(planned[0]) == bool(size)


@pytest.mark.parametrize("factor", [0.83, 0.95, 1.2])
@pytest.mark.parametrize("hertz", [50, 440, 1000, 1900])
def test_speed_moves_a_sine_by_its_factor_exactly(factor, hertz):
    wave = sine(hertz)

    played = perturb.resampled(wave, factor)

    error = (played - sine(hertz * factor, len(played)))[20:-20]
    assert decibels(error.square().mean().sqrt() / 0.7071) < -45


@pytest.mark.parametrize(("hertz", "factor"), [(2500, 1.2), (3000, 0.9)])
def test_speed_keeps_the_level_up_to_three_quarters_of_the_range(hertz, factor):
    played = perturb.resampled(sine(hertz), factor)

    assert pitch(played) == pytest.approx(hertz * factor, abs=0.1)
    assert decibels(perturb.rms(played[50:-50]) / 0.7071) == pytest.approx(0, abs=0.6)


@pytest.mark.parametrize(("hertz", "factor"), [(3900, 1.2), (3700, 1.3)])
def test_speed_takes_off_what_would_lie_beyond_half_of_the_rate(hertz, factor):
    played = perturb.resampled(sine(hertz), factor)

    assert decibels(perturb.rms(played[50:-50]) / 0.7071) < -25


def test_speed_over_minutes_stays_in_step():
    wave = sine(1000, 3 * 60 * RATE)

    played = perturb.resampled(wave, 1.1)

    expected = torch.sin(2 * torch.pi * 1100 * torch.arange(len(played), dtype=torch.float64) / RATE).float()
    assert decibels((played - expected)[-5000:-50].square().mean().sqrt() / 0.7071) < -45


@pytest.mark.parametrize("factor", [0.83, 0.95, 1.05, 1.2])
@pytest.mark.parametrize("hertz", [120, 440, 1500])
def test_tempo_keeps_pitch_and_level(factor, hertz):
    played = perturb.retimed(sine(hertz), factor, RATE)

    assert pitch(played) == pytest.approx(hertz, rel=0.005)
    assert decibels(perturb.rms(played[400:-400]) / 0.7071) == pytest.approx(0, abs=0.5)


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_tempo_moves_events_by_its_factor(factor):
    wave = torch.zeros(2 * RATE)
    wave[10_000:10_400] = sine(700, 400)

    played = perturb.retimed(wave, factor, RATE)

    loud = torch.nonzero(played.abs() > 0.3)
    assert loud.float().mean().item() == pytest.approx(10_200 / factor, abs=0.02 * RATE)


def test_a_factor_of_one_changes_nothing():
    wave = sine(300)

    assert perturb.resampled(wave, 1.0) is wave
    assert perturb.retimed(wave, 1.0, RATE) is wave


def test_factors_do_not_depend_on_what_they_are_drawn_beside():
    samples = np.array([7, 100_000_000_000, 0, 7])

    factors = perturb.drawn_factors(0.2, samples, 1, "speed", 3)

    assert factors[0] == factors[3]
    assert factors.tolist() == [perturb.drawn_factors(0.2, samples[[i]], 1, "speed", 3)[0] for i in range(4)]


def test_factors_lie_evenly_around_one_on_a_logarithmic_scale():
    factors = perturb.drawn_factors(0.25, np.arange(50_000), 1, "speed", 0)

    shares = np.histogram(np.log(factors), 10, (-np.log(1.25), np.log(1.25)))[0] / 50_000
    assert np.abs(shares - 0.1).max() < 0.006
    assert shares.sum() == pytest.approx(1)


@pytest.mark.parametrize("samples", [0, 3, -3, 10, 11, -11])
def test_a_shift_keeps_the_length(samples):
    wave = torch.arange(1.0, 11.0)

    moved = perturb.shifted(wave, samples)

    expected = [wave[i - samples].item() if 0 <= i - samples < 10 else 0.0 for i in range(10)]
    assert moved.tolist() == expected
    assert len(perturb.shifted(torch.zeros(0), samples)) == 0


def test_gain_is_in_decibels():
    assert perturb.amplified(torch.ones(3), -20).tolist() == pytest.approx([0.1] * 3)


def test_reverberation_is_a_convolution_at_the_level_of_before():
    wave = torch.randn(3001, generator=torch.Generator().manual_seed(0)) * 0.1
    response = perturb.response(RATE, 0.3, 6.0, generator(1, "room"))

    heard = perturb.reverberated(wave, response)

    expected = scipy.signal.fftconvolve(wave.double().numpy(), response.double().numpy())[:3001]
    expected *= np.sqrt(np.mean(wave.double().numpy() ** 2) / np.mean(expected**2))
    np.testing.assert_allclose(heard.numpy(), expected, atol=2e-6)


def test_a_room_falls_by_sixty_decibels_in_its_time():
    response = perturb.response(RATE, 0.5, 6.0, generator(1, "room")).double().numpy()

    assert decibels(1 / np.sqrt(np.square(response[1:]).sum())) == pytest.approx(6, abs=1e-3)
    # Schroeder 1965: the energy still to come, integrated backwards, is a line in decibels.
    left = 10 * np.log10(np.cumsum(np.square(response[:0:-1]))[::-1])
    times = np.arange(len(left)) / RATE
    early = (left < left[0] - 5) & (left > left[0] - 35)
    assert -60 / np.polyfit(times[early], left[early], 1)[0] == pytest.approx(0.5, rel=0.08)


@pytest.mark.parametrize("colour", [0.0, 0.5, 1.0, 2.0])
def test_noise_has_the_colour_that_is_asked_for(colour):
    noise = perturb.noise(60_000, colour, generator(1, "noise"))

    frequencies, power = scipy.signal.welch(noise.numpy(), RATE, nperseg=2048)
    heard = (frequencies > 30) & (frequencies < 3500)
    slope = np.polyfit(np.log(frequencies[heard]), np.log(power[heard]), 1)[0]
    assert slope == pytest.approx(-colour, abs=0.08)
    assert perturb.rms(noise).item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("size", [1, 500, 100_000])
def test_noise_lies_below_the_recording_by_what_is_asked_for(size):
    wave = 0.01 * torch.randn(size, generator=torch.Generator().manual_seed(0))

    heard = perturb.noisy(wave, perturb.noise(size, 1.0, generator(1, "noise")), 12.0)

    assert decibels(perturb.rms(wave) / perturb.rms(heard - wave)) == pytest.approx(12, abs=0.01)


def test_silence_gets_no_noise():
    silence = torch.zeros(100)

    assert not perturb.noisy(silence, perturb.noise(100, 0.0, generator(1, "noise")), 0.0).any()
    assert not perturb.reverberated(silence, perturb.response(RATE, 0.1, 0.0, generator(1, "room"))).any()


def test_nothing_stays_nothing():
    nothing = torch.zeros(0)

    assert len(perturb.noisy(nothing, perturb.noise(0, 1.0, generator(1, "noise")), 0.0)) == 0
    assert len(perturb.reverberated(nothing, perturb.response(RATE, 0.1, 0.0, generator(1, "room")))) == 0


@pytest.mark.parametrize("size", [0, 2, 4, 6])
def test_a_mixture_is_as_long_as_the_first_wave(size):
    mixed = perturb.mixed(torch.ones(4), torch.full((size,), 3.0), 0.75)

    assert mixed.tolist() == [1.5] * min(size, 4) + [0.75] * max(0, 4 - size)
