"""The verbs on a real, tiny run: train, go on, validate, test, predict, show, check, runs."""

import contextlib
import errno
import io
import json
import os
import pty
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest

from etude.__main__ import main
from etude.app.results.summary import FINISHED, INTERRUPTED, summary
from etude.train.lock import Lock

CONFIG = """
[task]
type = "translation"
beam_size = 2

[data]
train = "train.tsv"
val = "val.tsv"
test = "val.tsv"

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
batch_size = 8
precision = "float32"
device = "cpu"

[log]
tensorboard = false
"""
WORDS = ("one", "two", "three", "four")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a config, its data, and a run of it."""
    folder = tmp_path_factory.mktemp("cli")
    pairs = [(a, b) for a in WORDS for b in WORDS]
    for name, some in {"train": pairs, "val": pairs[:5]}.items():
        rows = "".join(f"{a} {b}\t{b} {a}\n" for a, b in some)
        (folder / f"{name}.tsv").write_text(f"source\ttarget\n{rows}", encoding="utf-8")
    (folder / "tiny.toml").write_text(CONFIG, encoding="utf-8")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert main(["train", "tiny.toml"]) == 0
        yield SimpleNamespace(folder=folder, run=folder / "runs" / "tiny")
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def rules():
    """What `etude schema` prints, as what judges a config."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(["schema"]) == 0
    return jsonschema.Draft202012Validator(json.loads(printed.getvalue()))


@pytest.fixture
def given(monkeypatch):
    """Put bytes on standard input."""
    return lambda content: monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def no_space(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def files_of(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_finished_run_is_told_of_and_ends_well(place, capsys):
    code = main(["train", "tiny.toml"])

    out, told = capsys.readouterr()
    assert (code, out) == (0, "")
    assert "Nothing to do" in told
    assert "Best: step-00000004 (val/loss" in told
    assert "test runs/tiny" in told


def test_progress_when_piped_is_plain_lines_with_what_was_logged(place, capsys):
    main(["train", "tiny.toml", "--run.name", "plain"])

    told = capsys.readouterr().err
    assert "step 4  loss" in told
    assert "val/loss" in told
    assert "\x1b" not in told
    assert "\r" not in told


def test_progress_is_silent_when_it_is_off(place, capsys):
    main(["train", "tiny.toml", "--run.name", "silent", "--log.progress", "false"])

    assert "learning rate" not in capsys.readouterr().err


def test_a_signal_in_training_saves_says_how_to_go_on_and_keeps_its_code(place, capsys):
    (place.folder / "kill.py").write_text(
        "import os, signal\n"
        "class Kill:\n"
        "    def on_step_end(self, run, outcome):\n"
        "        if run.progress.step == 3: os.kill(os.getpid(), signal.SIGTERM)\n"
    )

    code = main(["train", "tiny.toml", "--run.name", "killed", "--callbacks", '["kill.py:Kill"]'])

    assert code == 143
    assert "saved at step 3" in capsys.readouterr().err
    assert summary(place.folder / "runs" / "killed").state == INTERRUPTED


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["train", "nowhere.toml"], 2, "nowhere.toml does not exist"),
        (["train", "tiny.toml", "--train.clip_gard", "1"], 2, "did you mean"),
        (["train", "tiny.toml", "--train.clip_grad", "-1"], 2, "train.clip_grad must be positive"),
        (["train", "tiny.toml", "--run.name", "x1", "--data.train", "no.tsv"], 3, "no.tsv"),
        (["train", "tiny.toml", "--run.dir", "/proc/etude"], 5, "/proc/etude"),
        (["train", "tiny.toml", "--model.d_model", "16"], 7, "--run.name"),
        (["predict", "nowhere"], 5, "nowhere is not a run folder"),
        (["predict", "runs/tiny", "no.txt"], 3, "no.txt does not exist"),
        (["predict", "runs/tiny", "--checkpoint", "7"], 5, "'7'"),
        (["predict", "runs/tiny", "--n-best", "0"], 2, "--n-best must be at least 1"),
        (["predict", "runs/tiny", "--n-best", "3", "--beam-size", "2"], 2, "--beam-size"),
        (["predict", "runs/tiny", "--batch-size", "0"], 2, "--batch-size must be at least 1"),
        (["test", "runs/tiny", "--data.test", "no.tsv"], 3, "no.tsv"),
        (["runs", "nowhere"], 5, "nowhere is not a folder"),
    ],
)
def test_a_mistake_is_told_of_on_stderr_with_its_code(words, code, told, place, given, capsys):
    given(b"")

    ended = main(words)

    out, error = capsys.readouterr()
    assert (ended, out) == (code, "")
    last = [line for line in error.splitlines() if line.startswith("etude: ")]
    assert last
    assert told in last[0]
    assert "Traceback" not in error


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_metrics_are_lines_of_name_and_value_on_stdout(verb, place, capsys):
    code = main([verb, "runs/tiny"])

    split = {"validate": "val", "test": "test"}[verb]
    lines = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert code == 0
    assert {f"{split}/loss", f"{split}/bleu", f"{split}/chrf"} <= set(lines)
    assert float(lines[f"{split}/loss"]) > 0
    assert lines[f"{split}/bleu_signature"].startswith("BLEU|nrefs:1|case:mixed|")


