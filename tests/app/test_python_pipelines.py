"""Pipelines from Python: stages of a config and of functions, run as from a file."""

import json
from pathlib import Path

import pytest
from forks import TOML, quiet, written

import etude
from etude.errors import ConfigError


def count(artifacts, folder):
    """How large the weights are that were trained."""
    model = artifacts["trained"].path / "checkpoints" / "last" / "model.safetensors"
    (folder / "seen.txt").write_text("seen")
    return {"bytes": model.stat().st_size}


def double(artifacts):
    """A file elsewhere, made of what another function gave."""
    told = json.loads(artifacts["counted"].path.read_text())
    path = Path("doubled.txt")
    path.write_text(str(2 * told["bytes"]))
    return path.absolute()


def pipeline(rate=0.01, function=count):
    return etude.Pipeline(
        [
            etude.Stage("trained", overrides={"optimizer.learning_rate": rate}),
            etude.Stage("counted", function, inputs=["trained"]),
            etude.Stage("doubled", double, inputs=["counted"]),
            etude.Stage("measured", do="evaluate", overrides={"model": "trained/best", "split": "val"}),
        ],
        config="parent.toml",
        overrides={"train.max_duration": "3 steps"},
        name="mine",
        say=quiet,
    )


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path)
    Path("parent.toml").write_text(TOML)


def test_functions_take_what_stages_have_left_and_run_again_where_that_has_changed():
    first = pipeline().run()
    times = {path: path.stat().st_mtime_ns for path in Path("runs/mine").rglob("done.json")}

    again = pipeline().run()

    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert {name: one.identity for name, one in again.items()} == {name: one.identity for name, one in first.items()}
    size = Path("runs/mine/trained/checkpoints/last/model.safetensors").stat().st_size
    assert first["counted"].metrics == {"bytes": size}
    assert first["doubled"].path.read_text() == str(2 * size)
    assert first["measured"].metrics["val/loss"] > 0

    pipeline(rate=0.02).run()
    assert Path("runs/mine/counted.old-1/seen.txt").is_file()
    assert not Path("runs/mine/doubled.old-1").exists()  # the weights are others, but as large


def test_a_function_that_has_changed_runs_again_alone():
    def other(artifacts):
        return {"bytes": 7}

    pipeline().run()
    artifacts = pipeline(function=other).run("runs/mine", from_="counted")

    assert artifacts["doubled"].path.read_text() == "14"
    assert not Path("runs/mine/trained.old-1").exists()


def test_one_stage_alone_runs_where_those_it_takes_from_are_done():
    artifacts = pipeline().run(only="trained")

    assert list(artifacts) == ["trained"]
    assert not Path("runs/mine/counted").exists()


@pytest.mark.parametrize(
    ("stages", "told"),
    [
        (list, "A pipeline is made of one or more etude.Stage."),
        (lambda: [etude.Stage("a/b")], "stage.name must be the name of a folder"),
        (lambda: [etude.Stage("a", count, do="align")], "a function takes no config and no do"),
        (lambda: [etude.Stage("a", count, inputs=["b"])], 'stage "a": inputs is "b", which is neither a stage nor'),
        (lambda: [etude.Stage("a", "count")], "its function cannot be called"),
        (lambda: [etude.Stage("a", overrides={"train.max_durations": 1})], 'stage "a": train.max_durations is not a'),
    ],
)
def test_what_is_no_pipeline_is_refused_before_anything_is_written(stages, told):
    with pytest.raises(ConfigError) as refused:
        etude.Pipeline(stages(), config="parent.toml", say=quiet).run()

    assert told in str(refused.value)
    assert not Path("runs").exists()


def test_a_function_that_gives_what_no_artifact_can_be_is_told():
    made = etude.Pipeline([etude.Stage("odd", lambda artifacts: 7)], name="odd", say=quiet)

    with pytest.raises(ConfigError, match="must give a path, a table or nothing, but gave a int"):
        made.run()
