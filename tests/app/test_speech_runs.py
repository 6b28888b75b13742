"""Speech recognition through the shell: the whole path on tiny data, its bad inputs, and the bits of a cut run."""

import contextlib
import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from speech_corpora import CONFIG, HELD, RATE, spoken, write_place

import etude
from etude.__main__ import main
from etude.base.errors import ConfigError, DataError


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_place(tmp_path)
    return tmp_path


def shell(*words, code=0):
    assert main(list(words)) == code


def weights(run):
    return Path(run, "checkpoints/last/model.safetensors").read_bytes()


def rows(run):
    return [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]


def column(run, name):
    """What was logged under a name, step by step."""
    return [row[name] for row in rows(run) if name in row]


def asked(monkeypatch, text):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_the_whole_path(place, capsys, monkeypatch):
    shell("check", "small.toml")
    shell("plan", "small.toml", "--json")
    planned = json.loads(capsys.readouterr().out.splitlines()[-1])
    longer = ("--train.max_duration", "150 steps", "--train.eval_every", "50 steps")
    shell("train", "small.toml", *longer, "--task.by", "speaker")
    capsys.readouterr()
    assert planned["steps"] == 24
    assert rows("runs/small")[-1]["val/word_error_rate"] == 0
    assert rows("runs/small")[-1]["val/character_error_rate"] == 0
    kinds = [f"val/word_error_rate/{kind}" for kind in ("substitutions", "deletions", "insertions")]
    first = next(row for row in rows("runs/small") if kinds[0] in row)
    assert sum(first[kind] for kind in kinds) == round(first["val/word_error_rate"] * 5)
    for kind in kinds:
        assert first[kind] == first[f"{kind}/by/s0"] + first[f"{kind}/by/s1"]
    for speaker, words in {"s0": 3, "s1": 2}.items():
        wrong = sum(first[f"{kind}/by/{speaker}"] for kind in kinds)
        assert first[f"val/word_error_rate/by/{speaker}"] == pytest.approx(wrong / words)

    shell("test", "runs/small")
    assert "word_error_rate/by/s1" in capsys.readouterr().out
    assert Path("runs/small/outputs/test.txt").read_text().splitlines() == HELD
    assert Path("runs/small/outputs/test.reference.txt").read_text().splitlines() == HELD
    capsys.readouterr()

    shell("export", "runs/small", "out")
    for name in ("train.csv", "val.csv"):
        Path(name).rename(f"gone-{name}")  # predicting needs no data
    soundfile.write("said.wav", spoken("ca b", seed=77), RATE)
    capsys.readouterr()
    shell("predict", "runs/small", "said.wav")
    out, err = capsys.readouterr()
    assert out == "ca b\n"
    assert [line.split()[2:] for line in err.splitlines()[-2:]] == [["ca"], ["b"]]
    shell("predict", "out", "said.wav", "--checkpoint", "out")
    assert capsys.readouterr().out == "ca b\n"
    asked(monkeypatch, "said.wav\nval/0.wav\n")
    shell("predict", "runs/small", "--beam-size", "4")
    assert capsys.readouterr().out == "ca b\nac\n"


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    """A folder with a run that has learnt its letters."""
    folder = tmp_path_factory.mktemp("trained")
    write_place(folder)
    with contextlib.chdir(folder):
        shell("train", "small.toml", "--train.max_duration", "150 steps", "--train.eval_every", "50 steps")
    return folder


