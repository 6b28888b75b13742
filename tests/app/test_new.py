"""`etude new`: a folder to begin with for every task; its run begins, and the folder is there whole or not at all."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

import etude
from etude.__main__ import main
from etude.app.new.project import TEMPLATE_OF, new
from etude.app.new.sample import SIZES, TEMPLATES
from etude.base.errors import ConfigError
from etude.data.corpora.writing import generate
from etude.tasks.classification.type import INPUTS
from etude.tasks.table import TASK_TYPES

ROOT = Path(__file__).parents[2]
NAMES = ["-".join(filter(None, name)) for name in TEMPLATE_OF]
TINY = {"train.device": "cpu", "log.tensorboard": False, "log.progress": False}


@pytest.fixture
def away(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_task_and_every_kind_of_data_has_a_folder_to_begin_with():
    tasks = {task for task, _ in TEMPLATE_OF}
    kinds = {kind for task, kind in TEMPLATE_OF if task == "classification"}

    assert tasks == set(TASK_TYPES)
    assert kinds == set(INPUTS)


@pytest.mark.parametrize(("task", "kind"), TEMPLATE_OF, ids=NAMES)
def test_the_run_of_a_new_folder_begins(task, kind, away, monkeypatch):
    template = TEMPLATE_OF[task, kind]
    if template.needs is not None and find_spec(template.needs[0]) is None:
        pytest.skip(f"{template.needs[0]} is not installed")
    new(task, "first", data=kind)
    monkeypatch.chdir("first")

    result = etude.train("config.toml", {**TINY, "train.max_duration": "1 step", "train.eval_every": "10 steps"})

    assert result.progress.step == 1
    assert "val/loss" in result.metrics


def test_the_readme_names_commands_that_there_are(away):
    assert main(["new", "classification", "first", "--data", "tabular"]) == 0

    block = re.search(r"```sh\n(.*?)```", Path("first/README.md").read_text(), re.DOTALL)[1]
    assert [line.split()[:2] for line in block.splitlines()] == [
        ["etude", "check"],
        ["etude", "train"],
        ["etude", "predict"],
    ]


def test_a_folder_that_holds_something_stays_as_it_is(away):
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("kept")

    with pytest.raises(ConfigError, match="is not empty"):
        new("translation", "mine")
    assert [path.name for path in away.rglob("*")] == ["mine", "notes.txt"]


def test_an_empty_folder_is_filled_and_a_failure_leaves_none(away, monkeypatch):
    Path("empty").mkdir()
    new("language_model", "empty")
    monkeypatch.setattr("etude.app.new.project.readme", lambda *_: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        new("language_model", "failed")

    assert {path.name for path in Path("empty").iterdir()} == {"README.md", "config.toml", "text"}
    assert [path.name for path in away.iterdir()] == ["empty"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["translate", "d"], 'There is no task "translate"; there is translation, language_model'),
        (["classification", "d", "--data", "images"], "there is text, tabular, audio, arrays"),
        (["translation", "d", "--data", "text"], "leave --data out"),
        (["translation", "."], "current folder"),
    ],
)
def test_what_there_is_not_is_said(words, said, away, capsys):
    assert main(["new", *words]) == 2

    assert said in capsys.readouterr().err
    assert not list(away.iterdir())


@pytest.mark.parametrize(("name", "corpus"), [("translation", "numbers"), ("classification", "number_languages")])
def test_the_tables_in_the_package_are_the_beginning_of_their_corpus(name, corpus, tmp_path):
    pytest.importorskip("num2words", reason="num2words is not installed")
    pytest.importorskip("babel", reason="babel is not installed")

    made = generate(corpus, tmp_path, sizes=SIZES)

    for split, path in made.items():
        assert path.read_text() == (TEMPLATES / name / f"{split}.tsv").read_text()


def test_every_file_of_the_package_is_part_of_a_wheel():
    import tomllib

    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["etude"]
    package = ROOT / "src/etude"
    files = {path for path in package.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}}

    assert {path.suffix for path in TEMPLATES.rglob("*") if path.is_file()} == {".toml", ".tsv"}
    assert files == {path for pattern in patterns for path in package.glob(pattern)}
