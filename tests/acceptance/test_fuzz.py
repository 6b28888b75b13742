"""Every reader over mutated input: only Etude's own errors, in bounded memory and time.

The mutations of a number are always the same, so that what a run of this test finds can be found again.
"""

import json
import random
import resource
import shutil
import signal
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from etude.app.fork.plan import plan_fork
from etude.app.results.listing import cells
from etude.app.results.summary import summary
from etude.app.running import train_run
from etude.app.runs.diff import compare_runs
from etude.app.runs.run import Run
from etude.base.config.command import parse
from etude.data.files.parallel import open_pairs
from etude.data.files.text_source import open_texts
from etude.data.tokens.tokenizers import tokenizer_from
from etude.errors import EtudeError
from etude.tasks.config import load_config
from etude.train.memory.checkpoint import read, read_weights
from etude.train.watch.record import read_rows

pytestmark = pytest.mark.acceptance

SECONDS = 10
"""More than any input may take."""
MEMORY = 300 << 10
"""KiB that the process may grow by."""
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
[init.weights]
"*.weight" = "normal(0.02)"
[optimizer.learning_rate]
schedule = "linear"
peak = 1e-3
[[optimizer.groups]]
match = "*.bias"
weight_decay = 0.0
[train]
max_duration = "4 steps"
save_every = "2 steps"
batch_size = 4
device = "cpu"
[log]
progress = false
tensorboard = false
"""
TABLE = b'source\ttarget\none two\tuno dos\n"three"\ttres\nvier\t\n' * 3
LINES = b'{"source": "one", "target": "uno"}\n{"source": "two\\n", "target": "\\u00e9", "x": [1, {"y": null}]}\n' * 3
TEXTS = b'{"text": "one two"}\n{"text": "three", "n": 1e5}\n' * 4
HOSTILE = [
    b"\0",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\x1b[31m",
    b"{" * 300,
    b"[" * 3000,
    b"9" * 5000,
    b"1e999",
    b"-1",
    b"NaN",
]
HOSTILE += [
    b"null",
    b"true",
    b'""',
    b"\\u0000",
    b"\\ud800",
    b"'''",
    b'"""',
    b"\r",
    b"\t",
    b"\n\n",
    b"../../x",
    b"a." * 200,
]
HOSTILE += [b"18446744073709551616", b"x:y", b"evil.py:f", b"~", b"=", b"]]", b"$tensor", b"# ", b",", b"\xef\xbb\xbf"]


def mutated(content, draw):
    """The content with one to four changes of any kind."""
    for _ in range(draw.randint(1, 4)):
        at, length = draw.randrange(len(content) + 1), draw.choice([1, 1, 2, 5, 20, 200])
        match draw.randrange(7):
            case 0:
                content = content[:at] + bytes([draw.randrange(256)]) + content[at + 1 :]
            case 1:
                content = content[:at] + content[at + length :]
            case 2:
                content = content[:at] + draw.choice(HOSTILE) + content[at:]
            case 3:
                content = content[:at] + content[at : at + length] * draw.choice([2, 3, 50]) + content[at + length :]
            case 4:
                other = draw.randrange(len(content) + 1)
                content = content[:at] + content[other : other + length] + content[at + length :]
            case 5:
                content = content[:at]
            case 6:
                content = content.replace(
                    draw.choice([b"1", b"2", b'"', b"=", b"e", b"0", b":"]), draw.choice(HOSTILE), 1
                )
    return content


