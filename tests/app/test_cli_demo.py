"""The demo: what it shows, what it removes, and (long) the whole of it."""

import os
import subprocess
import sys

import pytest

from etude.__main__ import main
from etude.app import demo
from etude.app.runs.environment import commit, environment
from etude.tasks.config import load_config


def test_the_package_carries_the_recipe_that_the_demo_trains():
    config = load_config(demo.CONFIG, {"run.name": "demo"}).config

    assert config.data.train == config.data.test == "numbers"


def test_columns_are_aligned():
    shown = demo.table([("a", "bb"), ("ccc", "d\x1b")])

    assert shown.splitlines() == ["a    bb", "---  --", "ccc  d\\x1b"]


def test_a_folder_that_is_no_run_is_never_removed(tmp_path, capsys):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "thesis.tex").write_text("years of work", encoding="utf-8")

    code = main(["demo", "--fresh", "--dir", str(tmp_path)])

    assert code == 7
    assert "so it stays" in capsys.readouterr().err
    assert (tmp_path / "demo" / "thesis.tex").exists()


def test_the_environment_is_told_as_json_without_the_variables(monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "s3cr3t-value")

    told = environment()

    assert {"versions", "hardware", "commit", "command", "folder"} == set(told)
    assert "s3cr3t-value" not in repr(told)


def test_a_folder_without_a_repository_has_no_commit(tmp_path):
    assert commit(tmp_path) is None


def test_the_commit_is_told_and_whether_files_differ(tmp_path):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    (tmp_path / "a").write_text("1", encoding="utf-8")
    for words in (["init", "-q"], ["add", "a"], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *words], check=True)
    clean = commit(tmp_path)
    (tmp_path / "a").write_text("2", encoding="utf-8")

    changed = commit(tmp_path)

    assert (clean["dirty"], changed["dirty"]) == (False, True)
    assert clean["commit"] == changed["commit"]


@pytest.mark.acceptance
def test_the_demo_is_killed_goes_on_and_translates_what_it_never_saw(tmp_path):
    words = [sys.executable, "-m", "etude", "demo", "--dir", str(tmp_path)]

    done = subprocess.run(words, capture_output=True, text=True, check=True, env={**os.environ, "CI": "true"})

    assert "kill -9" in done.stderr
    assert "Resuming from step" in done.stderr
    bleu = float(done.stdout.split("test BLEU ")[1].split(",")[0])
    assert bleu >= 60

    again = subprocess.run(words, capture_output=True, text=True, check=True)

    assert "is finished" in again.stderr
    assert again.stdout == done.stdout
