"""Alignments through the shell: what `etude align` stores and writes, and training on that frame by frame."""

import json
import shutil
import sys
from operator import eq
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from speech_corpora import RATE, TRAINED, spoken, write_corpus, write_place
from torch import nn

import etude
from etude.__main__ import main
from etude.base.errors import ConfigError, DataError
from etude.base.says import unheard
from etude.data.store import alignment_writer
from etude.tasks.kept import stored_processor
from etude.tasks.speech_recognition.aligned_data import counted_labels
from etude.tasks.speech_recognition.type import SPEECH_RECOGNITION
from etude.tasks.task_type import TOKENIZERS
from etude.tasks.translation.type import TRANSLATION

STORE = "runs/small/alignments/train"
CLASSES = 8
"""Four special tokens, three letters and the space."""
TRANSDUCER = ["--model.transducer.d_model", "24", "--model.transducer.joint", "24"]
FRAMEWISE = ["--loss.type", "framewise", "--loss.alignments", "runs/small/alignments"]


def shell(*words, code=0):
    assert main(list(words)) == code


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a recogniser that was trained by CTC, and its alignments of both splits."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_place(folder)
        shell("train", "small.toml", "--train.max_duration", "150 steps", "--train.eval_every", "50 steps")
        shell("align", "runs/small")
        shell("align", "runs/small", "--split", "val")
    return folder


