"""Tests, validations, predictions and saved outputs of several ranks have the bytes of one process."""

import io
import json
import os
import random
import shutil
import signal
import sys
import time
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from in_ranks import ended, in_ranks
from small_runs import dataset, loaders, trainer
from test_world import Measured
from torch.utils.data import DataLoader

import etude
from etude.app.cli.main import main
from etude.base.errors import DataError
from etude.tasks.answers import Answering
from etude.tasks.sharing import consecutive, shared
from etude.tasks.task_type import Missing
from etude.tasks.translation.task import TranslationTask
from etude.train.world import ALONE, joined

SOON = 10
"""Seconds within which all ranks have ended where one is dead."""
WORDS = {"one": "uno", "two": "dos", "three": "tres", "four": "cuatro", "five": "cinco", "six": "seis"}
SMALL = """
d_model = 8
heads = 2
{layers}
feedforward = 8
[train]
max_duration = "2 epochs"
batch_size = 8
device = "cpu"
precision = "float32"
save_outputs = "{saves}"
[log]
progress = false
tensorboard = false
"""
TRANSLATION = """
[task]
type = "translation"
beam_size = 2
max_target_length = 10
[data]
train = "pairs.tsv"
val = "few.tsv"
test = "test.tsv"
header = false
[tokenizer]
type = "char"
[model]
""" + SMALL.format(layers="encoder_layers = 1\ndecoder_layers = 1", saves="all")
TEXTS = """
[task]
type = "language_model"
max_tokens = 6
[data]
train = "texts.txt"
val = "texts.txt"
block_size = 16
[tokenizer]
type = "char"
[model]
""" + SMALL.format(layers="layers = 1", saves="").replace('save_outputs = ""\n', "")


TABLE = """
[task]
type = "classification"
[data]
type = "tabular"
train = "table.csv"
val = "table.csv"
inputs = ["size", "colour"]
label = "fruit"
[model]
hidden = [8]
[train]
max_duration = "2 steps"
batch_size = 8
device = "cpu"
[log]
progress = false
tensorboard = false
"""
SPEECH = """
[task]
type = "speech_recognition"
[data]
train = "spoken.csv"
val = "spoken.csv"
[data.features]
mel_bins = 20
[model]
type = "blstm"
d_model = 8
layers = 1
subsampling = 2
[train]
max_duration = "2 steps"
batch_size = 4
device = "cpu"
[log]
progress = false
tensorboard = false
"""
CONFIGS = {"translation": TRANSLATION, "text": TEXTS, "table": TABLE, "speech": SPEECH}


def written(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines))


def recorded(folder):
    """Write eight recordings of tones, and a manifest of them; their paths."""
    draw = np.random.default_rng(3)
    waves = [np.sin(np.arange(2000 + 300 * number) / (3 + number)) for number in range(8)]
    for number, wave in enumerate(waves):
        noisy = (0.3 * wave + 0.01 * draw.normal(size=len(wave))).astype(np.float32)
        soundfile.write(folder / f"{number}.wav", noisy, 8000)
    paths = [f"{number}.wav" for number in range(8)]
    written(
        folder / "spoken.csv", ["path,transcript", *(f"{path},{'ab'[number % 2]}" for number, path in enumerate(paths))]
    )
    return paths


@pytest.fixture(scope="module")
def home(quick_folder):
    """A folder with a run of each kind."""
    draw = random.Random(2)
    sources = [draw.choices(list(WORDS), k=draw.randint(1, 5)) for _ in range(70)]
    pairs = [f"{' '.join(words)}\t{' '.join(map(WORDS.get, words))}" for words in sources]
    for name, some in (("pairs", pairs[:40]), ("few", pairs[40:50]), ("test", pairs[50:])):
        written(quick_folder / f"{name}.tsv", some)
    lines = [" ".join(words) for words in sources]
    written(quick_folder / "texts.txt", lines)
    written(quick_folder / "lines.txt", [*lines[:30], "", *lines[20:40]])
    (quick_folder / "mixed.txt").write_bytes((quick_folder / "lines.txt").read_bytes() + b"\xff\xfe?\xff\none two\n")
    rows = [
        f"{number * 0.7:.1f},{['red', 'green'][number % 2]},{['apple', 'lime'][number % 2]}" for number in range(20)
    ]
    written(quick_folder / "table.csv", ["size,colour,fruit", *rows])
    written(quick_folder / "sounds.txt", [*recorded(quick_folder), "nowhere.wav"])
    for name, config in CONFIGS.items():
        (quick_folder / f"{name}.toml").write_text(config)
    before = Path.cwd()
    os.chdir(quick_folder)
    try:
        for name in CONFIGS:
            etude.train(f"{name}.toml")
        yield quick_folder
    finally:
        os.chdir(before)


