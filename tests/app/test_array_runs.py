"""Arrays through the shell: vectors and sequences from .npz, .npy and Parquet; their bad samples; the bits of a run."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import etude
from etude.__main__ import main
from etude.tasks.classification.arrays_processor import ArrayProcessor

CONFIG = """
[task]
type = "classification"
[data]
type = "arrays"
train = "train.npz"
val = "val.npz"
label = "y"
[model]
widths = [8]
[optimizer]
learning_rate = 0.05
[train]
max_duration = "20 steps"
eval_every = "10 steps"
batch_size = 8
device = "cpu"
[log]
progress = false
tensorboard = false
"""
RNG = np.random.default_rng(5)
LENGTHS = RNG.integers(1, 6, 30)
KINDS = np.arange(30) % 3
SEQUENCES = RNG.normal(size=(30, 5, 4)).astype(np.float32) * 10 + 40 * np.eye(4)[KINDS][:, None] + 1000
NAMES = np.array(["low", "mid", "top"])[KINDS]


def write(place, sequences=SEQUENCES, **others):
    for name, rows in (("train", slice(0, 24)), ("val", slice(24, 30))):
        held = {key: value[rows] for key, value in others.items()}
        np.savez(place / f"{name}.npz", x=sequences[rows], **held)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, y=NAMES, lengths=LENGTHS, z=KINDS + 0.5)
    (tmp_path / "small.toml").write_text(CONFIG)
    return tmp_path


def shell(*words, code=0):
    assert main(list(words)) == code


def weights(run):
    return Path(run, "checkpoints/last/model.safetensors").read_bytes()


def rows(run):
    return [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]


def test_sequences_are_learned_and_answered(place, capsys):
    shell("train", "small.toml", "--train.max_duration", "60 steps")
    shell("export", "runs/small", "out")
    np.save("one.npy", SEQUENCES[25, : LENGTHS[25]])
    listed = json.dumps(SEQUENCES[26, : LENGTHS[26]].tolist())
    Path("lines.txt").write_text(f"one.npy\n{listed}\n\n")

    for words in (("runs/small",), ("out", "--checkpoint", "out")):
        capsys.readouterr()
        shell("predict", *words, "lines.txt")
        assert capsys.readouterr().out.splitlines() == [NAMES[25], NAMES[26], ""]
    arrays = [SEQUENCES[number, : LENGTHS[number]] for number in range(24, 30)]
    assert etude.Run("runs/small").predict(arrays) == NAMES[24:].tolist()
    assert rows("runs/small")[-1]["val/accuracy"] == 1


def test_features_are_standardised_by_the_training_data_without_padding(place):
    shell("train", "small.toml", "--train.max_duration", "1 step")

    kept = ArrayProcessor.stored(Path("runs/small/tokenizers")).features
    real = np.concatenate([SEQUENCES[number, : LENGTHS[number]] for number in range(24)]).astype(np.float64)
    assert kept.means == pytest.approx(real.mean(0))
    assert kept.deviations == pytest.approx(real.std(0))


@pytest.mark.parametrize("model", ["mlp", "blstm"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_cut_anywhere_ends_in_the_same_bits(place, model, workers):
    if model == "blstm":
        Path("small.toml").write_text(CONFIG.replace("widths = [8]", 'type = "blstm"\nd_model = 8\nlayers = 1'))
    shell("train", "small.toml", "--train.max_duration", "9 steps")
    for steps in ("4 steps", "9 steps"):
        words = ("--train.max_duration", steps, "--data.workers", str(workers))
        shell("train", "small.toml", "--run.name", "cut", *words)

    assert weights("runs/cut") == weights("runs/small")


def test_a_batch_equals_its_members(place):
    shell("train", "small.toml", "--train.max_duration", "3 steps", "--model.pooling", "attention")
    task = etude.Run("runs/small").load(device="cpu")
    lines = [json.dumps(SEQUENCES[number, : LENGTHS[number]].tolist()) for number in range(12)]

    together, alone = (list(task.predict(lines, batch_size=size)) for size in (12, 1))

    for (one,), (other,) in zip(together, alone, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-5)


def test_lists_files_and_parquet_give_the_same_samples(place):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet as pq

    (place / "arrays").mkdir()
    for name, numbers in (("train", range(24)), ("val", range(24, 30))):
        arrays = {number: SEQUENCES[number, : LENGTHS[number]] for number in numbers}
        for number, array in arrays.items():
            np.save(place / f"arrays/{number}.npy", array)
        with (place / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["array", "y"], *((f"arrays/{n}.npy", NAMES[n]) for n in numbers)])
        table = {"array": [array.tolist() for array in arrays.values()], "y": [str(NAMES[n]) for n in numbers]}
        pq.write_table(pa.table(table), place / f"{name}.parquet")

    for kind in ("npz", "csv", "parquet"):
        words = ("--data.train", f"train.{kind}", "--data.val", f"val.{kind}", "--train.max_duration", "4 steps")
        shell("train", "small.toml", "--run.name", kind, *words)

    assert weights("runs/npz") == weights("runs/csv") == weights("runs/parquet")


def test_vectors_and_numbers(place):
    write(place, SEQUENCES[:, 0], y=np.stack([KINDS * 2.0, 5 - KINDS], 1))

    shell("train", "small.toml", "--data.targets", '["y.0", "y.1"]', "--train.max_duration", "60 steps")

    assert rows("runs/small")[-1]["val/r2"] > 0.8


BAD = {
    "NaN": ({"x": np.full((6, 5, 4), np.nan), "y": NAMES[:6]}, "val.npz, line 1: the array holds NaN or infinity"),
    "other features": ({"x": np.ones((6, 5, 3)), "y": NAMES[:6]}, "line 1: the array has 3 features, but those of"),
    "no length": ({"x": np.ones((2, 5, 4)), "y": NAMES[:2], "lengths": [5, 0]}, "line 2: the array is empty"),
    "no x": ({"z": np.ones(3)}, 'val.npz must hold an array "x", but has z'),
    "fewer labels": ({"x": np.ones((3, 4)), "y": NAMES[:2]}, "y must have as many entries as x"),
    "other label": ({"x": np.ones((1, 4)), "y": ["new"]}, 'line 1: the label "new" is none of the training data'),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_sample_is_named(case, place, capsys):
    held, told = BAD[case]
    np.savez(place / "val.npz", **held)

    shell("train", "small.toml", code=3)

    assert told in capsys.readouterr().err


def test_a_file_that_is_missing_is_named_or_left_out(place, capsys):
    np.save("0.npy", SEQUENCES[0])
    np.save("1.npy", SEQUENCES[1])
    Path("val.csv").write_text("array,y\n0.npy,low\ngone.npy,mid\n1.npy,mid\n")

    shell("train", "small.toml", "--data.val", "val.csv", code=3)
    assert "val.csv, line 3:" in (said := capsys.readouterr().err)
    assert "gone.npy does not exist" in said
    words = ("--data.on_bad_sample", "skip", "--data.max_skipped", "50%", "--train.max_duration", "1 step")
    shell("train", "small.toml", "--data.val", "val.csv", *words)

    assert len(Path("runs/small/skipped.jsonl").read_text().splitlines()) == 1
