"""Generated corpora of audio."""

import os
import shutil
import sys

import numpy as np
import pytest

from etude.base.errors import ConfigError, DataError
from etude.data.corpora import AUDIO, CLASSED
from etude.data.corpora.chance import Chance
from etude.data.corpora.espeak import in_words
from etude.data.corpora.kinds import KINDS
from etude.data.corpora.morse import CODES
from etude.data.corpora.sounds import Speaker, at_level, swelling, tone
from etude.data.corpora.tones import HIGHER, LOWER, _letter

OURS = ["tone_letters", "morse", "tone_kinds"]

PROGRAM = """#!{python}
import struct, sys
text = sys.argv[-1]
samples = struct.pack("<4h", 0, 16384, -32768, len(text))
header = b"RIFF" + struct.pack("<I", 0x7FFFF024) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, {rate}, 44100, 2, 16)
sys.stdout.buffer.write(header + b"data" + struct.pack("<I", 0x7FFFF000) + samples)
sys.exit({status})
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Puts a program in the place of espeak-ng that answers as it does: a WAV file whose header has no true length."""

    def put(rate=22_050, status=0):
        path = tmp_path / "espeak-ng"
        path.write_text(PROGRAM.format(python=sys.executable, rate=rate, status=status))
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    return put


@pytest.mark.parametrize("name", OURS)
def test_a_recording_is_the_same_whenever_it_is_asked_for(name):
    corpus, again, other = AUDIO[name]("train", 1, 30), AUDIO[name]("train", 1, 9), AUDIO[name]("train", 2, 9)

    first = [corpus[i] for i in (8, 3, 5)]

    for index, sounded in zip((8, 3, 5), first, strict=True):
        assert np.array_equal(again[index].wave, sounded.wave)
        assert again[index][1:] == sounded[1:]
        assert not np.array_equal(other[index].wave, sounded.wave)


@pytest.mark.parametrize("name", OURS)
def test_recordings_are_samples_between_minus_one_and_one(name):
    corpus = AUDIO[name]("val", size=40)

    waves = [sounded.wave for sounded in corpus]

    assert len(waves) == len(corpus) == 40
    assert {wave.dtype for wave in waves} == {np.dtype(np.float32)}
    assert all(0.2 * corpus.rate < len(wave) < 15 * corpus.rate for wave in waves)
    assert all(0.001 < np.abs(wave).max() < 1 for wave in waves)


@pytest.mark.parametrize("name", OURS)
def test_splits_share_no_speaker_and_no_word(name):
    found = {}
    for split in ("train", "val", "test"):
        rows = list(AUDIO[name](split, size=60))
        words = set() if name in CLASSED else {word for row in rows for word in row.text.split()}
        found[split] = {row.speaker for row in rows} | words

    assert not found["train"] & found["val"]
    assert not found["train"] & found["test"]
    assert not found["val"] & found["test"]


@pytest.mark.parametrize("name", OURS)
def test_another_split_is_a_sentence(name):
    with pytest.raises(ConfigError, match="must be train, val or test, but is 'dev'"):
        AUDIO[name]("dev")


def test_there_is_no_recording_beyond_the_last():
    with pytest.raises(IndexError, match="a corpus of 3 recordings has no number 3"):
        AUDIO["morse"]("train", size=3)[3]


def test_each_split_has_its_size_and_may_have_another():
    assert [len(AUDIO["tone_letters"](split)) for split in ("train", "val", "test")] == [4000, 300, 300]
    assert len(AUDIO["tone_letters"]("train", size=0)) == 0


