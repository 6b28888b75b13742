"""Training from slangmod's files: the rates against closed formulas, patience, and going on with a run."""

import json
import math
import os
import re
import tomllib
from pathlib import Path

import pytest

from etude.__main__ import main
from etude.app.cli.parsing import choose, parse
from etude.app.convert.slangmod import SLANGMOD
from etude.app.results.summary import FINISHED, INTERRUPTED, summary

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "coming-from-slangmod.md"

SECOND = """
[task]
type = "translation"
metrics = []
eval_search_samples = 0

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
feedforward = 8

[train]
precision = "float32"
device = "cpu"
sanity_batches = 0

[log]
tensorboard = false
progress = false
"""
WORDS = ("one", "two", "three", "four")
BATCHES = 4
"""Batches of an epoch: 16 pairs, four a batch."""


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slangmod")
    rows = "".join(f"{a} {b}\t{b} {a}\n" for a in WORDS for b in WORDS)
    (folder / "train.tsv").write_text(f"source\ttarget\n{rows}", encoding="utf-8")
    (folder / "second.toml").write_text(SECOND, encoding="utf-8")
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(before)


@pytest.fixture
def train(place, request, capsys):
    """Train `[train]` of a slangmod file, named after the test; give the run's folder and what was printed."""

    def run(text="", *more, code=0):
        name = re.sub(r"\W+", "-", request.node.name)
        (place / f"{name}.toml").write_text(f"[train]\nbatch_size = 4\n{text}\n", encoding="utf-8")
        assert main(["train", f"{name}.toml", "second.toml", "--from", "slangmod", *more]) == code
        return place / "runs" / name, capsys.readouterr()

    return run


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def series(folder, key):
    return {row["step"]: row[key] for row in rows(folder) if key in row}


def rates(folder):
    """The rate of every step, in order."""
    found = series(folder, "train/learning_rate")
    assert list(found) == list(range(1, len(found) + 1))
    return list(found.values())


@pytest.mark.parametrize("power", [0.5, 0.75])
def test_inverse_warms_up_and_falls_by_its_power(power, train):
    folder, _ = train(f"max_epochs = 3\nwarmup = 5\npower = {power}\nlearning_rate = 0.01")

    expected = [0.01 * (k + 1) / 5 if k < 5 else 0.01 * ((k + 1) / 5) ** -power for k in range(3 * BATCHES)]
    assert rates(folder) == pytest.approx(expected, rel=1e-12)


def test_inverse_without_a_warm_up_falls_from_the_first_step_on(train):
    folder, _ = train("max_epochs = 2\nwarmup = 0")

    assert rates(folder) == pytest.approx([0.001 * (k + 1) ** -0.5 for k in range(2 * BATCHES)], rel=1e-12)


def test_with_slangmods_defaults_the_warm_up_has_8000_batches(train):
    folder, _ = train("max_epochs = 1")

    assert rates(folder) == pytest.approx([0.001 * (k + 1) / 8000 for k in range(BATCHES)], rel=1e-12)


def test_exponential_falls_by_gamma_with_every_batch(train):
    folder, _ = train('max_epochs = 3\nwarmup = 3\nscaling = "exponential"\ngamma = 0.8')

    expected = [0.001 * ((k + 1) / 3 if k < 3 else 0.8 ** (k + 1 - 3)) for k in range(3 * BATCHES)]
    assert rates(folder) == pytest.approx(expected, rel=1e-12)


def test_cosine_is_a_quarter_wave_down_to_zero(train):
    folder, _ = train('max_epochs = 3\nwarmup = 2\nscaling = "cosine"\ncooldown = 6')

    wave = [math.cos(math.pi / 2 * j / 6) if j < 6 else 0.0 for j in range(11)]
    assert rates(folder) == pytest.approx([0.0005, *(0.001 * part for part in wave)], rel=1e-12)
    assert rates(folder)[-1] == 0.0


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        ("inverse", lambda k: ((k + 1) / 4) ** -0.5),
        ("exponential", lambda k: 0.95 ** (2 * (k + 1 - 4))),
        ("cosine", lambda k: math.cos(math.pi / 2 * (k + 1 - 4) / 5)),
    ],
)
def test_with_two_batches_a_step_all_counts_are_still_batches(scaling, expected, train):
    folder, _ = train(f'max_epochs = 4\nstep_freq = 2\nwarmup = 8\nscaling = "{scaling}"\ncooldown = 10')

    assert rates(folder) == pytest.approx(
        [0.001 * ((k + 1) / 4 if k < 4 else expected(k)) for k in range(2 * BATCHES)], rel=1e-12
    )


def test_patience_counts_epochs_however_often_there_is_validation(train):
    still = "learning_rate = 1e-30\npatience = 2\nlabel_smoothing = 0.0"

    folder, _ = train(still, "--train.eval_every", "0.5 epochs")

    assert list(series(folder, "val/loss")) == [2, 4, 6, 8, 10]
    assert len({round(loss, 6) for loss in series(folder, "val/loss").values()}) == 1