def shell(rank, words):
    """What a command line gives on one of its ranks: its exit code, its output, and what it says."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(words)
    return code, out.getvalue(), err.getvalue()


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def last_row(run):
    row = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    return {name: value for name, value in row.items() if not name.startswith("time/")}


# -- from the shell ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "batch"), [(2, 4), pytest.param(3, 4, marks=pytest.mark.acceptance), (3, 16)])
def test_a_test_on_several_ranks_has_the_bits_of_one_process_and_is_written_once(size, batch, home):
    """In the last case there are fewer batches than ranks."""
    one, many = (Path("runs", name) for name in ("one", f"many-{size}-{batch}"))
    for run in (one, many):
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree("runs/translation", run, symlinks=True)
    more = ["--batch-size", str(batch), "--json"]
    alone = shell(0, ["test", str(one), *more])

    first, *others = in_ranks(size, shell, ["test", str(many), *more])

    assert alone[0] == 0
    assert first == (0, alone[1], alone[2].replace("runs/one", str(many)))
    assert others == [(0, "", "")] * (size - 1)
    assert content(many / "outputs") == content(one / "outputs")
    assert {"test.txt", "test.source.txt", "test.parquet"} <= {path.name for path in (many / "outputs").iterdir()}
    assert last_row(many) == last_row(one)
    rows = [len((run / "metrics.jsonl").read_text().splitlines()) for run in (many, Path("runs/translation"))]
    assert rows[0] == rows[1] + 1


def test_a_validation_of_a_language_model_has_the_bits_of_one_process(home):
    alone = shell(0, ["validate", "runs/text", "--batch-size", "2", "--json"])

    found = in_ranks(3, shell, ["validate", "runs/text", "--batch-size", "2", "--json"])

    assert "val/perplexity" in alone[1]
    assert found == [alone, (0, "", ""), (0, "", "")]


@pytest.mark.parametrize(
    ("size", "run", "file", "flags"),
    [
        (2, "translation", "lines.txt", ["--json", "--batch-size", "4"]),
        (3, "translation", "mixed.txt", ["--n-best", "2", "--batch-size", "3"]),
        (2, "translation", "few.tsv", []),  # one batch
        (2, "text", "mixed.txt", ["--temperature", "1", "--batch-size", "4", "--json"]),
        (2, "text", "mixed.txt", ["--score"]),
        (2, "text", None, ["--prompt", "one", "--prompt", "two"]),
        (2, "table", "table.csv", ["--json", "--batch-size", "3"]),
        (2, "speech", "sounds.txt", ["--json", "--batch-size", "2"]),
    ],
)
def test_predictions_of_several_ranks_are_those_of_one_process_to_the_byte(size, run, file, flags, home):
    words = ["predict", f"runs/{run}", *([] if file is None else [file]), *flags, "--device", "cpu"]
    alone = shell(0, words)

    first, *others = in_ranks(size, shell, words)

    assert alone[0] == (3 if file in {"mixed.txt", "sounds.txt"} else 0)
    assert alone[1]
    assert first == alone
    assert others == [(alone[0], "", "")] * (size - 1)


def counted(rank, words):
    """A command line, and how many batches this rank has translated."""
    translate, count = TranslationTask._translate, []
    TranslationTask._translate = lambda task, source: count.append(len(source)) or translate(task, source)
    assert main(words) == 0
    return len(count)


def test_batches_are_shared_out_and_written_to_a_file_once(home):
    words = ["predict", "runs/translation", "lines.txt", "--batch-size", "4", "--device", "cpu", "--output"]
    shell(0, [*words, "alone.txt"])

    counts = in_ranks(2, counted, [*words, "together.txt"])

    assert Path("together.txt").read_bytes() == Path("alone.txt").read_bytes()
    assert min(counts) > 4
    assert max(counts) - min(counts) <= 4  # one for each window


@pytest.mark.parametrize("more", [[], ["-"]])
def test_standard_input_is_refused_to_several_ranks_in_one_sentence(more, home):
    found = in_ranks(2, shell, ["predict", "runs/translation", *more])

    assert found[0][0] == found[1][0] == 2
    assert found[0][2].startswith("etude: 2 ranks share the lines of a file, which each of them reads: name one, or")
    assert found[1][1:] == ("", "")


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def failing(rank, words, which, do):
    """The same where a rank does something else when it is to translate."""
    sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    if rank == which:
        TranslationTask.predict_step = lambda task, batch: do()
    sys.exit(main(words))


def bad_line():
    raise DataError("test.tsv, line 7 is empty.")


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("which", [0, 1])
def test_what_one_rank_fails_by_ends_all_of_them_and_is_said_once(which, home, tmp_path):
    found = ended(2, failing, tmp_path, ["test", "runs/translation"], which, bad_line)

    said = "".join(text for _, text, _ in found)
    assert [code for code, _, _ in found] == [3, 3]
    assert said.count("line 7 is empty") == 1, said
    assert said.count("etude: ") == 1
    assert all(seconds < SOON for _, _, seconds in found)


@pytest.mark.parametrize("which", [0, 1])
def test_a_rank_that_is_killed_ends_the_others_soon(which, home, tmp_path):
    begun = time.monotonic()

    found = ended(3, failing, tmp_path, ["test", "runs/translation"], which, killed)

    codes = [code for code, _, _ in found]
    said = "".join(text for _, text, _ in found)
    assert codes.pop(which) == -signal.SIGKILL
    assert codes == [6, 6]
    assert f"Rank {which} is gone" in said
    assert time.monotonic() - begun < SOON + 5


def test_what_all_ranks_fail_by_is_said_once(home):
    found = in_ranks(2, shell, ["test", "runs/nowhere"])

    assert found[0] == (5, "", "etude: runs/nowhere is not a run folder: it has no config.toml.\n")
    assert found[1] == (5, "", "")


class UnsendableError(Exception):
    def __init__(self, one, other):
        super().__init__(f"{one} and {other}")


def asked(rank, windows, in_steps, shares):
    """Answers that tell which texts were computed together, and what a text without one has failed by."""

    def together(texts):
        if in_steps:
            return consecutive(range(len(texts)), 3)
        return consecutive(sorted((n for n, text in enumerate(texts) if text), key=lambda n: -len(texts[n])), 3)

    def computed(texts):
        if "bad" in texts:
            raise UnsendableError("bad", "worse")
        return [f"{text} of {texts}" for text in texts]

    def ask(texts, first):
        found = [""] * len(texts)
        for places in together(texts):
            for place, one in zip(places, computed([texts[place] for place in places]), strict=True):
                found[place] = f"{one} from {first + place}" if in_steps else one
            if in_steps:
                yield from (found[place] for place in places)
        if not in_steps:
            yield from found

    with joined() if shares else nullcontext() as here:
        world = ALONE if here is None else here.world
        answering = Answering(shared(ask, world, together, in_steps=in_steps))
        return [list(answering.window(window)) for window in windows]


@pytest.mark.parametrize("in_steps", [True, False])
def test_windows_of_which_some_texts_have_no_answer_are_halved_as_one_process_halves_them(in_steps):
    draw = random.Random(4)
    kinds = ["a", "bb", "ccc", "dddd"] + ([] if in_steps else [""])
    windows = [draw.choices([*kinds, "bad"] if number % 2 else kinds, k=number) for number in range(1, 24)]

    found = in_ranks(3, asked, windows, in_steps, True)

    alone = asked(0, windows, in_steps, False)
    assert any(isinstance(one, Missing) for window in alone for one in window)
    assert found == [alone] * 3


# -- from Python -------------------------------------------------------------------------------------------------------


def of_run(rank, texts):
    run = etude.Run("runs/translation")
    return run.predict(texts[rank], device="cpu"), run.validate(device="cpu")


def test_every_rank_has_the_predictions_of_all(home):
    texts = Path("lines.txt").read_text().splitlines()
    alone = of_run(0, [texts])

    assert in_ranks(3, of_run, [texts] * 3) == [alone] * 3
    with pytest.raises(AssertionError, match="Rank 1 was asked for other predictions than rank 0"):
        in_ranks(2, of_run, [texts, texts[:5]])


class Predicts(Measured):
    def predict_step(self, batch):
        return {"found": self.layers(batch[0])}


class Watches(etude.Callback):
    def __init__(self):
        self.seen = []

    def on_test_batch_end(self, run, batch, outputs):
        self.seen.append(batch[0].tolist())

    def on_predict_batch_end(self, run, batch, outputs):
        self.seen.append(outputs["found"].tolist())


STILL = {"max_duration": "3 steps", "eval_every": "3 steps", "learning_rate": 1e-30, "ema_decay": None}


def passes(rank, folder, size, strategy):
    """All passes of a trainer after a training of weights that do not move, and what a callback sees of them."""
    watches, task, said = Watches(), Predicts(dropout=0.0), []
    given = {**STILL, "save_every": "3 steps", "callbacks": [watches], "say": said.append, "progress": False}
    saved = {} if folder is None else {"save_outputs": "all"}
    fitted = trainer(folder, **given, **saved, distributed={"strategy": strategy})
    data = DataLoader(dataset(35), batch_size=size)
    fitted.fit(task, loaders()[0], loaders()[1], test=data)
    said.clear()
    found = fitted.test(), fitted.test(weights="last"), fitted.validate(task, data)
    predicted = [each["found"].tolist() for each in fitted.predict(task, data)]
    tested = [row for row in fitted.result.history if "test/loss" in row]
    return found, predicted, watches.seen, len(tested), said


@pytest.mark.parametrize(
    ("size", "batch", "strategy", "kept"),
    [
        (2, 4, "fsdp", True),
        pytest.param(2, 4, "fsdp", False, marks=pytest.mark.acceptance),
        (2, 20, "ddp", False),
        pytest.param(3, 4, "ddp", False, marks=pytest.mark.acceptance),
        pytest.param(3, 20, "ddp", True, marks=pytest.mark.acceptance),
    ],
)
def test_the_passes_of_a_trainer_after_a_training_are_those_of_one_process(size, batch, strategy, kept, tmp_path):
    one, many = ((tmp_path / name if kept else None) for name in ("one", "many"))
    alone = passes(0, one, batch, strategy)

    first, *others = in_ranks(size, passes, many, batch, strategy)

    assert first == alone
    assert others == [(*alone[:4], [])] * (size - 1)
    assert alone[0][0].keys() >= {"test/loss", "test/value"}
    if kept:
        assert last_row(many) == last_row(one)
        assert content(many / "outputs") == content(one / "outputs")


def one_alone(rank, folder, which):
    """Rank `which` alone tests what all have trained."""
    fitted = trainer(folder, **STILL, save_every="3 steps", progress=False)
    fitted.fit(Predicts(dropout=0.0), *loaders())
    if rank == which:
        fitted.test(data=loaders()[1])


@pytest.mark.parametrize("which", [0, 1])
def test_a_rank_that_waits_for_one_that_has_ended_says_so_and_ends(which, tmp_path):
    begun = time.monotonic()

    found = ended(2, one_alone, tmp_path, tmp_path / "run", which)

    assert (found[1 - which][0], found[which][0]) == (0, 6)
    assert f"Rank {1 - which} has ended, and the others wait for it: all ranks take part" in found[which][1]
    assert time.monotonic() - begun < 3 * SOON


class Validates(etude.Callback):
    def on_step_end(self, run, outcome):
        trainer(None).validate(run.task, loaders()[1])


def in_parts(rank):
    given = {**STILL, "save_every": "3 steps", "progress": False, "callbacks": [Validates()]}
    trainer(None, **given, distributed={"strategy": "fsdp"}).fit(Predicts(dropout=0.0), *loaders())


def test_a_task_whose_weights_lie_on_several_ranks_is_refused_with_what_to_do():
    with pytest.raises(AssertionError, match=r"This Predicts is being trained sharded .* validate or predict then"):
        in_ranks(2, in_parts)


def strangers(rank):
    task = Predicts(dropout=0.0)
    with torch.no_grad():
        task.layers[0].bias += rank
    trainer(None).validate(task, loaders()[1])


def test_ranks_with_other_weights_are_refused():
    with pytest.raises(AssertionError, match=r"Rank 1 has another layers\.0\.bias than rank 0"):
        in_ranks(2, strangers)


# -- outputs saved by a training ---------------------------------------------------------------------------------------


def saves(rank, name, every, strategy="ddp"):
    still = {
        "distributed.strategy": strategy,
        "optimizer.learning_rate": 1e-30,
        "train.save_outputs_every": every,
        "train.eval_every": "2 steps",
    }
    etude.train("translation.toml", {**still, "run.name": name, "train.max_duration": "4 steps"})


@pytest.mark.parametrize(
    ("size", "every", "strategy"),
    [(2, "best", "fsdp"), pytest.param(3, "validation", "ddp", marks=pytest.mark.acceptance)],
)
def test_outputs_that_a_training_saves_are_those_of_one_process(size, every, strategy, home):
    one, many = f"saves-{every}", f"saves-{every}-{size}"
    saves(0, one, every)

    in_ranks(size, saves, many, every, strategy)

    found = content(Path("runs", many, "outputs"))
    assert found == content(Path("runs", one, "outputs"))
    assert "train.parquet" in found
    assert any(name.startswith("val") for name in found)