@pytest.mark.parametrize("letter", ["a", "e", "f", "m", "z"])
def test_a_letter_is_its_two_tones(letter):
    speaker = Speaker("me", 1.05, 1.0, -20)

    spectrum = np.abs(np.fft.rfft(_letter(letter, Chance(1), speaker), 1 << 15))

    frequencies = np.fft.rfftfreq(1 << 15, 1 / 8000) / speaker.pitch
    low = frequencies[np.argmax(spectrum * (frequencies < 1050))]
    high = frequencies[np.argmax(spectrum * (frequencies > 1050))]
    place = ord(letter) - ord("a")
    assert low == pytest.approx(LOWER[place % 5], rel=0.04)
    assert high == pytest.approx(HIGHER[place // 5], rel=0.04)


def runs(down):
    """Lengths of stretches without and with sound, in turn."""
    edges = np.flatnonzero(np.diff(down.astype(int))) + 1
    return np.diff(np.concatenate([[0], edges, [len(down)]]))


@pytest.mark.parametrize("index", range(12))
def test_morse_is_read_back_from_its_envelope(index):
    sounded = AUDIO["morse"]("train")[index]
    power = np.convolve(np.square(sounded.wave), np.ones(80) / 80, "same")
    lengths = runs(power > 0.35 * np.quantile(power, 0.95))
    gaps, marks = lengths[2::2], lengths[1::2]
    unit = np.median(marks[marks < 2 * marks.min()])
    signs = {code: character for character, code in CODES.items()}

    read, code = "", ""
    for mark, gap in zip(marks, gaps, strict=True):
        code += "-" if mark > 2 * unit else "."
        if gap > 2 * unit:
            read, code = read + signs[code], ""
        if gap > 5 * unit:
            read += " "

    assert read.rstrip() == sounded.text


def test_every_kind_of_sound_is_as_likely():
    texts = [sounded.text for sounded in AUDIO["tone_kinds"]("train", size=400)]

    assert {kind: texts.count(kind) > 25 for kind in KINDS} == dict.fromkeys(texts, True)


def test_a_tone_slides_from_its_first_frequency_to_its_last():
    sliding = tone(1.0, 500, 1000)

    turns = np.flatnonzero(np.diff(np.signbit(sliding)))
    assert len(turns) == pytest.approx(2 * 750, abs=2)
    assert len(turns[turns < 800]) == pytest.approx(2 * 0.1 * 525, abs=2)


def test_a_sound_begins_and_ends_smoothly_and_has_its_level():
    sound = at_level(swelling(np.ones(8000), 0.1, 0.2), -20)

    assert abs(sound[0]) < 1e-9
    assert abs(sound[-1]) < 1e-9
    assert 20 * np.log10(np.sqrt(np.mean(sound**2))) == pytest.approx(-20)
    assert not at_level(np.zeros(8), -20).any()


def test_speech_is_what_the_program_says(program):
    program()

    sounded = AUDIO["espeak"]("train", size=5)[2]

    assert sounded.wave.tolist() == [0.0, 0.5, -1.0, len(sounded.text) / 32768]
    assert sounded.speaker.startswith("en-")


@pytest.mark.parametrize(
    ("answer", "said"),
    [({"status": 3}, "espeak-ng failed: 3"), ({"rate": 16_000}, "22,050 Hz, but gives 1 of 16 bits at 16,000 Hz")],
)
def test_what_the_program_does_wrong_is_a_sentence(program, answer, said):
    program(**answer)

    with pytest.raises(DataError, match=said):
        AUDIO["espeak"]("val")[0]


def test_a_missing_program_is_a_sentence(monkeypatch):
    monkeypatch.setenv("PATH", "")

    with pytest.raises(ConfigError, match="The corpus `espeak` needs the program espeak-ng"):
        AUDIO["espeak"]("train")


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_speech_is_spoken():
    corpus = AUDIO["espeak"]("test", size=3)

    assert all(len(sounded.wave) > 0.2 * corpus.rate for sounded in corpus)


def test_numbers_are_words():
    num2words = pytest.importorskip("num2words").num2words

    expected = [num2words(whole).replace("-", " ").replace(" and ", " ") for whole in range(1000)]
    assert [in_words(whole) for whole in range(1000)] == expected