@contextmanager
def bounded():
    """End what takes too long."""

    def late(*_):
        raise TimeoutError(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    home = tmp_path_factory.mktemp("fuzz")
    (home / "pairs.tsv").write_text("one two\tuno dos\nthree\ttres\n" * 8)
    (home / "c.toml").write_text(RUN)
    train_run(load_config(home / "c.toml", {"run.dir": str(home / "runs")}), say=lambda _: None)
    return home / "runs" / "c"


@pytest.fixture
def copy(run, tmp_path):
    return Path(shutil.copytree(run, tmp_path / "runs" / "c", symlinks=True))


def config(path, content, _):
    path.write_bytes(content)
    load_config(path)


def override(path, content, _):
    path.write_text(RUN)
    load_config(path, parse(content.decode("utf-8", "surrogateescape").split("\n")))


def table(path, content, cache):
    path.write_bytes(content)
    source = open_pairs(path, cache=cache)
    for _ in source.rows(0, len(source)):
        pass


def texts(path, content, cache):
    path.write_bytes(content)
    for document in open_texts(path, cache=cache).documents():
        for _ in getattr(document, "blocks", ()):
            pass


def tokenizer(_, content, __):
    made = tokenizer_from(content.decode("utf-8", "replace"), name="x.json")
    made.decode(made.encode("one twoé \0 <pad>"))


def rows(path, content, _):
    path.write_bytes(content)
    read_rows(path, lambda _: None)


OVERRIDES = b'--train.max_duration\n5 steps\n--optimizer.learning_rate\n{ schedule = "cosine", peak = 1e-3 }\n'
OVERRIDES += b"--data.train\nx.tsv"
PLAIN = {
    "config": (config, "x.toml", lambda run: RUN.encode(), 5000),
    "composed config": (config, "x.toml", lambda run: (run / "config.toml").read_bytes(), 1500),
    "override": (override, "x.toml", lambda run: OVERRIDES, 1500),
    "table": (table, "x.tsv", lambda run: TABLE, 2000),
    "JSON lines": (table, "x.jsonl", lambda run: LINES, 2000),
    "texts": (texts, "x.jsonl", lambda run: TEXTS, 1000),
    "tokenizer": (tokenizer, "", lambda run: next((run / "tokenizers").glob("*.json")).read_bytes(), 3000),
    "rows": (rows, "x.jsonl", lambda run: (run / "metrics.jsonl").read_bytes(), 1000),
}
FOLDER_FILES = (
    "config.toml",
    "metrics.jsonl",
    "environment.json",
    "data.json",
    "checkpoints/step-00000004/manifest.json",
)
FOLDER_FILES += ("checkpoints/step-00000004/state.json", "checkpoints/step-00000004/model.safetensors")
FOLDER_FILES += ("checkpoints/step-00000004/state.safetensors", "checkpoints/step-00000004/aliases.json")


def in_runs(run, _):
    "\n".join(cells(summary(run)))


def in_diff(run, other):
    compare_runs(run, other)


def in_fork(run, _):
    plan_fork(run, "2 steps", ["--optimizer.learning_rate", "1e-4"])


def in_checkpoint(run, _):
    read(run / "checkpoints" / "step-00000004")


def in_weights(run, _):
    read_weights(run / "checkpoints" / "last")


def in_use(run, _):
    Run(run, allow_code=False).load("last")


FOLDERS = {in_runs: 1000, in_diff: 600, in_fork: 500, in_checkpoint: 500, in_weights: 250, in_use: 150}


def held(tries, number):
    """Try so many inputs; nothing but Etude's errors, and none that takes long or much."""
    before, refused = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    for seed in range(number):
        begun = time.perf_counter()
        try:
            with bounded():
                tries(random.Random(seed))
        except EtudeError as error:
            refused += bool(str(error).strip())
        except BaseException as error:
            raise AssertionError(f"mutation {seed} ends in {type(error).__name__}: {error}") from error
        assert time.perf_counter() - begun < SECONDS
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < MEMORY, f"{grown >> 10} MiB"
    return refused


@pytest.mark.parametrize("name", PLAIN)
def test_a_reader_of_mutated_content_gives_only_our_errors(name, run, tmp_path, monkeypatch):
    reader, file, seed_of, number = PLAIN[name]
    content = seed_of(run)
    monkeypatch.chdir(tmp_path)

    refused = held(lambda draw: reader(tmp_path / (file or "x"), mutated(content, draw), tmp_path / "cache"), number)

    assert 0 < refused < number or name in {"rows", "texts"}


@pytest.mark.parametrize("reader", FOLDERS)
def test_a_reader_of_a_mutated_run_folder_gives_only_our_errors(reader, run, copy):
    def tries(draw):
        name = draw.choice([name for name in FOLDER_FILES if (copy / name).exists()])
        whole = (run / name).read_bytes()
        (copy / name).write_bytes(mutated(whole, draw))
        try:
            reader(copy, run)
        finally:
            (copy / name).write_bytes(whole)

    held(tries, FOLDERS[reader])


def test_there_are_twenty_thousand():
    assert sum(number for *_, number in PLAIN.values()) + sum(FOLDERS.values()) == 20_000
    assert json.dumps(FOLDER_FILES)
