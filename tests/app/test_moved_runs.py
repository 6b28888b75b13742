"""A run folder that is moved, copied or cannot be written is used where it lies, and nothing is written elsewhere."""

import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from etude.app.cli.main import main
from etude.app.running import train_run
from etude.app.runs.run import Run
from etude.base.config.writing import toml
from etude.base.errors import StorageError
from etude.tasks.config import load_config

CONFIG = """
[task]
type = "translation"
metrics = []
[data]
train = "pairs.tsv"
val = "pairs.tsv"
test = "pairs.tsv"
[tokenizer]
type = "byte"
[model]
d_model = 8
heads = 2
encoder_layers = 1
decoder_layers = 1
feedforward = 8
[optimizer]
learning_rate = 1e-3
[train]
max_duration = "4 steps"
save_every = "2 steps"
batch_size = 2
device = "cpu"
precision = "float32"
[log]
progress = false
tensorboard = false
"""
LONGER = ["--train.max_duration", "6 steps"]
READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
MOUNTS = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh"]


def can_mount(folder):
    try:
        return subprocess.run([*MOUNTS, folder, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A home with data and a run that is finished, which tests copy."""
    home = tmp_path_factory.mktemp("moved")
    (home / "pairs.tsv").write_text("one two\tuno dos\n" * 8)
    (home / "c.toml").write_text(CONFIG)
    train_run(load_config(home / "c.toml", {"run.dir": str(home / "runs")}), say=lambda _: None)
    return home


@pytest.fixture
def home(made, tmp_path, monkeypatch):
    """The same, in a place of its own; its config says that it lies in the first."""
    shutil.copytree(made, tmp_path / "home", symlinks=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def hashes(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def shell(*words, code=0):
    assert main([str(word) for word in words]) == code


def moved(home):
    (home / "elsewhere").mkdir()
    return (home / "runs" / "c").rename(home / "elsewhere" / "other name")


def copied(home):
    return Path(shutil.copytree(home / "runs" / "c", home / "copy", symlinks=True))


def copied_with_links_followed(home):
    return Path(shutil.copytree(home / "runs" / "c", home / "copy"))


PLACES = [moved, copied, copied_with_links_followed]


@pytest.mark.parametrize("place", PLACES)
def test_a_run_is_trained_where_its_config_lies(made, home, place, capsys):
    before, run = hashes(made), place(home)
    original = hashes(home / "runs") if place is not moved else {}

    shell("train", run / "config.toml")
    assert "Nothing to do: the run is finished" in capsys.readouterr().err
    shell("train", run / "config.toml", *LONGER)

    assert (run / "checkpoints" / "last").readlink().name == "step-00000006"
    assert (run / "checkpoints" / "best").is_symlink()
    assert hashes(made) == before
    assert place is moved or hashes(home / "runs") == original
    straight = load_config(home / "c.toml", ["--run.dir", str(home / "straight"), *LONGER])
    train_run(straight, say=lambda _: None)
    assert (
        Run(run).checkpoint("last").joinpath("model.safetensors").read_bytes()
        == (straight.config.folder / "checkpoints" / "last" / "model.safetensors").read_bytes()
    )


@pytest.mark.parametrize("place", PLACES)
def test_a_run_is_used_where_it_lies(made, home, place, capsys):
    before, run = hashes(made), place(home)

    shell("test", run)
    shell("validate", run)
    shell("predict", run, "pairs.tsv" if Path("pairs.tsv").exists() else home / "pairs.tsv")
    shell("diff", run, made / "runs" / "c")
    shell("fork", run, "--at", "2 steps", "--run.name", "forked", "--no-train")

    told = capsys.readouterr()
    assert "equal to step 4" in told.out
    assert (run / "outputs" / "test.txt").exists()
    following = told.err.rpartition("Next:\n")[2].split(" train ")[1].strip().strip("'")
    assert Path(following).absolute() == run.resolve().parent / "forked" / "config.toml"
    shell("train", following)
    assert (run.parent / "forked" / "checkpoints" / "last").readlink().name == "step-00000004"
    assert hashes(made) == before


def test_another_name_still_makes_another_run(home):
    shell("train", home / "runs" / "c" / "config.toml", "--run.name", "other", "--train.max_duration", "1 step")

    assert (home / "runs" / "other" / "checkpoints" / "last").readlink().name == "step-00000001"


def test_what_a_config_says_of_its_place_is_not_written_to(home, tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    run = Path(shutil.copytree(home / "runs" / "c", tmp_path / "foreign" / "c", symlinks=True))
    config = copy.deepcopy(load_config(run / "config.toml").data)
    config["run"] |= {"dir": str(victim), "name": "x"}
    (run / "config.toml").write_text(toml(config))
    (run / "environment.json").unlink()

    Run(run).test()

    assert list(victim.iterdir()) == []
    assert [path.name for path in run.parent.iterdir()] == ["c"]


@pytest.mark.parametrize("name", ["metrics.jsonl", "outputs", "tokenizers/source.json", "checkpoints"])
@pytest.mark.parametrize("verb", ["test", "predict", "diff", "fork"])
def test_links_that_lead_out_of_a_run_are_not_followed(home, tmp_path, verb, name, capsys):
    victim, path = tmp_path / "victim", home / "runs" / "c" / name
    if path.exists():
        path.rename(victim)
    else:
        victim.mkdir()
    path.symlink_to(victim)
    before = hashes(tmp_path)
    more = {"diff": [home / "runs" / "c"], "fork": ["--at", "2 steps"]}.get(verb, [])

    shell(verb, home / "runs" / "c", *more, code=5)

    assert "outside of the run folder" in capsys.readouterr().err
    assert hashes(tmp_path) == before


READERS = {
    "test": ["home/runs/c", "--data.test", "home/pairs.tsv"],
    "validate": ["home/runs/c", "--data.val", "home/pairs.tsv"],
    "predict": ["home/runs/c", "home/pairs.tsv"],
    "diff": ["home/runs/c", "home/runs/c"],
    "fork": ["home/runs/c", "--at", "2 steps"],
    "train": ["home/runs/c/config.toml", *LONGER],
}
ONE_PROCESS = """
import contextlib, io, json, sys
from etude.__main__ import main
answers = {}
for verb, words in json.loads(sys.argv[1]).items():
    with contextlib.redirect_stderr(io.StringIO()) as told, contextlib.redirect_stdout(io.StringIO()):
        answers[verb] = main([verb, *words])
    answers[verb] = answers[verb], told.getvalue()
print(json.dumps(answers))
"""


def test_a_run_that_is_mounted_read_only_is_used_all_the_same(home, tmp_path):
    if not can_mount(tmp_path):
        pytest.skip("nothing can be mounted here")
    before = hashes(home)

    command = [*MOUNTS, home, sys.executable, "-c", ONE_PROCESS, json.dumps(READERS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    answers = json.loads(done.stdout)
    assert {verb: code for verb, (code, _) in answers.items()} == {**dict.fromkeys(READERS, 0), "fork": 5, "train": 5}
    assert all("Read-only file system" in answers[verb][1] for verb in ("fork", "train"))
    assert "cannot be written: the test leaves no predictions and no row there" in answers["test"][1]
    assert hashes(home) == before


# -- whose a checkpoint is ---------------------------------------------------------------------------------------------


def other_run(home):
    """A run of equal shapes and another seed."""
    loaded = load_config(home / "c.toml", {"run.dir": str(home / "runs"), "run.name": "other", "run.seed": 2})
    train_run(loaded, say=lambda _: None)
    return loaded.config.folder


def in_the_place_of(checkpoint, other):
    shutil.rmtree(checkpoint)
    shutil.copytree(other / "checkpoints" / checkpoint.name, checkpoint)


VERBS = {
    "test": ["--device", "cpu"],
    "validate": ["--device", "cpu"],
    "predict": [],
    "export": ["out"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_checkpoint_without_its_manifest_or_of_another_run_is_refused(home, verb, capsys, monkeypatch):
    run = home / "runs" / "c"
    checkpoint, other = run / "checkpoints" / "step-00000004", other_run(home)
    words = [verb, run, *(VERBS[verb] if verb == "export" else [home / "pairs.tsv"] if verb == "predict" else [])]
    (checkpoint / "manifest.json").rename(home / "kept")
    shell(*words, "--checkpoint", "last", code=5)
    assert "is not a complete checkpoint: it has no manifest.json" in capsys.readouterr().err

    in_the_place_of(checkpoint, other)
    shell(*words, "--checkpoint", "last", code=5)
    assert "is a checkpoint of another run" in capsys.readouterr().err


def test_a_foreign_checkpoint_is_not_resumed_from_and_is_kept(home, capsys):
    run = home / "runs" / "c"
    checkpoint, other = run / "checkpoints" / "step-00000004", other_run(home)
    in_the_place_of(checkpoint, other)
    foreign = hashes(checkpoint)

    shell("train", run / "config.toml")

    said = capsys.readouterr().err
    assert "is a checkpoint of another run" in said
    assert "Resuming from step 2" in said
    assert "is kept as damaged-step-00000004" in said
    assert hashes(run / "checkpoints" / "damaged-step-00000004") == foreign
    assert hashes(checkpoint)["model.safetensors"] != foreign["model.safetensors"]


@pytest.mark.parametrize("spoil", ["cut", "no manifest", "a manifest of another config"])
def test_what_a_fallback_could_not_read_is_kept(home, spoil):
    run = home / "runs" / "c"
    checkpoint = run / "checkpoints" / "step-00000004"
    manifest = checkpoint / "manifest.json"
    if spoil == "cut":
        os.truncate(checkpoint / "model.safetensors", 100)
    elif spoil == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "config": "0" * 64}))
    before = hashes(checkpoint)

    shell("train", run / "config.toml")

    assert hashes(run / "checkpoints" / "damaged-step-00000004") == before
    assert Run(run).checkpoint("last").name == "step-00000004"


def test_a_run_of_before_that_wrote_no_configs_down_goes_on_and_knows_its_own_from_then_on(home):
    run = home / "runs" / "c"
    told = json.loads((run / "environment.json").read_text())
    known = told.pop("configs")
    (run / "environment.json").write_text(json.dumps(told))

    Run(run).test()
    shell("train", run / "config.toml", *LONGER)

    assert json.loads((run / "environment.json").read_text())["configs"][: len(known)] == known
    Run(run).load("4")
    in_the_place_of(run / "checkpoints" / "step-00000006", trained_longer(home))
    with pytest.raises(StorageError, match="of another run"):
        Run(run).load("6")


def trained_longer(home):
    over = {"run.dir": str(home / "runs"), "run.name": "other", "run.seed": 2, "train.max_duration": "6 steps"}
    loaded = load_config(home / "c.toml", over)
    train_run(loaded, say=lambda _: None)
    return loaded.config.folder