@pytest.fixture(autouse=True)
def place(home, monkeypatch):
    monkeypatch.chdir(home)
    return home


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def stored(folder):
    """The rows of a store, as any reader of Parquet has them, by id."""
    rows = [row for path in sorted(Path(folder).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    return {row["id"]: row for row in rows}


def weights(run):
    return Path(run, "checkpoints/last/model.safetensors").read_bytes()


def column(run, name):
    rows = [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]
    return [row[name] for row in rows if name in row]


def tones(text, seed):
    """When each letter of a recording of `speech_corpora` sounds, and its spaces are silent: start and end."""
    draw, now, found = np.random.default_rng(seed), 0.03, []
    for _ in text:
        end = now + int(RATE * draw.uniform(0.07, 0.09)) / RATE
        found.append((now, end))
        now = end + 0.03
    return found


def test_every_label_is_found_in_order_near_its_sound():
    shell("align", "runs/small", "--format", "json", "--output", "json")

    for number, text in enumerate(TRAINED):
        told = json.loads(Path(f"json/train/{number}.json").read_text())
        times = [(one["start"], one["end"]) for one in told["labels"]]
        assert "".join(one["text"] for one in told["labels"]) == text
        assert [word["text"] for word in told["words"]] == text.split()
        assert all(start < end for start, end in times)
        assert [time for span in times for time in span] == sorted(time for span in times for time in span)
        for (start, end), (first, last) in zip(times, tones(text, number), strict=True):
            assert first - 0.06 <= (start + end) / 2 <= last + 0.06
        assert times[-1][1] <= told["end"] + 0.02


def test_a_batch_is_aligned_as_its_members_are():
    shell("align", "runs/small", "--name", "alone", "--batch-size", "1")
    alone, together = stored("runs/small/alignments/alone"), stored(STORE)

    assert {name: row["classes"] for name, row in alone.items()} == {
        name: row["classes"] for name, row in together.items()
    }
    for name, row in alone.items():
        assert row["score"] == pytest.approx(together[name]["score"], rel=1e-4, abs=1e-4)


def test_an_alignment_that_is_killed_goes_on_by_shard_to_the_same_bytes(monkeypatch, capsys):
    words = ["align", "runs/small", "--shard-size", "5"]
    shell(*words, "--name", "whole")
    write, written = alignment_writer.write_bytes, []

    def killed(path, content):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(alignment_writer, "write_bytes", killed)
        shell(*words, "--name", "cut", code=130)
    half = [*FRAMEWISE[:3], "runs/small/alignments/cut", "--train.monitor", "val/word_error_rate"]
    capsys.readouterr()
    shell("train", "small.toml", "--run.name", "early", *half, code=DataError.exit_code)
    shell(*words, "--name", "cut")

    said = capsys.readouterr().err
    assert "are not complete: 1 of 3 shards are there" in said
    assert "1 of 3 shards of alignments are there already" in said
    assert contents("runs/small/alignments/cut") == contents("runs/small/alignments/whole")
    assert sorted(contents("runs/small/alignments/cut")) == [
        "manifest.json",
        *(f"shard-0000{n}.parquet" for n in range(3)),
    ]


def test_what_is_stored_is_not_aligned_again(capsys):
    before = contents(STORE)
    capsys.readouterr()

    shell("align", "runs/small")

    assert contents(STORE) == before
    assert "1 of 1 shards of alignments are there already" in capsys.readouterr().err


def test_priors_taken_off_spread_the_spikes_of_ctc(capsys):
    capsys.readouterr()
    shell("align", "runs/small")
    usual = capsys.readouterr().err
    shell("align", "runs/small", "--prior-scale", "1", "--name", "spread")
    spread = capsys.readouterr().err

    blanks = [
        sum(row["classes"].count(0) for row in stored(f).values()) for f in (STORE, "runs/small/alignments/spread")
    ]
    assert blanks[1] < blanks[0]
    assert "CTC's labels are spikes" in usual
    assert "CTC's labels are spikes" not in spread


@pytest.mark.parametrize("kind", ["ctc", "hmm"])
def test_priors_are_counted_or_averaged_as_asked(kind):
    if kind == "hmm" and not Path("runs/priors").exists():
        words = ["--train.monitor", "val/loss", "--train.max_duration", "30 steps"]
        shell("train", "small.toml", "--run.name", "priors", *FRAMEWISE, *words)
    run = {"ctc": "runs/small", "hmm": "runs/priors"}[kind]

    for name, words in {"usual": [], "count": ["--priors", "counted"], "mean": ["--priors", "averaged"]}.items():
        shell("align", run, "--prior-scale", "1", "--name", name, *words)
    shell("align", run, "--name", "plain")

    rows = {name: stored(f"{run}/alignments/{name}") for name in ("usual", "count", "mean", "plain")}
    assert rows["usual"] == rows[{"ctc": "mean", "hmm": "count"}[kind]]
    assert rows["count"] != rows["mean"]
    # Of CTC the best paths are counted, of a frame-wise network what it was trained on; by hand here.
    told = rows["plain"] if kind == "ctc" else stored(STORE)
    counts = np.bincount([one for row in told.values() for one in row["classes"]], minlength=CLASSES)
    logs = np.log(np.maximum(counts, 1) / np.maximum(counts, 1).sum())
    for name, row in rows["count"].items():
        # With priors no path scores more than that found with them, and without them none more than that without.
        plain = rows["plain"][name]
        assert row["score"] >= plain["score"] - logs[plain["classes"]].sum() - 1e-3
        assert plain["score"] >= row["score"] + logs[row["classes"]].sum() - 1e-3


def test_of_two_alignments_each_better_path_is_kept(capsys):
    early = ["--run.name", "early", "--train.max_duration", "60 steps", "--train.eval_every", "60 steps"]
    shell("train", "small.toml", *early)
    shell("align", "runs/early")
    new, old = stored("runs/early/alignments/train"), stored(STORE)

    shell("align", "runs/early", "--better-of", STORE, "--name", "better")
    kept = stored("runs/early/alignments/better")
    before = contents("runs/early/alignments/better")
    shell("align", "runs/early", "--better-of", STORE, "--name", "better")

    assert kept == {name: max(old[name], new[name], key=lambda row: row["score"]) for name in new}
    assert contents("runs/early/alignments/better") == before
    shell("align", "runs/small", "--better-of", "runs/early/alignments/train", "--name", "other-way")
    assert stored("runs/small/alignments/other-way") == kept
    capsys.readouterr()
    shell("align", "runs/small", "--better-of", STORE, code=ConfigError.exit_code)
    assert "is the folder that is written" in capsys.readouterr().err
    shell("align", "runs/small", "--topology", "linear", "--name", "even")
    wrong = ["--better-of", "runs/small/alignments/even", "--name", "wrong"]
    shell("align", "runs/small", *wrong, code=DataError.exit_code)
    assert "topology is 'hmm', but must be 'ctc'" in capsys.readouterr().err
    said = []
    found = etude.Run("runs/small", say=said.append).align(name="any", better_of=Path(wrong[1]), must_compare=False)
    assert f"{wrong[1]} holds alignments of another kind, or without scores: none of them is kept." in said
    assert stored(found.folder) == stored(STORE)


def test_linear_alignment_divides_frames_evenly_without_a_network():
    shell("align", "runs/small", "--topology", "linear", "--name", "even")

    for row, text in zip(stored("runs/small/alignments/even").values(), TRAINED, strict=True):
        frames = len(row["classes"])
        spelled = [text[t * len(text) // frames] for t in range(frames)]
        letters = dict(zip(row["classes"], spelled, strict=True))
        assert [letters[one] for one in row["classes"]] == spelled
        assert row["score"] == 0
    facts = json.loads(Path("runs/small/alignments/even/manifest.json").read_text())["facts"]
    assert (facts["topology"], facts["blank"], facts["model"]) == ("hmm", None, "")


def test_ctm_and_textgrid_tell_times_of_the_file(place):
    parts = np.concatenate([np.zeros(RATE, np.float32), spoken("ca b", seed=77)])
    soundfile.write("said.wav", parts, RATE)
    Path("part.csv").write_text("path,transcript,start,end\nsaid.wav,ca b,1.0,\n")

    shell("align", "runs/small", "part.csv", "--format", "ctm", "--output", "out", "--picture", "out")
    shell("align", "runs/small", "part.csv", "--format", "textgrid", "--output", "out")

    lines = [line.split() for line in Path("out/part.ctm").read_text().splitlines()]
    assert [(line[0], line[4], line[5]) for line in lines] == [
        ("said.wav_1.0-", "ca", "NA"),
        ("said.wav_1.0-", "b", "NA"),
    ]
    (first, _), (*_, (last, _)) = tones("ca b", 77)[0], tones("ca b", 77)
    assert float(lines[0][2]) == pytest.approx(1 + first, abs=0.08)
    assert float(lines[1][2]) == pytest.approx(1 + last, abs=0.08)
    grid = Path("out/said 1.0-.TextGrid").read_text()
    assert f"xmax = {len(parts) / RATE:.3f}" in grid
    assert 'text = "ca"' in grid
    assert "said.wav 1.0-: ca b" in Path("out/said 1.0-.svg").read_text()


def test_bad_recordings_and_labels_that_do_not_fit_are_named_and_cost_no_other_its_alignment(place, capsys):
    Path("text.wav").write_text("no audio")
    soundfile.write("short.wav", spoken("a")[:400], RATE)
    Path("bad.csv").write_text("path,transcript\nval/0.wav,ac\ntext.wav,a\nshort.wav,ab a\n")
    capsys.readouterr()

    shell("align", "runs/small", "bad.csv", code=DataError.exit_code)

    said = capsys.readouterr().err
    assert f"{place}/bad.csv, line 3: " in said
    assert f"{place}/bad.csv, line 4: it has 2 frames, but its labels need 4." in said
    assert "2 recordings could not be aligned" in said
    assert "1 of 3 recordings are aligned" in said
    rows = stored("runs/small/alignments/bad")
    assert list(rows) == ["val/0.wav", "short.wav"]
    assert (rows["short.wav"]["classes"], rows["short.wav"]["score"]) == ([], -np.inf)


def test_a_network_learns_from_alignments_and_aligns_with_ends(capsys):
    words = ["--train.max_duration", "100 steps", "--train.eval_every", "50 steps", "--loss.label_smoothing", "0.05"]
    shell("train", "small.toml", "--run.name", "frames", *FRAMEWISE, *words)
    capsys.readouterr()

    shell("validate", "runs/frames", "--json")
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["val/word_error_rate"] == 0
    assert metrics["val/left_out"] == 0
    assert 0 < metrics["val/loss"] < 0.6
    shell("predict", "runs/frames", "val/2.wav")
    assert capsys.readouterr().out == "cb a\n"

    run = etude.Run("runs/frames")
    counts = counted_labels(run.loaded.config, stored_processor(run.kind, run.loaded.config, run.folder / TOKENIZERS))
    classes = [one for row in stored(STORE).values() for one in row["classes"]]
    assert counts.frames.tolist() == np.bincount(classes, minlength=len(counts.frames)).tolist()

    shell("align", "runs/frames", "--prior-scale", "0.5", "--format", "json", "--output", "hmm")
    told = json.loads(Path("hmm/train/0.json").read_text())
    assert [one["text"] for one in told["labels"]] == list(TRAINED[0])
    assert json.loads(Path("runs/frames/alignments/train/manifest.json").read_text())["facts"]["topology"] == "hmm"
    capsys.readouterr()
    shell("align", "runs/frames", "--topology", "ctc", code=ConfigError.exit_code)
    assert "but this run's loss.type is framewise" in capsys.readouterr().err

    Path("runs/frames/alignments/val").mkdir()
    more = ["--loss.alignments", "runs/frames/alignments/train", "--train.monitor", "val/word_error_rate"]
    shell("train", "small.toml", "--run.name", "again", *FRAMEWISE[:2], *more, "--train.max_duration", "3 steps")
    assert "names no alignment of data.val, so it has no loss" in capsys.readouterr().err


def test_a_transducer_learns_along_its_paths_with_the_network_of_the_full_sum(capsys):
    along = [*FRAMEWISE, "--loss.head", "transducer", *TRANSDUCER]
    shell("train", "small.toml", "--run.name", "path", *along, "--train.max_duration", "150 steps")
    capsys.readouterr()
    shell("predict", "runs/path", "train.csv", "--checkpoint", "last")

    # The letters; a space is a pause a little longer than that between any two. Which rare string of so few is learnt
    # last hangs on the processor.
    said = capsys.readouterr().out.replace(" ", "").splitlines()
    assert sum(map(eq, said, [text.replace(" ", "") for text in TRAINED])) >= len(TRAINED) - 2
    assert column("runs/path", "train/left_out")[-1] == 0
    # Nearly all frames are blanks: a loss that counted recordings would be some 40 times as large.
    assert 0 < column("runs/path", "val/loss")[-1] < 0.5

    begun = ["--init.from", "[{checkpoint = 'runs/path/checkpoints/last'}]", "--optimizer.learning_rate", "0"]
    full = ["--loss.type", "transducer", *TRANSDUCER, *begun]
    shell("train", "small.toml", "--run.name", "full", *full, "--train.max_duration", "1 step")
    learned, loaded = (load_file(f"runs/{name}/checkpoints/last/model.safetensors") for name in ("path", "full"))
    assert learned.keys() == loaded.keys()
    assert all(torch.equal(value, loaded[name]) for name, value in learned.items())

    for run in ("path", "full"):
        shell("align", f"runs/{run}")
        facts = json.loads(Path(f"runs/{run}/alignments/train/manifest.json").read_text())["facts"]
        assert (facts["topology"], facts["blank"]) == ("transducer", 0)
        rows = stored(f"runs/{run}/alignments/train")
        assert [sum(one > 0 for one in row["classes"]) for row in rows.values()] == list(map(len, TRAINED))
    learned, found = path_classes("runs/path/alignments/train"), path_classes(STORE)
    assert sum(map(np.array_equal, learned, found)) >= 10
    shell("align", "runs/path", "--topology", "ctc", code=ConfigError.exit_code)
    shell("align", "runs/path", "--prior-scale", "1", code=ConfigError.exit_code)
    assert "classes of a transducer have no priors" in capsys.readouterr().err

    again = [*along[:3], "runs/path/alignments/train", *along[4:], "--train.monitor", "val/word_error_rate"]
    shell("train", "small.toml", "--run.name", "path-again", *again, "--train.max_duration", "2 steps")


def path_classes(store):
    """The labels of each recording with the frames that they begin at."""
    rows = [np.array(row["classes"]) for row in stored(store).values()]
    return [row * np.diff(row, prepend=0).astype(bool) for row in rows]


def test_frames_of_labels_become_a_path_with_each_label_in_its_first_frame():
    shell("align", "runs/small", "--topology", "linear", "--name", "even")
    shell("align", "runs/small", "--topology", "linear", "--name", "even-val", "--split", "val")
    words = ["--loss.alignments", "runs/small/alignments/even", "--train.monitor", "val/word_error_rate"]
    run = ["--run.name", "even", *FRAMEWISE[:2], *words, "--loss.head", "transducer", *TRANSDUCER]
    shell("train", "small.toml", *run, "--train.max_duration", "1 step")
    config = etude.Run("runs/even").loaded.config
    processor = stored_processor(SPEECH_RECOGNITION, config, Path("runs/even") / TOKENIZERS)
    speech = SPEECH_RECOGNITION.open(config, ["train"], unheard, processor)

    batch = speech.finished("train", changed=False, say=unheard).batch(np.arange(len(TRAINED)))

    for classes, text in zip(batch.frame_targets.tolist(), TRAINED, strict=True):
        frames = [one for one in classes if one >= 0]
        starts = [-(-len(frames) * place // len(text)) for place in range(len(text))]
        assert [frame for frame, one in enumerate(frames) if one] == starts
        assert processor.tokenizer.decode([one for one in frames if one]) == text


def test_a_sum_learns_from_an_alignment_beside_ctc():
    words = ["--loss.type", "sum", "--loss.heads", '["framewise", "ctc"]', "--loss.alignments", "runs/small/alignments"]

    shell("train", "small.toml", "--run.name", "both", *words, "--train.max_duration", "100 steps")

    assert column("runs/both", "val/word_error_rate")[-1] == 0
    assert column("runs/both", "train/framewise")[-1] < column("runs/both", "train/framewise")[0] / 5
    assert column("runs/both", "train/ctc")[-1] < column("runs/both", "train/ctc")[0] / 5


def test_a_sum_is_checked_as_a_frame_wise_loss_is(capsys):
    heads = ["--loss.type", "sum", "--loss.heads", '["ctc", "framewise"]']
    stores = ["--loss.alignments", "runs/small/alignments"]

    said, _ = refused(capsys, *heads, *stores, "--data.augment.speed", "0.1")
    coarse, _ = refused(capsys, *heads, *stores, "--model.subsampling", "4")
    beam = [*heads, *stores, "--task.beam_size", "4", "--train.max_duration", "1 step"]

    assert 'data.augment.speed cannot be used with the head "framewise"' in said
    assert "are not what is needed: subsampling is 2, but must be 4." in coarse
    shell("train", "small.toml", "--run.name", "beam", *beam)


def test_an_alignment_of_other_words_leads_no_transducer(place, capsys):
    lines = Path("train.csv").read_text().replace("ab c", "ba c")
    Path("other.csv").write_text(lines)

    said, code = refused(capsys, *FRAMEWISE, "--loss.head", "transducer", *TRANSDUCER, "--data.train", "other.csv")

    assert 'The alignment of "train/0.wav" in ' in said
    assert said.endswith("is not of its transcript: align again.")
    assert code == DataError.exit_code


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_frame_wise_run_that_was_cut_ends_in_the_same_bits(workers):
    words = [*FRAMEWISE, "--train.max_duration", "12 steps", "--data.augment.masks", "fixed"]
    if not Path("runs/unbroken").exists():
        shell("train", "small.toml", *words, "--run.name", "unbroken")

    more = [*words, "--run.name", f"cut-{workers}", "--data.workers", workers]
    shell("train", "small.toml", *more, "--train.max_duration", "5 steps")
    shell("train", "small.toml", *more)

    assert weights(f"runs/cut-{workers}") == weights("runs/unbroken")
    assert column(f"runs/cut-{workers}", "train/loss") == column("runs/unbroken", "train/loss")


def refused(capsys, *words):
    """What is said of a run that is refused, and its exit code."""
    capsys.readouterr()
    code = main(["train", "small.toml", "--run.name", "refused", *words])
    said = capsys.readouterr().err.splitlines()[-1]
    shutil.rmtree("runs/refused", ignore_errors=True)
    return said, code


@pytest.fixture
def more(place):
    """A manifest with a further recording, of the same letters and of another one."""
    write_corpus(place, "more", ["ab", "abd"], seed=5)
    lines = (place / "train.csv").read_text()
    for number, text in enumerate(["ab", "abd"]):
        (place / f"{text}.csv").write_text(f"{lines}more/{number}.wav,{text},s0\n")


def test_alignments_of_something_else_are_refused(place, more, capsys):
    coarse = refused(capsys, *FRAMEWISE, "--model.subsampling", "4")
    letters = refused(capsys, *FRAMEWISE, "--data.train", "abd.csv")
    nowhere = refused(capsys, *FRAMEWISE[:3], "nowhere")
    missing = refused(capsys, *FRAMEWISE, "--data.train", "ab.csv")
    shell(
        "train",
        "small.toml",
        "--run.name",
        "most",
        *FRAMEWISE,
        "--data.train",
        "ab.csv",
        "--loss.max_missing",
        "1",
        "--train.max_duration",
        "4 steps",
    )

    folder = place / STORE
    assert coarse == (
        f"etude: The alignments in {folder} are not what is needed: subsampling is 2, but must be 4.",
        DataError.exit_code,
    )
    assert letters[0].startswith(f"etude: The alignments in {folder} are not what is needed: labels is '")
    assert nowhere[0].startswith(f"etude: {place}/nowhere/train holds no alignments: make them with etude align")
    assert missing[0].endswith(
        '1 of 13 sequences have no alignment that fits: "more/0.wav" is missing. max_missing allows 0: align again, or '
        "allow more."
    )
    assert missing[1] == DataError.exit_code
    assert max(column("runs/most", "train/left_out")) == 0.25
    assert "1 of 13 sequences have no alignment that fits" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--data.augment.speed", "0.1"], "data.augment.speed cannot be used"),
        (["--data.augment.tempo", "0.1"], "data.augment.tempo cannot be used"),
        (["--data.augment.shift", "0.1"], "data.augment.shift cannot be used"),
        (["--data.join.most", "2"], "data.join cannot be used"),
        (["--task.beam_size", "4"], "task.beam_size above 1 cannot be used"),
    ],
)
def test_what_moves_the_frames_of_an_alignment_is_refused(words, told, capsys):
    said, code = refused(capsys, *FRAMEWISE, *words)

    assert f'{told} with loss.type "framewise"' in said
    assert code == ConfigError.exit_code


def test_a_run_that_is_judged_by_a_loss_needs_alignments_to_judge_by(capsys):
    said, code = refused(capsys, *FRAMEWISE[:3], STORE)

    assert "loss.alignments names no alignment of data.val, so it has no loss, but train.monitor is val/loss" in said
    assert code == ConfigError.exit_code


def test_a_run_whose_alignments_change_is_another_run(place, capsys):
    shutil.copytree("runs/small/alignments", "kept")
    words = ["--loss.type", "framewise", "--loss.alignments", "kept", "--run.name", "changing"]
    shell("train", "small.toml", *words, "--train.max_duration", "4 steps", "--train.save_every", "2 steps")
    shutil.rmtree("kept/train")
    shell("align", "runs/small", "--prior-scale", "0.5", "--name", "scaled")
    shutil.copytree("runs/small/alignments/scaled", "kept/train")
    capsys.readouterr()

    code = main(["train", "small.toml", *words, "--train.max_duration", "6 steps", "--train.save_every", "2 steps"])

    assert code == 7
    assert "The content of data.train (or its tokenization) has changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--topology", "rna"], "--topology must be ctc, hmm, transducer, linear, but is rna."),
        (
            ["--topology", "linear", "--prior-scale", "1"],
            "--prior-scale is for a network, but --topology linear asks none",
        ),
        (["--topology", "transducer"], "but this run's loss.type is ctc; --topology linear needs none."),
        (["--priors", "guessed", "--prior-scale", "1"], "--priors must be counted or averaged, but is guessed."),
        (["--priors", "counted"], "--priors says which ones --prior-scale takes off: give that too."),
        (["--topology", "linear", "--better-of", "x"], "--better-of is for a network, but --topology linear asks none"),
        (["--prior-scale", "nan"], "--prior-scale must be a finite number, but is nan."),
        (["--format", "json"], "--format and --output go together"),
        (["--format", "srt", "--output", "x"], "--format must be textgrid, ctm, json, but is srt."),
        (["--name", "../up"], '--name must be the name of one folder, but is "../up".'),
        (["--shard-size", "0"], "--shard-size must be at least 1, but is 0."),
    ],
)
def test_what_cannot_be_aligned_so_is_refused_in_a_sentence(words, told, capsys):
    shell("align", "runs/small", *words, code=ConfigError.exit_code)

    assert told in capsys.readouterr().err


