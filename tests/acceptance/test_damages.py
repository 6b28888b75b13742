"""Five hundred random damages to a run folder and its cache: each is named or harmless, and none is silent.

Harmless is a run that goes on to the weights and rows of one that nothing was done to.
"""

import hashlib
import os
import random
import shutil
from pathlib import Path

import pytest

from etude.app.running import train_run
from etude.errors import EtudeError
from etude.tasks.config import load_config
from etude.train.watch.record import read_rows

pytestmark = pytest.mark.acceptance

NUMBER, PARTS = 500, 10
RUN = """
[task]
type = "translation"
metrics = []
[data]
train = "pairs.tsv"
val = "pairs.tsv"
[tokenizer]
type = "char"
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
eval_every = "2 steps"
save_every = "2 steps"
batch_size = 4
device = "cpu"
precision = "float32"
[log]
progress = false
tensorboard = false
"""
UNREAD = ("code", "outputs", ".lock")
"""What no resumed run depends on."""


def loaded(home, place, steps=4):
    return load_config(home / "c.toml", {"run.dir": str(place / "runs"), "train.max_duration": f"{steps} steps"})


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("damages") / "home"
    home.mkdir()
    (home / "pairs.tsv").write_text("".join(f"{word} two\t{word} dos\n" for word in "abcdefghijkl"))
    (home / "c.toml").write_text(RUN)
    train_run(loaded(home, home), say=lambda _: None)
    return home


def numbers(path):
    rows = read_rows(path, lambda _: None)
    return [{key: row[key] for key in row if not key.startswith("time/") and "_per_" not in key} for row in rows]


def state_of(run):
    """The weights and the rows that a run ends with."""
    last = run / "checkpoints" / "last"
    return hashlib.sha256((last / "model.safetensors").read_bytes()).hexdigest(), numbers(run / "metrics.jsonl")


def damageable(home):
    found = [path for path in sorted((home / "runs").rglob("*")) if path.is_file() and not path.is_symlink()]
    return [path for path in found if not set(path.relative_to(home).parts) & set(UNREAD) and path.suffix != ".lock"]


def flip(path, draw, _):
    content = bytearray(path.read_bytes())
    if content:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(content))


def cut(path, draw, _):
    os.truncate(path, draw.randrange(path.stat().st_size + 1))


def remove(path, *_):
    path.unlink()


def lengthen(path, draw, _):
    with path.open("ab") as file:
        file.write(draw.randbytes(draw.randint(1, 50)))


def exchange(path, draw, others):
    other = draw.choice(others)
    one, two = path.read_bytes(), other.read_bytes()
    path.write_bytes(two)
    other.write_bytes(one)


@pytest.mark.parametrize("part", range(PARTS))
def test_a_damage_is_named_or_harmless(home, tmp_path, part):
    straight = tmp_path / "straight"
    shutil.copytree(home, straight, symlinks=True)
    train_run(loaded(home, straight, 6), say=lambda _: None)
    expected, silent = state_of(straight / "runs" / "c"), []
    for seed in range(part * NUMBER // PARTS, (part + 1) * NUMBER // PARTS):
        draw, place = random.Random(seed), tmp_path / "home"
        shutil.copytree(home, place, symlinks=True)
        files = damageable(place)
        path, damage = draw.choice(files), draw.choice([flip, flip, cut, remove, lengthen, exchange])
        damage(path, draw, files)
        told = []
        try:
            train_run(loaded(home, place, 6), say=told.append)
            found = state_of(place / "runs" / "c")
        except EtudeError as error:
            told, found = [str(error)], expected
            assert told[0].strip()
        if found != expected and not names_something(told, place):
            silent.append(f"{seed}: {damage.__name__} of {path.relative_to(place)}")
        shutil.rmtree(place)
    assert silent == []


def names_something(told, place):
    """Whether anything that was said names a file or folder of the run or the cache as damaged, changed or gone."""
    words = (
        "damaged",
        "changed",
        "missing",
        "lost",
        "cannot be read",
        "left out",
        "not complete",
        "Falling back",
        "again",
    )
    return any(str(Path(place)) in text and any(word in text for word in words) for text in told)
