"""Classification of recordings through the shell: the whole path on tiny data, bad inputs, bits of a cut run."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from speech_corpora import RATE, spoken

import etude
from etude.__main__ import main
from etude.base.errors import ConfigError, DataError
from etude.data.store import features

CONFIG = """
[task]
type = "classification"
by = "speaker"
[data]
type = "audio"
train = "train.csv"
val = "val.csv"
test = "val.csv"
[data.features]
mel_bins = 20
[model]
type = "cnn"
d_model = 16
layers = 1
subsample_channels = 4
[optimizer]
learning_rate = 0.01
[train]
max_duration = "24 steps"
eval_every = "6 steps"
save_every = "6 steps"
log_every = "1 step"
batch_size = 4
keep_last = 9
device = "cpu"
[log]
progress = false
tensorboard = false
"""


def write(folder, name, labels, seed):
    (folder / name).mkdir()
    lines = ["path,label,speaker,loudness,low;high"]
    for number, label in enumerate(labels):
        gain = 0.2 + 0.1 * (number % 5)
        soundfile.write(folder / name / f"{number}.wav", gain * spoken(3 * label, seed + number), RATE)
        lines.append(f"{name}/{number}.wav,{label},s{number % 2},{gain:.2f},{'low' if label == 'a' else ''}")
    (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "train", "abcabcabcabc", 0)
    write(tmp_path, "val", "cab", 50)
    (tmp_path / "small.toml").write_text(CONFIG)
    return tmp_path


def shell(*words, code=0):
    assert main(list(words)) == code


def weights(run):
    return Path(run, "checkpoints/last/model.safetensors").read_bytes()


def last(run):
    return json.loads(Path(run, "metrics.jsonl").read_text().splitlines()[-1])


def asked(monkeypatch, text):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_the_whole_path(place, capsys, monkeypatch):
    shell("check", "small.toml")
    shell("plan", "small.toml", "--json")
    planned = json.loads(capsys.readouterr().out.splitlines()[-1])
    shell("train", "small.toml", "--train.max_duration", "60 steps")
    assert planned["steps"] == 24
    assert last("runs/small")["val/accuracy"] == last("runs/small")["val/accuracy/by/s0"] == 1

    shell("test", "runs/small")
    assert Path("runs/small/outputs/test.txt").read_text() == "c\na\nb\n"
    assert Path("runs/small/outputs/test.reference.txt").read_text() == "c\na\nb\n"
    shell("export", "runs/small", "out")
    for name in ("train.csv", "val.csv"):
        Path(name).rename(f"gone-{name}")  # predicting needs no data
    capsys.readouterr()
    shell("predict", "runs/small", "val/1.wav")
    assert capsys.readouterr().out == "a\n"
    shell("predict", "out", "val/1.wav", "--checkpoint", "out")
    assert capsys.readouterr().out == "a\n"
    asked(monkeypatch, "val/0.wav\nval/2.wav\n")
    shell("predict", "runs/small")
    assert capsys.readouterr().out == "c\nb\n"
    shell("predict", "runs/small", "gone-val.csv", "--json")
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["prediction"] for answer in answers] == ["c", "a", "b"]
    assert sum(answers[0]["scores"].values()) == pytest.approx(1)
    assert etude.Run("runs/small").predict(["val/0.wav", "val/1.wav"]) == ["c", "a"]


def test_a_bad_recording_costs_no_other_its_answer(place, capsys, monkeypatch):
    shell("train", "small.toml", "--train.max_duration", "60 steps")
    Path("text.wav").write_text("no audio")
    soundfile.write("short.wav", np.zeros(50, np.float32), RATE)
    asked(monkeypatch, "val/0.wav\ntext.wav\nshort.wav\nval/1.wav\n")
    capsys.readouterr()

    shell("predict", "runs/small", code=DataError.exit_code)

    out, err = capsys.readouterr()
    assert out == "c\n\n\na\n"
    assert "line 2: text.wav is not audio that can be read" in err
    assert "line 3: It has 50 samples, fewer than one window" in err


def test_an_unknown_label_names_file_and_line(place, capsys):
    Path("val.csv").write_text(Path("val.csv").read_text().replace(",b,", ",d,"))

    shell("train", "small.toml", code=DataError.exit_code)

    said = capsys.readouterr().err
    assert 'val.csv, line 4: the label "d" is none of the training data, which has a, b, c' in said


def test_level_changes_no_prediction(place):
    shell("train", "small.toml", "--train.max_duration", "60 steps")
    wave, _ = soundfile.read("val/2.wav", dtype="float32")
    for name, gain in (("loud", 2.0), ("quiet", 0.01)):
        soundfile.write(f"{name}.wav", gain * wave, RATE, subtype="FLOAT")

    run = etude.Run("runs/small")

    assert run.predict(["loud.wav", "quiet.wav"]) == ["b", "b"]


AUGMENTED = ["--data.augment", "{speed = 0.2, warp = 0.1, noise = 0.5, gain = 6.0, masks = 'adaptive'}"]


@pytest.mark.parametrize("workers", [pytest.param("0", marks=pytest.mark.acceptance), "2"])
def test_a_run_that_was_cut_ends_in_the_same_bits(place, workers):
    shell("train", "small.toml", *AUGMENTED, "--run.name", "whole")

    more = [*AUGMENTED, "--run.name", "cut", "--data.workers", workers]
    shell("train", "small.toml", *more, "--train.max_duration", "7 steps")
    shell("train", "small.toml", *more)

    assert weights("runs/cut") == weights("runs/whole")


MIXED = ["--data.augment.mix", '{schedule = "linear", from = 0.0, to = 1.0, over = "3 epochs"}']


@pytest.mark.parametrize("workers", ["0", pytest.param("2", marks=pytest.mark.acceptance)])
def test_a_run_that_mixes_more_and_more_ends_in_the_same_bits_when_it_is_cut(place, workers):
    shell("train", "small.toml", *MIXED, "--run.name", "whole")
    shell("train", "small.toml", "--run.name", "plain")

    more = [*MIXED, "--run.name", "cut", "--data.workers", workers]
    shell("train", "small.toml", *more, "--train.max_duration", "7 steps")
    shell("train", "small.toml", *more)

    assert weights("runs/cut") == weights("runs/whole") != weights("runs/plain")
    losses = [
        [json.loads(line)["train/loss"] for line in Path(run, "metrics.jsonl").read_text().splitlines()[:3]]
        for run in ("runs/whole", "runs/plain")
    ]
    assert losses[0] == losses[1]  # nothing is mixed in the first epoch


@pytest.mark.parametrize(
    "words",
    [["--data.targets", "loudness"], ["--loss.type", "focal"], ["--loss.z_loss", "0.1"]],
)
def test_what_cannot_be_mixed_is_refused(place, capsys, words):
    shell("train", "small.toml", *words, "--data.augment.mix", "0.5", code=ConfigError.exit_code)

    assert "data.augment.mix needs labels to mix" in capsys.readouterr().err


KEPT = ["--data.keep_features", "true"]
MASKED = ["--data.augment.masks", "adaptive", "--data.features.deltas", "1"]


@pytest.mark.parametrize(
    ("words", "workers"), [([], "2"), (MASKED, "0"), ([*MASKED, "--data.keep_waves", "false"], "0")]
)
def test_features_that_are_kept_train_to_the_same_bits(place, words, workers):
    shell("train", "small.toml", *words, "--run.name", "computed")
    shell("train", "small.toml", *words, *KEPT, "--run.name", "kept", "--data.workers", workers)

    assert weights("runs/kept") == weights("runs/computed")
    assert last("runs/kept")["val/loss"] == last("runs/computed")["val/loss"]
    assert len(list(Path("runs").glob("*/features"))) == 1


def test_features_are_kept_once_and_made_anew_of_another_file(place, monkeypatch):
    made = []
    compute = features._computed
    monkeypatch.setattr(features, "_computed", lambda *given: made.append(given) or compute(*given))
    words = ["train", "small.toml", *KEPT, "--data.keep_waves", "false", "--train.max_duration", "3 steps"]

    shell(*words, "--run.name", "first")
    first = len(made)
    shell(*words, "--run.name", "second")
    second = len(made)
    wave, _ = soundfile.read("train/0.wav", dtype="float32")
    soundfile.write("train/0.wav", wave[::-1].copy(), RATE)  # another content of the same size
    shell(*words, "--run.name", "third")

    assert (first, second, len(made)) == (2, 2, 3)
    assert weights("runs/first") == weights("runs/second") != weights("runs/third")


@pytest.mark.parametrize(
    ("words", "told"),
    [(["--data.augment.speed", "0.1"], "augment.speed"), (["--data.join", "{most = 2}"], "join")],
)
def test_features_of_what_is_changed_are_not_kept(place, capsys, words, told):
    shell("train", "small.toml", *KEPT, *words, code=ConfigError.exit_code)

    assert f"keep_features is of recordings as they are, but {told} makes others of them" in capsys.readouterr().err


def test_numbers_of_recordings_are_predicted(place):
    shell("train", "small.toml", "--data.targets", "loudness", "--task.by", "off", "--data.features.normalise", "off")
    assert {"val/mse", "val/mae", "val/r2"} <= set(last("runs/small"))
    shell("test", "runs/small")

    assert Path("runs/small/outputs/test.reference.txt").read_text() == "0.2\n0.3\n0.4\n"
    assert len(Path("runs/small/outputs/test.txt").read_text().splitlines()) == 3


def test_several_labels_of_recordings_are_predicted(place):
    shell("train", "small.toml", "--data.labels", "low;high", "--task.by", "off")
    assert {"val/subset_accuracy", "val/f1_micro"} <= set(last("runs/small"))
    shell("test", "runs/small")

    assert Path("runs/small/outputs/test.reference.txt").read_text() == "\nlow\n\n"


@pytest.mark.parametrize("pooling", ["mean", "attention", "last"])
def test_a_batch_is_judged_as_its_members_are(place, pooling):
    windows = ["--model.windows", "{frames = 20, shift = 10}", "--model.pooling", pooling]
    shell("train", "small.toml", *windows, "--train.max_duration", "6 steps")

    alone = etude.Run("runs/small", overrides=["--train.eval_batch_size", "1"]).validate()
    together = etude.Run("runs/small", overrides=["--train.eval_batch_size", "3"]).validate()

    assert together == pytest.approx(alone, rel=1e-5)


def test_a_recording_that_no_batch_can_hold_is_told_in_frames(place, capsys):
    shell("train", "small.toml", "--train.batch_size", "off", "--train.batch_tokens", "10", code=DataError.exit_code)

    said = capsys.readouterr().err
    assert (
        "frames, and no batch of at most 10 frames can hold it; raise train.batch_tokens, which counts frames" in said
    )
    assert "tokens on one side" not in said
