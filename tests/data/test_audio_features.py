"""Log-mel energies and cepstral coefficients, held against kaldi-native-fbank."""

import kaldi_native_fbank as knf
import numpy as np
import pytest
import torch

from etude.base.errors import ConfigError, DataError
from etude.data.audio.config import FeaturesConfig
from etude.data.audio.features import Extractor, StreamExtractor, frames_of
from etude.data.audio.mel import mel_bank

SIZES = (399, 400, 401, 1234, 8000)


def waves(sizes=SIZES, seed=0, level=0.1):
    drawn = np.random.default_rng(seed)
    return [torch.from_numpy(level * drawn.standard_normal(size, np.float32)) for size in sizes]


def kaldis(config, rate, wave, options=None):
    options = options or (knf.FbankOptions() if config.type == "logmel" else knf.MfccOptions())
    frame = options.frame_opts
    frame.samp_freq, frame.dither, frame.window_type = rate, 0, config.window_type.replace("hann", "hanning")
    frame.preemph_coeff, frame.remove_dc_offset = config.preemphasis, config.remove_dc
    frame.frame_length_ms, frame.frame_shift_ms = config.window, config.shift
    options.mel_opts.num_bins = config.mel_bins
    options.mel_opts.low_freq, options.mel_opts.high_freq = config.low_frequency, config.high_frequency
    if config.type == "mfcc":
        options.num_ceps, options.use_energy, options.cepstral_lifter = (
            config.coefficients,
            config.energy,
            config.lifter,
        )
    computer = (knf.OnlineFbank if config.type == "logmel" else knf.OnlineMfcc)(options)
    computer.accept_waveform(rate, (wave * config.scale).tolist())
    computer.input_finished()
    frames = [computer.get_frame(i) for i in range(computer.num_frames_ready)]
    return torch.tensor(np.array(frames, np.float32)).reshape(len(frames), config.width)


CONFIGS = [
    (16_000, FeaturesConfig(scale=1.0)),
    (16_000, FeaturesConfig(mel_bins=40, window_type="hamming", preemphasis=0.0, remove_dc=False)),
    (8_000, FeaturesConfig(mel_bins=40, window_type="hann", high_frequency=-200.0)),
    (8_000, FeaturesConfig(mel_bins=64, window_type="rectangular", window=32.0, shift=12.5)),
    (11_025, FeaturesConfig(mel_bins=30, low_frequency=64.0, high_frequency=5000.0)),
    (16_000, FeaturesConfig(type="mfcc", mel_bins=23, scale=1.0)),
    (16_000, FeaturesConfig(type="mfcc", mel_bins=40, coefficients=40, energy=False)),
    (8_000, FeaturesConfig(type="mfcc", mel_bins=23, energy=False, lifter=0.0)),
    (8_000, FeaturesConfig(type="mfcc", mel_bins=30, coefficients=20)),
]


@pytest.mark.parametrize(("rate", "config"), CONFIGS)
def test_features_are_kaldis(rate, config):
    recordings = waves()

    features, lengths = Extractor(config, rate).extract(recordings)

    expected = [kaldis(config, rate, wave) for wave in recordings]
    assert lengths == [len(frames) for frames in expected]
    torch.testing.assert_close(features, torch.cat(expected), rtol=0, atol=1e-3)


def test_a_sine_has_the_known_peak_at_either_scale():
    time = torch.arange(16_000, dtype=torch.float64) / 16_000
    sine = (0.5 * torch.sin(2 * torch.pi * 1000 * time)).float()

    (small, _), (large, _) = (
        Extractor(FeaturesConfig(scale=scale), 16_000).extract([sine]) for scale in (1.0, 32768.0)
    )

    assert small[10].argmax() == large[10].argmax() == 27
    assert small[10, 27].item() == pytest.approx(6.2595, abs=1e-4)
    assert (large - small)[10, 27].item() == pytest.approx(20.7944, abs=1e-4)


def test_only_whole_windows_are_framed():
    samples = [0, 1, 399, 400, 559, 560, 16_000]
    frames = [0, 0, 0, 1, 1, 2, 98]

    features, lengths = Extractor(FeaturesConfig(), 16_000).extract([torch.zeros(size) for size in samples])

    assert lengths == frames
    assert features.shape == (sum(frames), 80)
    assert [frames_of(size, 400, 160) for size in samples] == frames
    assert frames_of(np.array(samples), 400, 160).tolist() == frames
    assert frames_of(torch.tensor(samples), 400, 160).tolist() == frames