@pytest.fixture
def trained(trained_once, tmp_path, monkeypatch):
    """A copy of it, as the working folder."""
    shutil.copytree(trained_once, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def test_a_recording_is_transcribed_with_times_in_every_form(trained, capsys):
    wave = spoken("ca b", seed=77)
    soundfile.write("said.wav", np.concatenate([np.zeros(RATE, np.float32), wave]), RATE)
    Path("part.csv").write_text("path,start,end\nsaid.wav,1.0,\n")
    capsys.readouterr()

    shell("predict", "runs/small", "part.csv", "--json")
    answer = json.loads(capsys.readouterr().out)
    shell("predict", "runs/small", "part.csv", "--format", "srt")
    srt = capsys.readouterr().out
    shell("predict", "runs/small", "part.csv", "--format", "ctm")
    ctm = capsys.readouterr().out.splitlines()
    shell("predict", "runs/small", "part.csv", "--format", "textgrid")
    grid = capsys.readouterr().out

    # In seconds of the file; where in a sound its spike lies is the network's own choice.
    first, second = answer["words"]
    assert (answer["prediction"], first["text"], second["text"]) == ("ca b", "ca", "b")
    times = [first["start"], first["end"], second["start"], second["end"]]
    assert times == sorted(times)
    assert 1 <= times[0] < times[-1] <= 1 + len(wave) / RATE
    assert 0 < first["confidence"] <= 1
    assert srt.splitlines()[2] == "ca b"
    assert [line.split()[4] for line in ctm] == ["ca", "b"]
    assert 'text = "ca"' in grid


def test_what_cannot_be_written_or_found_is_said(trained, capsys):
    Path("two.csv").write_text("path\nval/0.wav\nval/1.wav\n")
    capsys.readouterr()

    for form in ("srt", "vtt", "textgrid"):
        shell("predict", "runs/small", "two.csv", "--format", form, code=2)
        out, err = capsys.readouterr()
        assert out == ""
        assert f"--format {form} writes the file of one recording, but val/1.wav is another" in err
    shell("predict", "runs/small", "two.csv", "--format", "ctm")
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == {"val/0.wav", "val/1.wav"}
    for words, why in {'["ab", "aß"]': 'has "aß", which no search can find: the run', '[" "]': "it is empty"}.items():
        shell("predict", "runs/small", "val/0.wav", "--task.hot_words", words, "--beam-size", "4", code=2)
        assert why in capsys.readouterr().err


def test_a_bad_recording_costs_no_other_its_answer(trained, capsys, monkeypatch):
    Path("text.wav").write_text("no audio")
    asked(monkeypatch, "val/0.wav\ntext.wav\ngone.wav\nval/0.wav\n")
    capsys.readouterr()

    shell("predict", "runs/small", code=DataError.exit_code)

    out, err = capsys.readouterr()
    assert out == "ac\n\n\nac\n"
    assert "line 2: text.wav is not audio that can be read" in err
    assert "line 3: gone.wav does not exist" in err


def test_python_transcribes_paths(trained):
    run = etude.Run("runs/small")

    assert run.predict(["val/0.wav", "val/1.wav"]) == HELD[:2]
    assert run.predict("val/2.wav", beam_size=4) == HELD[2:]


AUGMENTED = [
    "--data.join.most",
    "3",
    "--data.join.pause",
    "[0.01, 0.03]",
    "--data.features.normalise",
    "speaker",
    "--data.augment",
    "{speed = 0.2, noise = 0.5, gain = 6.0, masks = 'fixed'}",
    "--data.augment.warp",
    "{ schedule = 'linear', from = 0.0, to = 0.2, over = '6 epochs' }",
]


@pytest.mark.parametrize(
    ("cut", "workers"),
    [
        (3, "0"),
        (11, "2"),
        *(pytest.param(*both, marks=pytest.mark.acceptance) for both in ((6, "0"), (11, "0"), (3, "2"), (6, "2"))),
    ],
)
def test_a_run_that_was_cut_ends_in_the_same_bits(place, cut, workers):
    shell("train", "small.toml", *AUGMENTED, "--run.name", "whole")

    more = [*AUGMENTED, "--run.name", "cut", "--data.workers", workers]
    shell("train", "small.toml", *more, "--train.max_duration", f"{cut} steps")
    shell("train", "small.toml", *more)

    assert weights("runs/cut") == weights("runs/whole")


TIGHT = ["--train.batch_size", "12", "--data.join.most", "40", "--data.join.least", "40", "--loss.joint_megabytes", "1"]
HEADS = [
    "--model.transducer",
    "{d_model = 16, joint = 16}",
    "--model.attention",
    "{d_model = 16, heads = 2, layers = 1}",
]


def test_the_memory_of_the_joint_network_is_said_before_the_first_step(place, capsys):
    kind = [*HEADS, "--loss.type", "transducer", "--train.max_duration", "1 step"]
    shell("train", "small.toml", *kind)
    small = capsys.readouterr().err
    shell("train", "small.toml", *kind, "--run.name", "tight", *TIGHT)
    tight = capsys.readouterr().err

    assert "The joint network's logits and their gradient take up to 1 MiB a batch." in small
    assert "of more than loss.joint_megabytes = 1 they are made in pieces" in tight


@pytest.mark.parametrize(
    "loss", ["sum", *(pytest.param(loss, marks=pytest.mark.acceptance) for loss in ("transducer", "attention"))]
)
def test_a_run_of_every_head_that_was_cut_ends_in_the_same_bits(place, loss):
    kind = [*HEADS, "--loss.type", loss]
    shell("train", "small.toml", *kind, "--run.name", "whole", "--train.max_duration", "9 steps")

    shell("train", "small.toml", *kind, "--run.name", "cut", "--train.max_duration", "4 steps")
    shell("train", "small.toml", *kind, "--run.name", "cut", "--train.max_duration", "9 steps")

    assert weights("runs/cut") == weights("runs/whole")


def test_workers_change_nothing(place):
    shell("train", "small.toml", *AUGMENTED, "--run.name", "alone")
    shell("train", "small.toml", *AUGMENTED, "--run.name", "helped", "--data.workers", "2")

    assert weights("runs/helped") == weights("runs/alone")
    assert column("runs/helped", "train/loss") == column("runs/alone", "train/loss")


BLSTM = 'type = "blstm"\nd_model = 24\nlayers = 1\n'
MODELS = {
    "blstm": BLSTM,
    "conformer": 'type = "conformer"\nd_model = 24\nheads = 2\nlayers = 1\nfeedforward = 32\n',
    "cnn": 'type = "cnn"\nd_model = 24\nlayers = 2\n',
}


@pytest.mark.parametrize("model", MODELS)
def test_a_batch_is_judged_as_its_members_are(place, model):
    Path("small.toml").write_text(CONFIG.replace(BLSTM, MODELS[model]))
    shell("train", "small.toml", "--train.max_duration", "6 steps")

    alone = etude.Run("runs/small", overrides=["--train.eval_batch_size", "1"]).validate()
    together = etude.Run("runs/small", overrides=["--train.eval_batch_size", "3"]).validate()

    assert together == pytest.approx(alone, rel=1e-5)


def test_targets_that_do_not_fit_are_counted_and_named(place, capsys):
    Path("train/0.wav").unlink()
    soundfile.write("train/0.wav", spoken("a")[:400], RATE)  # 50 ms for four labels

    shell("train", "small.toml", "--train.max_duration", "6 steps")

    shares, losses = column("runs/small", "train/left_out"), column("runs/small", "train/loss")
    assert (max(shares), min(shares)) == (0.25, 0)
    assert np.isfinite(losses).all()
    said = capsys.readouterr().err
    assert f"1 of 12 train recordings has too few frames for its labels: {place}/train.csv, line 2 (2 frames" in said


def test_audio_of_another_rate_is_refused_by_a_trained_run_or_resampled(trained, capsys):
    soundfile.write("fast.wav", spoken("ca b", seed=77, rate=16000), 16000)
    capsys.readouterr()

    shell("predict", "runs/small", "fast.wav", code=DataError.exit_code)
    refused = capsys.readouterr().err
    shell("predict", "runs/small", "fast.wav", "--data.resample", "true")

    assert "16,000 samples a second, but 8,000 are expected; data.resample = true resamples" in refused
    assert capsys.readouterr().out == "ca b\n"


def test_recordings_with_transcripts_are_not_mixed(place, capsys):
    shell("train", "small.toml", "--data.augment.mix", "0.5", code=ConfigError.exit_code)

    assert (
        "data.augment.mix is for classification: two transcripts at once cannot be learned" in capsys.readouterr().err
    )
