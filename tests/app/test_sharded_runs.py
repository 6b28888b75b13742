"""What reads a run takes one whose checkpoints several ranks have written, in one process."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from texts_of_runs import CONFIG, folder, train

from etude.__main__ import main
from etude.app.average import average
from etude.train.memory.checkpoint import read_weights, verify

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))

from in_ranks import in_ranks

SHARDED = {"distributed.strategy": "fsdp", "train.ema_decay": 0.9}


def begun(rank, options, name):
    train(options, name)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with texts, a config, and two runs of it: of one process, and of two ranks with sharded weights."""
    place = tmp_path_factory.mktemp("sharded")
    folder(place / "texts")
    (place / "lm.toml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        train(SHARDED, "one")
        in_ranks(2, begun, SHARDED, "two")
    return place


@pytest.fixture(autouse=True)
def there(made, monkeypatch):
    """Work in it."""
    monkeypatch.chdir(made)


def last(run):
    return Path("runs", run, "checkpoints", "last").resolve()


def assert_close(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=2e-4, atol=2e-6)


def test_its_checkpoints_are_shared_out():
    files = verify(last("two"))["files"]

    assert {"model-00001-of-00002.safetensors", "ema-00002-of-00002.safetensors"} < files.keys()
    assert "model.safetensors" not in files
    assert_close(read_weights(last("two"), averaged=True), read_weights(last("one"), averaged=True))


def test_predict_and_validate_work_in_one_process(capsys):
    said = []
    for run in ("one", "two"):
        assert main(["predict", f"runs/{run}", "--prompt", "the red", "--temperature", "0"]) == 0
        assert main(["validate", f"runs/{run}"]) == 0
        said.append(capsys.readouterr())

    assert said[0].out == said[1].out
    assert "val/loss" in said[1].out


def test_checkpoints_are_averaged():
    place, _ = average("runs/two", last=2)

    found = load_file(place / "model.safetensors")
    held = [read_weights(path, averaged=True) for path in sorted(Path("runs/two/checkpoints").glob("step-*"))[-2:]]
    for name, value in found.items():
        torch.testing.assert_close(value, (held[0][name] + held[1][name]) / 2)
    assert "of the moving average" in average("runs/two", last=2, output="again")[1]


def test_the_export_holds_all_weights(tmp_path):
    for run in ("one", "two"):
        assert main(["export", f"runs/{run}", str(tmp_path / run)]) == 0

    assert_close(load_file(tmp_path / "two" / "model.safetensors"), load_file(tmp_path / "one" / "model.safetensors"))


def test_it_is_forked():
    assert main(["fork", "runs/two", "--at", "4 steps"]) == 0

    assert verify(last("two-fork-4"))["step"] == 6
    assert_close(read_weights(last("two-fork-4")), read_weights(last("two")))


def test_it_is_compared_with_a_run_whose_files_are_whole(capsys):
    assert main(["diff", "runs/two", "runs/two", "--json"]) == 0
    assert main(["diff", "runs/one", "runs/two"]) == 0

    said = capsys.readouterr().out
    assert "optimizer" in said
    assert "shapes" not in said


def test_another_run_begins_with_its_weights():
    train({"init.from": "runs/two", "train.max_duration": "1 steps", "optimizer.learning_rate": 0.0}, "new")

    found, wanted = read_weights(last("new")), read_weights(last("two").parent / "best", averaged=True)
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name
    told = json.loads(Path("runs/new/init.json").read_text())
    assert told["from"][0]["loaded"] == len(wanted)


def test_it_is_planned_and_listed(capsys):
    assert main(["plan", "lm.toml", "--run.name", "two", "--distributed.strategy", "fsdp"]) == 0
    assert main(["runs"]) == 0

    assert "two" in capsys.readouterr().out


def test_it_goes_on_in_one_process():
    for run in ("one", "two"):
        shutil.copytree(f"runs/{run}", f"runs/{run}-longer", symlinks=True)
        train({**SHARDED, "train.max_duration": "8 steps"}, f"{run}-longer")

    assert_close(read_weights(last("two-longer")), read_weights(last("one-longer")))
    assert verify(last("two-longer"))["step"] == 8
    assert "model.safetensors" in verify(last("two-longer"))["files"]