@pytest.mark.parametrize("kind", ["logmel", "mfcc"])
def test_a_batch_equals_its_members(kind):
    recordings = waves((400, 3000, 100, 0, 560, 480, 20_000, 700))
    extractor = Extractor(FeaturesConfig(type=kind), 16_000)
    warps = [1.0, 0.9, 1.1, 1.0, 0.9, 1.05, 1.0, 1.1]

    together, lengths = extractor.extract(recordings, warps)

    alone = torch.cat([extractor.extract([wave], [warp])[0] for wave, warp in zip(recordings, warps, strict=True)])
    assert sum(lengths) == len(alone)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_nothing_gives_no_frames():
    features, lengths = Extractor(FeaturesConfig(), 16_000).extract([])

    assert features.shape == (0, 80)
    assert lengths == []


def test_gain_moves_every_feature_by_the_same_in_quiet_audio():
    (wave,) = waves((4000,), level=0.01)
    extractor = Extractor(FeaturesConfig(), 16_000)

    (loud, _), (quiet, _) = extractor.extract([wave]), extractor.extract([wave * 0.01])

    torch.testing.assert_close(loud - quiet, torch.full_like(loud, 2 * np.log(100)), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("rate", "bins", "warp"), [(16_000, 80, 0.86), (16_000, 80, 1.16), (8_000, 23, 0.8), (8_000, 40, 1.1)]
)
def test_warped_filters_are_kaldis(rate, bins, warp):
    options, frame = knf.MelBanksOptions(), knf.FrameExtractionOptions()
    options.num_bins, frame.samp_freq = bins, rate
    fft = 512 * rate // 16_000

    bank = mel_bank(FeaturesConfig(mel_bins=bins), rate, fft, warp)

    expected = torch.tensor(knf.MelBanks(options, frame, warp).get_matrix())
    torch.testing.assert_close(bank.T, expected, rtol=0, atol=2e-4)


def test_a_warp_never_empties_a_filter():
    for warp in np.arange(0.7, 1.4, 0.02):
        assert (mel_bank(FeaturesConfig(mel_bins=64), 8_000, 256, warp).sum(0) > 0).all()


@pytest.mark.parametrize("pieces", [1, 7, 160, 399, 400, 5000])
@pytest.mark.parametrize("kind", ["logmel", "mfcc"])
def test_a_stream_gives_what_the_whole_recording_gives(pieces, kind):
    (wave,) = waves((1500 if pieces < 10 else 9000,))
    extractor = Extractor(FeaturesConfig(type=kind, mel_bins=40), 16_000)
    stream = StreamExtractor(extractor, warp=1.1)

    given = torch.cat([stream.push(piece) for piece in wave.split(pieces)])

    torch.testing.assert_close(given, extractor.extract([wave], [1.1])[0], rtol=1e-5, atol=1e-5)


def test_dither_is_the_same_alone_and_beside_others():
    recordings = [torch.zeros(800), torch.zeros(70_000)]
    extractor = Extractor(FeaturesConfig(dither=1.0), 16_000)

    together, (first, _) = extractor.extract(recordings)

    torch.testing.assert_close(together[first:], extractor.extract(recordings[1:])[0])
    assert together.std() > 0.1


@pytest.mark.parametrize(
    ("config", "rate", "said"),
    [
        (FeaturesConfig(mel_bins=200), 8_000, "features.mel_bins must be smaller at 8,000 Hz, but is 200"),
        (FeaturesConfig(high_frequency=8000.0), 8_000, "at most at 4000 Hz, half of the rate, but is 8000 Hz"),
        (FeaturesConfig(high_frequency=-4000.0), 8_000, "features.high_frequency must lie above 20 Hz"),
        (FeaturesConfig(shift=0.01), 8_000, "must be at least two samples and one, but are 200 and 0"),
    ],
)
def test_what_the_rate_does_not_allow_is_a_sentence(config, rate, said):
    with pytest.raises(ConfigError, match=said):
        Extractor(config, rate)


@pytest.mark.parametrize("wave", [torch.zeros(2, 500), torch.zeros(500, dtype=torch.int16)])
def test_what_is_no_wave_is_refused(wave):
    with pytest.raises(DataError, match="A wave must be a vector of floating-point samples"):
        Extractor(FeaturesConfig(), 8_000).extract([wave])


def test_the_config_reads_what_a_file_says():
    given = {"scale": 1, "normalise": False, "deviation": "off", "deltas": 2, "stack": 3}

    config = FeaturesConfig.model_validate(given)

    assert (config.scale, config.normalise, config.deviation) == (1.0, None, None)
    assert config.output_width == 80 * 3 * 3
    with pytest.raises(ValueError, match="must be 1 or 32768"):
        FeaturesConfig.model_validate({"scale": 100.0})


def test_more_coefficients_than_filters_are_refused():
    with pytest.raises(ValueError, match="coefficients must be at most mel_bins, 10, but is 13"):
        FeaturesConfig(type="mfcc", mel_bins=10)