def test_without_pyarrow_a_sentence_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    shell("align", "runs/small", "--name", "never", code=ConfigError.exit_code)

    assert "run pip install 'etude[outputs]'" in capsys.readouterr().err
    assert not Path("runs/small/alignments/never").exists()


def test_other_tasks_have_nothing_to_align():
    with pytest.raises(ConfigError, match="etude align is for speech_recognition, but this run's task is a Linear"):
        TRANSLATION.aligner(nn.Linear(1, 1), None, None)


def test_python_aligns_as_the_shell_does(capsys):
    found = etude.Run("runs/small").align("val", name="from-python", prior_scale=0.5, batch_size=1)
    shell("align", "runs/small", "--split", "val", "--name", "from-shell", "--prior-scale", "0.5", "--batch-size", "1")

    assert found.folder == Path("runs/small/alignments/from-python")
    assert (found.aligned, dict(found.missing)) == (3, {})
    assert stored(found.folder) == stored("runs/small/alignments/from-shell")
    with pytest.raises(ConfigError, match="prior_skale is no option of an alignment; did you mean prior_scale"):
        etude.Run("runs/small").align(prior_skale=1)


def test_what_is_wrong_with_data_is_said_of_data(place, capsys):
    shell("align", "runs/small", "gone.csv", code=DataError.exit_code)
    gone = capsys.readouterr().err.splitlines()[-1]
    Path("other-columns.csv").write_text("path,said\na.wav,ab\n")
    shell("align", "runs/small", "other-columns.csv", code=DataError.exit_code)

    assert gone == f"etude: DATA names {place}/gone.csv, which does not exist."
    assert "data.test" not in capsys.readouterr().err
