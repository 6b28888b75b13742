"""Folders and files that somebody has prepared, or that are broken: a sentence or a line of a table, never more."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

import etude
from etude.app.cli.main import main
from etude.app.running import train_run
from etude.base.config.writing import toml
from etude.data.tokens.tokenizers import tokenizer_from
from etude.errors import DataError
from etude.tasks.config import load_config

CONFIG = """
[task]
type = "translation"
metrics = []
[data]
train = "pairs.tsv"
val = "pairs.tsv"
[tokenizer]
type = "byte"
[model]
d_model = 8
heads = 2
encoder_layers = 1
decoder_layers = 1
feedforward = 8
[train]
max_duration = "2 steps"
batch_size = 8
device = "cpu"
[log]
progress = false
tensorboard = false
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("hostile")
    (home / "pairs.tsv").write_text("one two\tuno dos\n" * 8)
    (home / "c.toml").write_text(CONFIG)
    train_run(load_config(home / "c.toml", {"run.dir": str(home / "runs")}), say=lambda _: None)
    return home / "runs" / "c"


@pytest.fixture
def runs(made, tmp_path):
    """A folder with a sound run beside which a bad one is made."""
    shutil.copytree(made, tmp_path / "runs" / "good", symlinks=True)
    shutil.copytree(made, tmp_path / "runs" / "bad", symlinks=True)
    return tmp_path / "runs"


def shell(*words):
    return main([str(word) for word in words])


def link_to_zero(bad):
    (bad / "metrics.jsonl").unlink()
    (bad / "metrics.jsonl").symlink_to("/dev/zero")


def fifos(bad):
    for name in ("metrics.jsonl", "environment.json", "data.json", "config.toml"):
        (bad / name).unlink()
        os.mkfifo(bad / name)


def a_fifo_for_a_manifest(bad):
    for manifest in bad.glob("checkpoints/step-*/*.json"):
        manifest.unlink()
        os.mkfifo(manifest)


def odd_manifests(bad):
    for manifest in bad.glob("checkpoints/step-*/manifest.json"):
        manifest.write_text('{"step": "x", "metrics": [1], "format": {}, "files": 3}')


def huge_numbers(bad):
    (bad / "metrics.jsonl").write_text('{"step": 1e999, "epoch": "x", "val/loss": true}\n')
    for manifest in bad.glob("checkpoints/step-*/manifest.json"):
        manifest.write_text('{"step": 1e999, "metrics": {"val/loss": {}}}')


def an_odd_end(bad):
    for state in bad.glob("checkpoints/step-*/state.json"):
        state.write_text('{"ended": {"kind": "length", "says": [1]}, "progress": 3}')


def deep_toml(bad):
    (bad / "config.toml").write_text("a = " + "[" * 50_000)


def a_long_key(bad):
    (bad / "config.toml").write_text(".".join(["a"] * 60_000) + " = 1\n")


def deep_json(bad):
    for path in [*bad.rglob("*.json"), bad / "metrics.jsonl"]:
        path.write_text('{"a":' * 100_000)


def no_text(bad):
    for path in [*bad.rglob("*.json"), bad / "metrics.jsonl", bad / "config.toml"]:
        path.write_bytes(bytes(range(256)) * 40)


def nothing(bad):
    for path in [*bad.rglob("*.json"), bad / "metrics.jsonl", bad / "config.toml"]:
        path.write_bytes(b"")


def folders(bad):
    for name in ("metrics.jsonl", "environment.json", "config.toml"):
        (bad / name).unlink()
        (bad / name).mkdir()