def test_metrics_as_json_are_the_same(place, capsys):
    main(["validate", "runs/tiny", "--json"])

    assert "val/loss" in json.loads(capsys.readouterr().out)


def test_predictions_are_as_many_as_lines_and_an_empty_line_stays_empty(place, given, capsys):
    given(b"one two\n\nthree four\n")

    code = main(["predict", "runs/tiny"])

    lines = capsys.readouterr().out.split("\n")
    assert code == 0
    assert len(lines) == 4
    assert lines[1] == lines[3] == ""


def test_a_prediction_does_not_depend_on_its_company(place, given, capsys):
    (place.folder / "lines.txt").write_text("one two\nthree\none four two two\n", encoding="utf-8")
    main(["predict", "runs/tiny", "lines.txt", "--batch-size", "1"])
    alone = capsys.readouterr().out

    main(["predict", "runs/tiny", "lines.txt", "--batch-size", "3", "--checkpoint", "last"])

    assert capsys.readouterr().out == alone


def test_several_predictions_widen_the_beam(place, given, capsys):
    given(b"one two\n")

    main(["predict", "runs/tiny", "--json", "--n-best", "4"])

    found = json.loads(capsys.readouterr().out)
    assert found["source"] == "one two"
    assert len(found["predictions"]) == 4
    assert found["predictions"][0] == {"text": found["prediction"], "score": found["score"]}


def test_predictions_into_a_file_are_whole_or_not_there(place, given, capsys, monkeypatch):
    given(b"one two\n")
    with monkeypatch.context() as patch:
        patch.setattr("etude.app.cli.predict.write_out", no_space)
        code = main(["predict", "runs/tiny", "--output", "out.txt"])

    assert code == 5
    assert "Cannot write out.txt: No space left on device" in capsys.readouterr().err
    assert not list(place.folder.glob("*out.txt*"))

    given(b"one two\n")
    assert main(["predict", "runs/tiny", "--output", "out.txt"]) == 0
    assert (place.folder / "out.txt").read_text(encoding="utf-8").count("\n") == 1


def test_a_reader_of_predictions_that_has_gone_ends_them_quietly(place, given, monkeypatch, capfd):
    given(b"one two\n" * 2000)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)

        code = main(["predict", "runs/tiny"])

    assert code == 141
    assert capfd.readouterr().err == ""