def test_without_patience_all_epochs_are_run(train):
    folder, _ = train("learning_rate = 1e-30\nmax_epochs = 6")

    assert rows(folder)[-1]["step"] == 6 * BATCHES


def test_cb_freq_says_how_often_there_is_a_line(train):
    folder, _ = train("max_epochs = 1\ncb_freq = 3")

    assert list(series(folder, "train/loss")) == [3, 4]


def test_a_run_from_slangmods_file_is_the_run_of_the_same_config_in_etudes_words(place, train):
    folder, _ = train('max_epochs = 2\nwarmup = 3\noptimizer = "adafactor"\nclip_grad = 0.05\nlearning_rate = 0.05')
    (place / "pure.toml").write_text(
        SECOND.replace("sanity_batches = 0", "sanity_batches = 0\nbatch_size = 4\nclip_grad = 0.05").replace(
            "[log]", '[loss]\nlabel_smoothing = 0.1\n\n[optimizer]\ntype = "adafactor"\ndecay_all = true\n\n[log]'
        )
    )
    rate = '{schedule = "inverse", peak = 0.05, warmup = "3 steps"}'
    duration = ["--train.max_duration", "2 epochs", "--train.log_every", "1 step"]

    assert main(["train", "pure.toml", "--optimizer.learning_rate", rate, *duration]) == 0

    for key in ("train/loss", "train/learning_rate", "train/grad_norm", "val/loss"):
        assert series(folder, key) == series(place / "runs" / "pure", key)


def test_what_is_printed_is_the_config_of_the_run_and_runs_as_it_is(place, train, capsys):
    folder, (out, _) = train("max_epochs = 1")
    kept = folder / "config.toml"
    assert tomllib.loads(out) == tomllib.loads(kept.read_text())

    code = main(["train", str(kept), "--run.name", "again"])

    assert (code, capsys.readouterr().out) == (0, "")
    assert series(place / "runs" / "again", "train/loss") == series(folder, "train/loss")


def test_the_same_command_again_finds_the_run_finished_and_more_epochs_go_on(train):
    folder, _ = train("max_epochs = 1\nwarmup = 3")
    straight = rates(folder)

    _, (_, told) = train("max_epochs = 1\nwarmup = 3")
    assert "Nothing to do" in told

    train("max_epochs = 1\nwarmup = 3", "--train.max_epochs", "2")

    assert rates(folder)[: len(straight)] == straight
    assert len(rates(folder)) == 2 * BATCHES


def test_a_run_that_was_interrupted_goes_on_and_ends_as_one_that_was_not(place, train):
    (place / "kill.py").write_text(
        "import os, signal\n"
        "class Kill:\n"
        "    def on_step_end(self, run, outcome):\n"
        "        if run.progress.step == 3 and not os.path.exists('killed'):\n"
        "            open('killed', 'w').close()\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    text = "max_epochs = 2\nstep_freq = 2\nwarmup = 4\nlearning_rate = 0.05"
    kill = ["--callbacks", '["kill.py:Kill"]']
    folder, _ = train(text, *kill, code=143)
    assert summary(folder).state == INTERRUPTED

    train(text, *kill)
    assert summary(folder).state == FINISHED

    whole, _ = train(text, *kill, "--run.name", "whole")
    whole = whole.with_name("whole")
    for key in ("train/loss", "train/learning_rate", "val/loss"):
        assert series(folder, key) == series(whole, key)


def test_another_rate_in_slangmods_file_is_another_run(train, capsys):
    train("max_epochs = 1")

    _, (_, told) = train("max_epochs = 1\nlearning_rate = 0.5", code=7)

    assert "optimizer.learning_rate.peak was 0.001 and is 0.5" in told


def test_the_guides_example_converts_to_what_it_shows(tmp_path, capsys):
    page = PAGE.read_text(encoding="utf-8")
    theirs, ours = re.search(r"```text\n(.*?)```.*?```toml\n(.*?)```", page, re.DOTALL).groups()

    (tmp_path / "slang.toml").write_text(theirs)

    main(["convert", str(tmp_path / "slang.toml"), "--from", "slangmod"])

    assert tomllib.loads(capsys.readouterr().out) == tomllib.loads(ours)


def test_the_guides_commands_are_commands():
    code = "\n".join(re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))
    lines = re.findall(r"^etude .*$", code, re.MULTILINE)

    for _, verb, *rest in (re.findall(r'"[^"]*"|\S+', line) for line in lines):
        assert parse(choose(verb), rest)[0].tool == "slangmod"
    assert len(lines) >= 3


def test_the_guide_names_every_word():
    words_section = PAGE.read_text(encoding="utf-8").partition("## Words")[2].partition("\n## ")[0]

    assert re.findall(r"^\| `([a-z_]+)` \|", words_section, re.MULTILINE) == [word.name for word in SLANGMOD.words]