DAMAGES = [link_to_zero, fifos, a_fifo_for_a_manifest, odd_manifests, huge_numbers, an_odd_end]
DAMAGES += [deep_toml, a_long_key, deep_json, no_text, nothing, folders]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_folder_is_a_line_of_the_table(runs, damage, capsys):
    damage(runs / "bad")

    assert shell("runs", runs) == 0
    told = capsys.readouterr()
    lines = {line.split()[0]: line for line in told.out.splitlines()[1:]}
    assert set(lines) == {"good", "bad"}
    assert lines["good"].split()[1:3] == ["finished", "2"]
    assert shell("runs", runs, "--json") == 0
    assert [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_verb_says_in_a_sentence_what_is_wrong_or_does_its_work(runs, damage, capsys, monkeypatch):
    monkeypatch.chdir(runs)
    damage(runs / "bad")
    (runs / "lines.txt").write_text("one\n")

    for words in (["test", "bad"], ["predict", "bad", "lines.txt"], ["diff", "bad", "good"], ["export", "bad", "out"]):
        code = shell(*words)
        said = capsys.readouterr().err
        assert code in {0, 2, 3, 5, 7}, said
        assert "Traceback" not in said
        assert code == 0 or len([line for line in said.splitlines() if line.startswith("etude:")]) <= 6
    code = shell("fork", "bad", "--at", "1 steps", "--no-train")
    assert code in {0, 2, 3, 5, 7}, capsys.readouterr().err
    assert (
        code in {0, 2, 3, 5, 7} if damage in {fifos, folders} else shell("train", "bad/config.toml") in {0, 2, 3, 5, 7}
    )


def test_control_characters_of_a_run_reach_no_terminal(runs, capsys):
    escape = "\x1b]0;owned\x07\x9b31m"
    data = json.loads(json.dumps(load_config(runs / "good" / "config.toml").data))
    data["init"]["weights"] = {f"{escape}\n*": f"zeros{escape}"}
    (runs / "bad" / "config.toml").write_text(toml(data))
    for name in ("data.json", "environment.json"):
        (runs / "bad" / name).write_text(json.dumps({f"train{escape}\n": escape, "versions": {escape: escape}}))
    (runs / "bad" / "metrics.jsonl").write_text(json.dumps({"step": 1, f"train/{escape}": 1.0, "val/loss": 3}) + "\n")
    (runs / "bad").rename(runs / f"bad{escape}")

    assert shell("diff", runs / f"bad{escape}", runs / "good") == 0
    assert shell("runs", runs) == 0
    told = capsys.readouterr()
    assert not {sign for sign in told.out + told.err if sign < " " or "\x7f" <= sign <= "\x9f"} - {"\n"}
    assert "owned" in told.out


PARTS = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None}
PARTS |= {"pre_tokenizer": None, "post_processor": None, "decoder": None}
PARTS |= {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [], "unk_token": "a"}}


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*$"])
def test_a_regular_expression_that_never_ends_is_told_of(pattern):
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    made = tokenizer_from(json.dumps({**PARTS, "pre_tokenizer": split}), name="x.json")

    with pytest.raises(DataError, match=r"The tokenizer cannot encode this text: .*retry-limit"):
        made.encode("a" * 20_000 + "b")


def test_a_part_that_the_library_fails_at_is_told_of_in_a_sentence_alone(capfd):
    broken = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}

    with pytest.raises(DataError, match=r"x\.json is not a tokenizer.json that the tokenizers library reads"):
        tokenizer_from(json.dumps({**PARTS, "normalizer": broken}), name="x.json")
    sys.stderr.write("still there\n")
    assert capfd.readouterr().err == "still there\n"


# -- what a run says is never its end ----------------------------------------------------------------------------------


class Wide(etude.Task):
    def __init__(self):
        super().__init__()
        self.net = etude_linear()

    def training_step(self, batch):
        return (self.net(batch[0]) - batch[1]).square().mean()


def etude_linear():
    import torch

    torch.manual_seed(1)
    return torch.nn.Linear(3, 1)


def data():
    import torch

    return torch.utils.data.TensorDataset(torch.ones(8, 3), torch.ones(8, 1))


def full():
    return Path("/dev/full").open("w", buffering=1)


def closed():
    stream = Path(os.devnull).open("w")  # noqa: SIM115 - closed at once
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [full, closed, lambda: None])
def test_a_log_that_cannot_be_written_does_not_end_a_run(tmp_path, monkeypatch, stream):
    made = stream()
    monkeypatch.setattr(sys, "stderr", made)
    trainer = etude.Trainer(max_duration="3 steps", batch_size=4, run_dir=tmp_path / "run", device="cpu", loggers=[])

    result = trainer.fit(Wide(), data(), data())
    (tmp_path / "run" / "metrics.jsonl").unlink()
    trainer.test(data=data())

    assert result.progress.step == 3
    monkeypatch.undo()
    if made is not None and not made.closed:
        try:
            made.close()
        except OSError:
            assert stream is full


def test_a_say_of_the_users_that_cannot_write_does_not_end_a_run(tmp_path):
    def say(sentence):
        raise BrokenPipeError(sentence)

    options = {"batch_size": 4, "device": "cpu", "loggers": [], "progress": False}
    trainer = etude.Trainer(max_duration="3 steps", run_dir=tmp_path, say=say, **options)

    assert trainer.fit(Wide(), data()).progress.step == 3