def test_show_gives_a_config_that_reads_back_and_the_place_of_every_value(place, capsys):
    main(["show", "tiny.toml", "--train.clip_grad", "1.5"])

    shown = capsys.readouterr().out
    assert tomllib.loads(shown)["train"]["clip_grad"] == 1.5
    places = {line.split(" = ")[0]: line.split("# ")[-1] for line in shown.splitlines() if " = " in line}
    assert places["clip_grad"] == "--train.clip_grad on the command line"
    assert places["batch_size"] == "tiny.toml, line 23"
    assert places["keep_last"] == "default"


@pytest.mark.parametrize("given", ['"all"', '"val"', '["train", "test"]', "false", "[]"])
def test_the_schema_accepts_every_way_to_ask_for_saved_outputs(rules, given):
    written = CONFIG.replace("[train]", f"[train]\nsave_outputs = {given}")

    assert written != CONFIG
    rules.validate(tomllib.loads(written))
    assert not rules.is_valid(tomllib.loads(written.replace(given, '"dev"')))


def test_the_schema_accepts_the_config(rules):
    rules.validate(tomllib.loads(CONFIG))
    assert not rules.is_valid(tomllib.loads(CONFIG.replace("batch_size", "batch_sise")))


def test_check_tells_the_facts_and_leaves_nothing_behind(place, capsys):
    before = files_of(place.folder)

    code = main(["check", "tiny.toml", "--run.name", "checked"])

    told = capsys.readouterr().out
    assert code == 0
    assert files_of(place.folder) == before
    for name in ("config", "test", "model", "device", "validation", "batch", "step", "memory", "epoch", "run"):
        assert f"\n{name} " in f"\n{told}"


def test_runs_lists_each_run_with_its_state(place, capsys):
    code = main(["runs"])

    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert code == 0
    assert rows[0][:3] == ["name", "state", "step"]
    assert ["tiny", FINISHED, "4"] in [row[:3] for row in rows]


def test_runs_as_json_has_the_best_metric(place, capsys):
    main(["runs", "runs", "--json"])

    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    tiny = next(row for row in rows if row["name"] == "tiny")
    assert tiny["monitor"] == "val/loss"
    assert tiny["best"] > 0


def test_a_run_that_another_process_holds_is_running(place):
    if not (child := os.fork()):
        with Lock(place.run):
            main_state = os.fork()
            if not main_state:
                os._exit({"running": 0}.get(summary(place.run).state, 1))
            os._exit(os.waitstatus_to_exitcode(os.waitpid(main_state, 0)[1]))

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert summary(place.run).state == FINISHED


def test_the_environment_holds_no_environment_variable(place, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "s3cr3t-value")

    main(["train", "tiny.toml"])

    written = (place.run / "environment.json").read_text(encoding="utf-8")
    assert "s3cr3t-value" not in written
    assert json.loads(written)["versions"]["torch"]


def test_a_person_who_predicts_is_told_what_to_do_and_a_pipe_is_not(place, capsys, monkeypatch, given):
    ours, theirs = pty.openpty()
    os.write(ours, b"one two\n\x04")
    with os.fdopen(theirs) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        assert main(["predict", "runs/tiny"]) == 0
    os.close(ours)
    typed = capsys.readouterr()

    given(b"one two\n")
    assert main(["predict", "runs/tiny"]) == 0
    piped = capsys.readouterr()

    assert typed.err == "Type a line; Ctrl-D ends.\n"
    assert piped.err == ""
    assert typed.out == piped.out != ""


@pytest.mark.parametrize(("flags", "told"), [((), False), (("--debug",), True)])
def test_what_threads_do_on_a_busy_machine_is_told_with_debug_alone(flags, told, place, capsys, monkeypatch):
    monkeypatch.setattr("etude.app.cli.main.settle_waiting", lambda: None)
    monkeypatch.setattr("etude.app.cli.train.NOTES", ["Other programs use 1.3 of this machine's cores."])

    assert main(["train", "tiny.toml", *flags]) == 0

    assert ("Other programs use" in capsys.readouterr().err) is told
