"""Mistakes with what is stored: run folders that cannot be written (5), are damaged (5), or are another run's (7)."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from mistaken import PAIRS, RUN, Mistake, answer, check, config, write

TRAIN, TEST, VALIDATE = ("train", "translate.toml"), ("test", str(RUN)), ("validate", str(RUN))
LAST = RUN / "checkpoints" / "last"


def stored(name, words, code, *says, spoil=None, **more):
    """A command on a run that is there, after something was done to its folder."""
    return Mistake(name, says, code=code, words=tuple(words), spoil=spoil, **more)


def cut(name):
    """Cut a file of every checkpoint short."""

    def spoil(run):
        for file in run.glob(f"checkpoints/step-*/{name}"):
            file.write_bytes(file.read_bytes()[:-7])

    return spoil


def flip(name):
    """Flip one bit in the middle of a file of every checkpoint."""

    def spoil(run):
        for file in run.glob(f"checkpoints/step-*/{name}"):
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(content)

    return spoil


def remove(pattern):
    """Remove files of the run."""

    def spoil(run):
        for file in run.glob(pattern):
            shutil.rmtree(file) if file.is_dir() and not file.is_symlink() else file.unlink()

    return spoil


def put(name, content):
    """Write something else into a file of the run."""

    def spoil(run):
        for file in run.glob(name):
            file.write_bytes(content)

    return spoil


def resized(run):
    """Let the run's own config ask for another shape than its weights have."""
    composed = run / "config.toml"
    composed.write_text(composed.read_text().replace("feedforward = 8", "feedforward = 16"))


def coded(run):
    """Let the run's own config name code."""
    composed = run / "config.toml"
    composed.write_text(composed.read_text().replace('type = "translation"', 'type = "own.py:Task"'))


def outside(run):
    """Let a manifest name a file outside of its checkpoint."""
    for file in run.glob("checkpoints/step-*/manifest.json"):
        manifest = json.loads(file.read_text())
        manifest["files"]["../../config.toml"] = manifest["files"]["state.json"]
        file.write_text(json.dumps(manifest))


def change(section, line):
    return {"edit": {section: line}}


DAMAGED = [
    stored("weights cut short", VALIDATE, 5, "model.safetensors", "cut short", spoil=cut("model.safetensors")),
    stored("a flipped bit", VALIDATE, 5, "model.safetensors", "damaged", "sha256", spoil=flip("model.safetensors")),
    stored(
        "a missing file",
        VALIDATE,
        5,
        "model.safetensors",
        "is missing",
        spoil=remove("checkpoints/*/model.safetensors"),
    ),
    stored(
        "a manifest that is none",
        VALIDATE,
        5,
        "manifest.json",
        "damaged",
        spoil=put("checkpoints/*/manifest.json", b"{"),
    ),
    stored("a manifest that leads outside", VALIDATE, 5, "outside", spoil=outside),
    stored(
        "no sound checkpoint to go on from",
        TRAIN,
        5,
        "No checkpoint",
        "is intact",
        "model.safetensors",
        spoil=cut("model.safetensors"),
    ),
    stored("no sound state to go on from", TRAIN, 5, "No checkpoint", "is intact", spoil=flip("state.json")),
    stored("no checkpoint at all", TEST, 5, "has no checkpoint 'best'; it has none yet", spoil=remove("checkpoints")),
    stored("a step that is not there", (*TEST, "--checkpoint", "77"), 5, "no checkpoint '77'", "steps: 1, 2"),
    stored("a checkpoint by a wrong path", (*TEST, "--checkpoint", "gone/step-1"), 5, "no checkpoint 'gone/step-1'"),
    stored("a tokenizer that is missing", VALIDATE, 7, "tokenizers", spoil=remove("tokenizers/*")),
    stored(
        "a tokenizer that is damaged", VALIDATE, 5, "tokenizers/shared.json", spoil=put("tokenizers/shared.json", b"{")
    ),
    stored("a data record that is damaged", TRAIN, 5, "data.json is damaged", spoil=put("data.json", b"{")),
    stored("a config that is damaged", TEST, 2, "config.toml", "not valid TOML", spoil=put("config.toml", b"[")),
    stored("another shape of the weights", VALIDATE, 7, "do not fit this model", "has shape", spoil=resized),
]

REFUSED = [
    stored(
        "another model",
        TRAIN,
        7,
        "began with another config",
        "model.feedforward was 8 and is 16",
        "--run.name",
        **change("model", "feedforward = 16"),
    ),
    stored("another seed", TRAIN, 7, "run.seed was 1 and is 2", "--run.name", **change("run", "seed = 2")),
    stored(
        "another rate",
        TRAIN,
        7,
        "optimizer.learning_rate was 0.001 and is 0.002",
        **change("optimizer", "learning_rate = 2e-3"),
    ),
    stored(
        "other data",
        TRAIN,
        7,
        "content of data.train",
        "has changed",
        "--run.name",
        files={"train.tsv": PAIRS + "six\tSIX\n"},
    ),
    stored("other validation data", TRAIN, 7, "content of data.val", files={"val.tsv": PAIRS + "six\tSIX\n"}),
    stored(
        "an older config that cannot be read",
        TRAIN,
        7,
        "config.toml can no longer be read",
        spoil=put("config.toml", b"["),
    ),
    stored("code of its own", TEST, 7, "own.py:Task", "--allow-code", spoil=coded),
]

