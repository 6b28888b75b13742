"""Sound that comes as a stream: what is said in the end is what is said of the whole file, word by word before."""

import io
import json
import os
import random
import shlex
import shutil
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from speech_corpora import RATE, TRAINED, spoken, write_place

import etude
from etude.__main__ import main
from etude.app.cli.pieces import Pieces
from etude.app.cli.streams import CLOSED_PIPE, INTERRUPTED
from etude.base.errors import ConfigError, DataError
from etude.tasks.speech_recognition.streaming import Transcription

COMMON = """
--train.max_duration "100 steps" --train.eval_every "100 steps" --train.save_every "100 steps"
--data.features.normalise global --data.join.most 3 --data.join.splits '["train"]' --model.dropout 0
"""
KINDS = {
    "chunks": """
    --model.type conformer --model.d_model 24 --model.layers 1 --model.heads 2 --model.feedforward 48 --model.kernel 5
    --model.causal true --model.chunk 4 --model.left_context 8 --model.subsampling 2 --model.subsample_channels 4
    --optimizer.learning_rate 0.01 --data.features.deltas 1
    """,
    "transducer": """
    --model.bidirectional false --model.subsampling 1 --data.features.stack 2 --loss.type transducer
    --model.transducer.d_model 16 --model.transducer.joint 16 --model.transducer.dropout 0
    """,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a causal run of each kind, and a long recording."""
    folder = tmp_path_factory.mktemp("streams")
    write_place(folder)
    before = Path.cwd()
    os.chdir(folder)
    for name, words in KINDS.items():
        shell("train", "small.toml", "--run.name", name, *shlex.split(COMMON + words))
    waves = [spoken(f"{text} ", seed=50 + number) for number, text in enumerate(TRAINED)]
    soundfile.write("long.wav", np.concatenate(waves), RATE, subtype="PCM_16")
    samples, _ = soundfile.read("long.wav", dtype="int16")
    Path("long.raw").write_bytes(samples.astype("<i2").tobytes())
    os.chdir(before)
    return folder


@pytest.fixture(autouse=True)
def inside(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    capsys.readouterr()


@pytest.fixture(scope="module")
def tasks(place):
    return {name: etude.Run(place / "runs" / name).load() for name in KINDS}


class Trickle(io.RawIOBase):
    """Bytes that come in pieces of any size."""

    def __init__(self, content, seed):
        self._content, self._draw = content, random.Random(seed)

    def readable(self):
        return True

    def readinto(self, room):
        size = min(self._draw.choice([1, 2, 3, 100, 1001, 9000]), len(room))
        piece, self._content = self._content[:size], self._content[size:]
        room[: len(piece)] = piece
        return len(piece)


def asked(monkeypatch, content, seed=1):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Trickle(content, seed))))


def shell(*words, code=0):
    assert main(list(words)) == code


def pieces_of(wave, seed):
    """Cut a wave anywhere, at times into nothing."""
    draw = random.Random(seed)
    most = draw.choice([200, 4000])
    while len(wave):
        size = draw.randint(0, most)
        yield wave[:size]
        wave = wave[size:]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", KINDS)
def test_any_pieces_give_the_words_of_the_whole_recording(tasks, kind, seed):
    wave, _ = soundfile.read("long.wav", dtype="float32")
    ((whole,),) = tasks[kind].predict([wave])
    stream = Transcription(tasks[kind])

    said = [spoken for piece in pieces_of(torch.from_numpy(wave), seed) for spoken in stream.push(piece)]
    early = len(said)
    said += stream.end()

    assert len(whole.words) > 5
    assert early >= len(whole.words) - 2
    assert "".join(one.before + one.word.text for one in said) == whole.text
    found = [one.word for one in said]
    assert [(word.text, word.start, word.end) for word in found] == [
        (word.text, word.start, word.end) for word in whole.words
    ]
    assert [word.confidence for word in found] == pytest.approx([word.confidence for word in whole.words], abs=1e-4)


@pytest.mark.parametrize("samples", [0, 1, 199, 200, 201, 700])
@pytest.mark.parametrize("kind", KINDS)
def test_the_shortest_recordings_end_as_they_do_alone(tasks, kind, samples):
    wave = spoken("cab", seed=3)[2000 : 2000 + samples]
    ((whole,),) = tasks[kind].predict([wave])
    stream = Transcription(tasks[kind])

    said = [*stream.push(torch.from_numpy(wave)), *stream.end()]

    assert "".join(one.before + one.word.text for one in said) == whole.text


@pytest.mark.parametrize("kind", KINDS)
def test_the_shell_gives_the_transcript_of_the_file(kind, capsys, monkeypatch):
    shell("predict", f"runs/{kind}", "long.wav")
    whole = capsys.readouterr().out
    raw = Path("long.raw").read_bytes()

    asked(monkeypatch, raw)
    shell("predict", f"runs/{kind}", "--stream")
    piped = capsys.readouterr().out
    shell("predict", f"runs/{kind}", "long.raw", "--stream")
    named = capsys.readouterr().out
    asked(monkeypatch, (np.frombuffer(raw, "<i2") / np.float32(32768)).astype("<f4").tobytes())
    shell("predict", f"runs/{kind}", "--stream", "--stream-format", "f32le")
    floats = capsys.readouterr().out

    assert len(whole.split()) > 5
    assert piped == named == floats == whole


def test_objects_are_those_of_the_whole_file(capsys, monkeypatch):
    shell("predict", "runs/chunks", "long.wav", "--json")
    whole = json.loads(capsys.readouterr().out)["words"]
    asked(monkeypatch, Path("long.raw").read_bytes())

    shell("predict", "runs/chunks", "--stream", "--json")

    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [list(word) for word in found] == [["text", "start", "end", "confidence"]] * len(whole)
    for word, expected in zip(found, whole, strict=True):
        assert word == pytest.approx(expected, abs=2e-4)


def test_an_odd_byte_at_the_end_is_said(capsys, monkeypatch):
    asked(monkeypatch, Path("long.raw").read_bytes())
    shell("predict", "runs/chunks", "--stream")
    whole = capsys.readouterr().out
    asked(monkeypatch, Path("long.raw").read_bytes() + b"\x01")

    shell("predict", "runs/chunks", "--stream")

    out, err = capsys.readouterr()
    assert out == whole
    assert "standard input: The last 1 of a sample's 2 bytes are left out." in err


def test_no_sound_is_an_empty_transcript(capsys, monkeypatch):
    asked(monkeypatch, b"")

    shell("predict", "runs/chunks", "--stream")

    assert capsys.readouterr().out == "\n"


# -- a live stream ---------------------------------------------------------------------------------------------------


class Ended(Trickle):
    """Ctrl-C comes where one waits for more; what was written until then is kept."""

    said = ""

    def readinto(self, room):
        if not self._content:
            self.said = sys.stdout.getvalue()
            signal.raise_signal(signal.SIGINT)
        return super().readinto(room)


def test_words_come_before_the_sound_ends_and_ctrl_c_gives_the_last(capsys, monkeypatch):
    raw = Path("long.raw").read_bytes()
    shell("predict", "runs/chunks", "long.raw", "--stream")
    whole = capsys.readouterr().out
    stream = Ended(raw, seed=2)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(stream)))
    monkeypatch.setattr(sys, "stdout", io.StringIO())

    shell("predict", "runs/chunks", "--stream", code=INTERRUPTED)

    assert len(stream.said.split()) >= len(whole.split()) - 2
    assert sys.stdout.getvalue() == whole
    assert capsys.readouterr().err == ""


def test_a_reader_that_has_gone_ends_it(capsys, monkeypatch):
    asked(monkeypatch, Path("long.raw").read_bytes())
    read, write = os.pipe()
    os.close(read)
    monkeypatch.setattr(sys, "stdout", os.fdopen(write, "w"))

    shell("predict", "runs/chunks", "--stream", code=CLOSED_PIPE)

    sys.stdout.close()
    assert capsys.readouterr().err == ""


@pytest.fixture
def heard():
    """Let Ctrl-C be heard, which what runs in a shell's background ignores."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_a_second_ctrl_c_interrupts_at_once():
    pieces = Pieces(io.BytesIO(bytes(1 << 20)), "sound")
    reading = iter(pieces)
    next(reading)

    signal.raise_signal(signal.SIGINT)

    assert pieces.interrupted
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    reading.close()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_pipe_by_name_is_heard(capsys):
    shell("predict", "runs/chunks", "long.raw", "--stream")
    whole = capsys.readouterr().out
    os.mkfifo("sound")
    writer = threading.Thread(target=lambda: Path("sound").write_bytes(Path("long.raw").read_bytes()))
    writer.start()

    shell("predict", "runs/chunks", "sound", "--stream")

    writer.join()
    assert capsys.readouterr().out == whole


def test_what_is_kept_does_not_grow_with_the_sound(tasks):
    stream = Transcription(tasks["chunks"])
    wave = torch.from_numpy(np.frombuffer(Path("long.raw").read_bytes(), "<i2").astype(np.float32) / 32768)
    kept = []

    for _ in range(12):  # 80 seconds
        for piece in wave.split(9000):
            stream.push(piece)
            kept.append(sum(part.untyped_storage().nbytes() for layer in stream._state.body for part in layer))

    assert max(kept[20:]) == max(kept[:20])


# -- what cannot be --------------------------------------------------------------------------------------------------

REFUSED = {
    "data.features.normalise must be": ["--data.features.normalise", "utterance"],
    "--beam-size 1": ["--beam-size", "4"],
    "--task.language_model false": ["--task.language_model", "words.arpa"],
    "task.hot_words must be empty": ["--task.hot_words", "['ab']"],
    "--stream-format must be s16le or f32le": ["--stream-format", "wav"],
    "leave out --format": ["--format", "srt"],
}


def test_a_stream_format_needs_a_stream(capsys):
    shell("predict", "runs/chunks", "--stream-format", "f32le", code=ConfigError.exit_code)

    assert "give --stream as well" in capsys.readouterr().err


@pytest.mark.parametrize("told", REFUSED)
def test_what_needs_the_whole_recording_is_refused_in_a_sentence(told, capsys, monkeypatch):
    asked(monkeypatch, b"\0\0" * 8000)

    shell("predict", "runs/transducer", "--stream", *REFUSED[told], code=ConfigError.exit_code)

    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert told in err


LOOKING = {
    "model.bidirectional = false, but it is true": [],
    'normalise must be "global" or false': ["--model.bidirectional", "false"],
    "loss.type must be ctc or transducer": ["--loss.type", "attention", "--model.attention.layers", "1"],
}


@pytest.mark.parametrize("told", LOOKING)
def test_what_was_trained_to_look_ahead_is_refused_in_a_sentence(told, capsys):
    model = ["--model.bidirectional", "false", "--data.features.normalise", "false"] if "loss" in told else []
    shell("train", "small.toml", "--run.name", "ahead", "--train.max_duration", "1 step", *model, *LOOKING[told])
    capsys.readouterr()

    shell("predict", "runs/ahead", "long.raw", "--stream", code=ConfigError.exit_code)

    shutil.rmtree("runs/ahead")
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert told in err


BAD = {
    "a WAV file is given: leave --stream out": (b"RIFF" + bytes(400), []),
    "Sample 3 of the sound is no number": (np.array([0, 0, np.nan], "<f4").tobytes(), ["--stream-format", "f32le"]),
}


@pytest.mark.parametrize("told", BAD)
def test_what_is_no_raw_sound_is_told_of(told, capsys, monkeypatch):
    content, words = BAD[told]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    shell("predict", "runs/chunks", "--stream", *words, code=DataError.exit_code)

    assert told in capsys.readouterr().err
