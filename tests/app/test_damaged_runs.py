"""A damaged file of a run is named, or it does not matter; a tokenizer with two ids exchanged is damaged too."""

import json
import random
import shutil

import pytest

import etude
from etude.__main__ import main
from etude.base.errors import EtudeError, StorageError

CONFIG = """
[task]
type = "translation"
metrics = []
[data]
train = "train.tsv"
val = "train.tsv"
[tokenizer]
type = "word"
[model]
d_model = 8
heads = 2
encoder_layers = 1
decoder_layers = 1
feedforward = 16
[train]
max_duration = "4 steps"
batch_size = 4
eval_every = "4 steps"
save_every = "2 steps"
device = "cpu"
precision = "float32"
[log]
progress = false
tensorboard = false
"""


AGAIN = ["train", "toy.toml", "--train.max_duration", "6 steps"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("damage")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        words = ["red", "blue", "green", "white"]
        pairs = "".join(f"{a} {b}\t{b} {a}\n" for a in words for b in words)
        (place / "train.tsv").write_text(f"source\ttarget\n{pairs}")
        (place / "toy.toml").write_text(CONFIG)
        etude.train("toy.toml")
    return place


@pytest.fixture
def run(place, tmp_path, monkeypatch):
    """The run, which is as it was afterwards."""
    monkeypatch.chdir(place)
    shutil.copytree(place / "runs", tmp_path / "runs", symlinks=True)
    yield place / "runs" / "toy"
    shutil.rmtree(place / "runs")
    shutil.copytree(tmp_path / "runs", place / "runs", symlinks=True)


def exchange(path):
    """Let two words have each other's id."""
    content = json.loads(path.read_text())
    words = content["model"]["vocab"]
    words[" red"], words[" blue"] = words[" blue"], words[" red"]
    path.write_text(json.dumps(content))


def test_a_tokenizer_with_two_ids_exchanged_is_named_by_every_verb(run, capsys):
    exchange(run / "tokenizers" / "shared.json")

    for words in (
        ["predict", str(run), "train.tsv"],
        ["validate", str(run)],
        AGAIN,
    ):
        assert main(words) == 5
        assert "tokenizers/shared.json is damaged: its sha256 differs" in capsys.readouterr().err


def test_a_run_of_before_without_hashes_is_used_as_it_is(run, capsys):
    expected = etude.Run(run).validate()
    (run / "tokenizers" / "hashes").unlink()

    assert etude.Run(run).validate() == expected
    assert main(AGAIN) == 0
    assert "damaged" not in capsys.readouterr().err


def test_a_damaged_tokenizer_that_nothing_was_trained_with_is_written_again(run):
    shutil.rmtree(run / "checkpoints")
    (run / "metrics.jsonl").unlink()
    before = (run / "tokenizers" / "shared.json").read_bytes()
    exchange(run / "tokenizers" / "shared.json")

    assert main(AGAIN) == 0

    assert (run / "tokenizers" / "shared.json").read_bytes() == before


def test_two_runs_differ_by_no_tokenizer_where_one_has_no_hashes(run, capsys):
    shutil.copytree(run, run.parent / "other", symlinks=True)
    (run.parent / "other" / "tokenizers" / "hashes").unlink()

    main(["diff", str(run), str(run.parent / "other")])

    assert "tokenizer" not in capsys.readouterr().out


def test_damage_to_a_run_is_named_or_does_not_matter(run):
    expected = etude.Run(run).validate()
    files = [path for path in sorted(run.rglob("*")) if path.is_file() and path.name != "config.toml"]
    chance = random.Random(1)
    for number in range(60):
        path = files[number % len(files)]
        content = bytearray(path.read_bytes())
        if not content:
            continue
        damaged = bytearray(content)
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        path.write_bytes(bytes(damaged if number % 3 else damaged[: chance.randrange(len(damaged))]))

        try:
            found = etude.Run(run).validate()
        except EtudeError as error:
            assert any(name in str(error) for name in (path.name, path.parent.name)), (path, str(error))  # noqa: PT017
        else:
            assert found == expected, path
        path.write_bytes(bytes(content))


def test_an_export_carries_hashes_too(run, capsys):
    assert main(["export", str(run), "runs/out"]) == 0
    exchange(run.parent / "out" / "tokenizers" / "shared.json")

    with pytest.raises(StorageError, match=r"shared\.json is damaged"):
        etude.Run("runs/out").predict(["red"], weights="runs/out")