ASKED = [
    stored(
        "no test split and no other", (*TEST, "--data.val", "none"), 2, "data.test is not set", "--data.test pairs.tsv"
    ),
    stored("a test split that is missing", (*TEST, "--data.test", "gone.tsv"), 3, "data.test names", "gone.tsv"),
    stored(
        "a device that is none",
        ("validate", str(RUN), "--device", "cupu"),
        2,
        "device must be auto, cuda, cuda:N, mps or cpu",
    ),
    stored(
        "a key of a run misspelt", (*TEST, "--task.beam_sise", "2"), 2, "task.beam_sise", "did you mean task.beam_size?"
    ),
    stored("a batch of none", (*TEST, "--batch-size", "0"), 2, "--batch-size must be at least 1"),
    stored("a file of lines that is missing", ("predict", str(RUN), "gone.txt"), 3, "gone.txt does not exist"),
    stored(
        "lines that are no text",
        ("predict", str(RUN), "lines.txt"),
        3,
        "lines.txt, line 2",
        "UTF-8",
        files={"lines.txt": b"one\n\xff\n"},
    ),
    stored("an output in no folder", ("predict", str(RUN), "val.tsv", "--output", "gone/out.txt"), 5, "gone/out.txt"),
]


@pytest.mark.parametrize("mistake", DAMAGED + REFUSED + ASKED, ids=str)
def test_a_mistake_with_a_run_is_one_line_that_names_what_is_wrong(mistake, run, home, capsys):
    write(home, {"translate.toml": config(mistake.edit)} | dict(mistake.files))
    if mistake.spoil is not None:
        mistake.spoil(run)

    check(mistake, capsys)


NOWHERE = [
    Mistake(f"{verb} without a run", ("nowhere is not a run folder",), code=5, words=(verb, "nowhere"))
    for verb in ("test", "validate", "predict")
] + [
    Mistake("the runs of no folder", ("nowhere is not a folder",), code=5, words=("runs", "nowhere")),
    Mistake("a run that is a file", ("train.tsv is not a run folder",), code=5, words=("test", "train.tsv")),
    Mistake("a run folder below a file", ("train.tsv", "Not a directory"), code=5, edit={"run": 'dir = "train.tsv"'}),
    Mistake(
        "a run folder that is a file", ("runs/translate", "File exists"), code=5, files={"runs/translate": "in the way"}
    ),
    Mistake("a run folder where nothing can be", ("/proc",), code=5, edit={"run": 'dir = "/proc/runs"'}),
    Mistake(
        "a checkpoint folder that is a file",
        ("checkpoints",),
        code=5,
        files={"runs/translate/checkpoints": "in the way"},
    ),
    Mistake("metrics that are a folder", ("metrics.jsonl",), code=5, files={"runs/translate/metrics.jsonl/a": ""}),
    Mistake("a cache that is a file", (".cache",), code=5, files={"runs/.cache": "in the way"}),
]


@pytest.mark.parametrize("mistake", NOWHERE, ids=str)
def test_a_folder_that_cannot_be_a_run_is_one_line(mistake, home, capsys):
    write(home, {"translate.toml": config(mistake.edit)} | dict(mistake.files))

    check(mistake, capsys)

    assert not list(home.glob("runs/*/checkpoints/step-*"))


HOLD = """
import sys
from pathlib import Path
from etude.train.lock import claimed
with claimed(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_on_a_run_folder_is_refused_and_told_of_the_first(run, capsys):
    command = [sys.executable, "-c", HOLD, str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout.readline() == b"held\n"

        code, errors, _ = answer(capsys, TRAIN)

        first.stdin.close()
    assert len(errors) == 1
    assert code == 7
    assert f"in use by process {first.pid}" in errors[0]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (TRAIN, 2, b"train.clip_gard is not a key of [train]; did you mean train.clip_grad? (translate.toml, line 2)."),
        pytest.param(["test", "nowhere"], 5, b"nowhere is not a run folder", marks=pytest.mark.acceptance),
        (["trian"], 2, b"did you mean train?"),
    ],
)
def test_a_process_ends_with_the_code_and_one_line_and_no_traceback(words, code, says, home):
    (home / "translate.toml").write_text('[train]\nclip_gard = 1.0\n\n[task]\ntype = "translation"\n')

    done = subprocess.run([sys.executable, "-m", "etude", *words], capture_output=True, check=False, env=_plain())

    assert done.returncode == code
    assert done.stderr.count(b"\n") == 1
    assert done.stderr.startswith(b"etude: ")
    assert says in done.stderr
    assert done.stdout == b""


def _plain():
    """An environment as poor as a cron job's."""
    kept = {"PATH", "PYTHONPATH", "OMP_NUM_THREADS"}
    return {key: value for key, value in os.environ.items() if key in kept} | {"LC_ALL": "C"}
