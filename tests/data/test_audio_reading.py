import struct

import numpy as np
import pytest
import soundfile

from etude.data.audio.reading import (
    WHOLE,
    BadAudioError,
    Cut,
    Header,
    Listening,
    header_of,
    read_wave,
    resampled_length,
    samples_of,
)

RATE = 8000
WAVE = (0.5 * np.sin(np.arange(RATE) / 10)).astype(np.float32)
AS_IT_IS = Listening(RATE)


def written(folder, name="a.wav", wave=WAVE, **options):
    path = folder / name
    soundfile.write(path, wave, RATE, **options)
    return path


def heard(path, cut=WHOLE, how=AS_IT_IS):
    header_of(path)
    return read_wave(path, cut, how)


def why(path, cut=WHOLE, how=AS_IT_IS):
    with pytest.raises(BadAudioError) as bad:
        heard(path, cut, how)
    return str(bad.value)


@pytest.mark.parametrize(("name", "error"), [("a.wav", 2**-15), ("a.flac", 2**-15), ("a.ogg", 0.05), ("a.mp3", 0.05)])
def test_every_format_gives_the_samples_that_its_header_promises(tmp_path, name, error):
    path = written(tmp_path, name)

    wave = heard(path)

    assert header_of(path) == Header(RATE, len(WAVE), 1)
    assert wave.dtype == np.float32
    assert len(wave) == len(WAVE)
    assert np.abs(wave - WAVE)[200:-200].max() < error


def test_a_part_is_what_lies_between_its_times(tmp_path):
    path = written(tmp_path, subtype="FLOAT")

    part = heard(path, Cut(0.25, 0.5))

    assert np.array_equal(part, WAVE[2000:4000])


def test_an_end_that_was_rounded_is_the_end(tmp_path):
    path = written(tmp_path)

    assert len(heard(path, Cut(0.5, 1.004))) == RATE // 2


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        (Cut(0.5, 0.4), "start must be 0 or more and not behind end"),
        (Cut(-0.1, 0.4), "start must be 0 or more"),
        (Cut(0.0, 2.0), "end is 2 seconds, but the file has 1"),
        (Cut(1.5), "start must be 0 or more and not behind end"),
        (Cut(0.5, 0.5), "it holds no sample"),
        (Cut(0.0, float("nan")), "must be numbers of seconds"),
        (Cut(0.0, float("inf")), "must be numbers of seconds"),
    ],
)
def test_a_part_that_is_not_there_is_said_to_be_so(tmp_path, cut, said):
    assert said in why(written(tmp_path), cut)


def test_several_channels_are_refused_mixed_or_one_of_them_taken(tmp_path):
    path = written(tmp_path, wave=np.stack([WAVE, 0 * WAVE], 1), subtype="FLOAT")

    assert "has 2 channels" in why(path)
    assert "asks for number 3" in why(path, how=Listening(RATE, channel=3))
    assert np.allclose(heard(path, how=Listening(RATE, channel="mean")), WAVE / 2)
    assert np.array_equal(heard(path, how=Listening(RATE, channel=1)), WAVE)


def test_another_rate_is_refused_or_resampled_to_the_length_that_was_promised(tmp_path):
    path = written(tmp_path)
    wanted = Listening(16000, resample=True)

    assert "8,000 samples a second, but 16,000 are expected" in why(path, how=Listening(16000))
    assert len(heard(path, how=wanted)) == samples_of(header_of(path), Cut(), wanted) == 16000


@pytest.mark.parametrize("samples", [1, 2, 3, 7, 99, 8001])
@pytest.mark.parametrize(("rate", "wanted"), [(8000, 16000), (44100, 16000), (16000, 11025)])
def test_a_resampled_wave_is_as_long_as_was_said_before(tmp_path, samples, rate, wanted):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.resize(WAVE, samples), rate)

    assert len(heard(path, how=Listening(wanted, resample=True))) == resampled_length(samples, rate, wanted)


def test_a_resampled_tone_is_the_tone(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.sin(2 * np.pi * 440 * np.arange(48000) / 48000) / 2, 48000, subtype="FLOAT")

    wave = heard(path, how=Listening(16000, resample=True))

    tone = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000) / 2
    assert np.abs(wave - tone)[500:-500].max() < 1e-3


def test_a_truncated_wav_is_found_though_libsndfile_reads_it(tmp_path):
    path = written(tmp_path)
    path.write_bytes(path.read_bytes()[:8000])

    assert "truncated: its header promises 16,000 bytes" in why(path)


def test_a_header_that_lies_is_found(tmp_path):
    path = written(tmp_path)
    content = bytearray(path.read_bytes())
    content[40:44] = struct.pack("<I", 1 << 30)
    path.write_bytes(content)

    assert "its header promises 1,073,741,824 bytes" in why(path)


def test_a_wav_that_was_streamed_is_read_to_its_end(tmp_path):
    path = written(tmp_path)
    content = bytearray(path.read_bytes())
    content[40:44] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(content)

    assert len(heard(path)) == len(WAVE)


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.mp3"])
def test_truncated_files_of_every_format_are_bad(tmp_path, name):
    path = written(tmp_path, name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    assert why(path)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.aiff", {}),
        ("a.au", {}),
        ("a.w64", {}),
        ("a.caf", {}),
        ("a.wav", {"format": "RF64"}),
        ("a.wav", {"endian": "BIG"}),
    ],
)
@pytest.mark.parametrize("share", [0.5, 0.97])
def test_truncated_files_that_libsndfile_reads_without_a_word_are_bad(tmp_path, name, options, share):
    path = written(tmp_path, name, **options)
    assert len(heard(path)) == len(WAVE)

    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    assert "truncated" in why(path) or "is not audio that can be read" in why(path)


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "the file is empty"), (b"hello, this is text", "is not audio that can be read")]
)
def test_what_is_no_audio_is_said_to_be_none(tmp_path, content, said):
    path = tmp_path / "a.wav"
    path.write_bytes(content)

    assert said in why(path)


def test_samples_that_are_no_numbers_are_bad(tmp_path):
    path = written(tmp_path, wave=np.array([0, np.nan, 1], np.float32), subtype="FLOAT")

    assert "samples that are no numbers" in why(path)


def test_a_file_without_samples_and_one_that_is_missing_are_bad(tmp_path):
    assert "it holds no sample" in why(written(tmp_path, wave=WAVE[:0]))
    assert "does not exist" in why(tmp_path / "gone.wav")
