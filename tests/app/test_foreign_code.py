"""Code that the config of a run folder names runs by no verb that takes a folder from elsewhere, wherever it stands."""

import copy
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from pydantic import ValidationError

from etude.app.export import export
from etude.app.running import train_run
from etude.app.runs.run import Run
from etude.app.runs.stored import stored_type
from etude.base.config.loading import difference
from etude.base.config.writing import toml
from etude.base.errors import EtudeError, RefusedError
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
[init.weights]
"*.weight" = "normal(0.02)"
[train]
max_duration = "1 steps"
batch_size = 8
device = "cpu"
[log]
progress = false
tensorboard = false
"""
EVIL = """
from pathlib import Path
Path({mark!r}).write_text("ran")

def make(*arguments, **more):
    Path({mark!r}).write_text("ran")
    return 1.0
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run, whose folder tests copy."""
    home = tmp_path_factory.mktemp("foreign")
    (home / "pairs.tsv").write_text("one two\tuno dos\n" * 8)
    (home / "c.toml").write_text(CONFIG)
    loaded = load_config(home / "c.toml", {"run.dir": str(home / "runs")})
    train_run(loaded, say=lambda _: None)
    return loaded


def planted(data):
    """Every place of a composed config that holds a value or could, with an import path there in each form."""
    places = [(key.split("."), value) for key, _, value in difference({}, data) if '"' not in key]
    tables = {tuple(place[:end]) for place, _ in places for end in range(1, len(place))}
    own = [("callbacks",), ("log", "loggers"), ("loss", "terms", "x"), ("loss", "weights", "x"), ("train", "freeze")]
    for place in [*(tuple(place) for place, _ in places), *tables, *own, ("init", "weights", "*"), ("stage",)]:
        yield from ((place, form) for form in FORMS)


FORMS = (
    lambda spec: spec,
    lambda spec: {"type": spec},
    lambda spec: {"schedule": spec},
    lambda spec: [spec],
    lambda spec: {"x": {"type": spec}},
)


def put(data, place, value):
    table = data
    for name in place[:-1]:
        if not isinstance(table.get(name), dict):
            table[name] = {}
        table = table[name]
    table[place[-1]] = value


VERBS = {
    "kind": lambda run, _: stored_type(run, allow_code=False),
    "predict": lambda run, _: Run(run, allow_code=False).predict(["one"]),
    "test": lambda run, _: Run(run, allow_code=False).test(),
    "validate": lambda run, _: Run(run, allow_code=False).validate(),
    "export": lambda run, out: export(run, out, allow_code=False),
}


@pytest.mark.parametrize("verbs", [["test"], pytest.param([*VERBS], marks=pytest.mark.acceptance)], ids=["test", "all"])
def test_no_place_of_a_config_runs_foreign_code(run, tmp_path, verbs):
    mark, evil = tmp_path / "mark", tmp_path / "evil.py"
    evil.write_text(EVIL.format(mark=str(mark)))
    folder, said = tmp_path / "run", set()
    shutil.copytree(run.config.folder, folder, symlinks=True)
    accepted = 0
    for number, (place, form) in enumerate(planted(run.data)):
        data = copy.deepcopy(run.data)
        put(data, place, form(f"{evil}:make"))
        if not is_taken(run, data):
            continue
        (folder / "config.toml").write_text(toml(data))
        accepted += 1
        for name in verbs:
            try:
                VERBS[name](folder, tmp_path / f"out {number}")
            except RefusedError:
                said.add(".".join(place))
            except EtudeError:
                pass
            assert not mark.exists(), f"{name} runs the code at {'.'.join(place)}"
    assert accepted > 20
    assert said >= {"task", "task.type", "model", "model.type", "loss", "loss.type", "init.weights.*"}


def is_taken(run, data):
    """Whether the config is one at all."""
    try:
        type(run.config).model_validate(data)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("place", ["task.type", "model.type", "loss.type", "init.weights.*"])
def test_where_code_is_allowed_it_runs(run, tmp_path, place):
    mark, evil = tmp_path / "mark", tmp_path / "evil.py"
    evil.write_text(EVIL.format(mark=str(mark)))
    shutil.copytree(run.config.folder, tmp_path / "run", symlinks=True)
    data = load_config(run.config.folder / "config.toml").data
    put(data, place.split("."), f"{evil}:make")
    if place in {"model.type", "loss.type"}:
        data[place.partition(".")[0]] = {"type": f"{evil}:make"}
    (tmp_path / "run" / "config.toml").write_text(toml(data))

    with suppress(Exception):  # it makes no part of the kind that is needed
        Run(tmp_path / "run").predict(["one"])
    assert mark.exists()


def test_import_paths_are_resolved_in_one_file():
    package = Path(load_config.__code__.co_filename).parent.parent
    resolving = [
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if "spec_from_file_location" in path.read_text(encoding="utf-8")
    ]
    assert resolving == ["base/config/imports.py"]
