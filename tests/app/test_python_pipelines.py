"""Pipelines from Python: stages of a config and of functions, run as from a file."""

import json
from pathlib import Path
from typing import ClassVar

import pytest
from forks import TOML, quiet, written

import etude
from etude.app.running import build_job
from etude.app.stages.loading import load_pipeline
from etude.errors import ConfigError

SHORT = {"train.max_duration": "3 steps"}


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
        overrides=SHORT,
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
        (list, "A pipeline is made of one or more etude.Stage and etude.Repeat."),
        (lambda: [etude.Repeat([], 2)], "A repeat is made of one or more etude.Stage."),
        (lambda: [etude.Repeat([etude.Stage("a"), etude.Stage("b")], 0)], 'Repeat from "a" to "b": times must be'),
        (lambda: [etude.Repeat([etude.Repeat([etude.Stage("a")], 2)], 2)], "A repeat is made of one or more"),
        (lambda: [etude.Stage("a"), etude.Repeat([etude.Stage("a")], 2)], 'Two stages are called "a"'),
        (lambda: [etude.Stage("a", overrides={"again.run.seed": 2})], "again is for a stage that is repeated"),
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


REPEATED = """
[[stage]]
name = "first"

[[stage]]
name = "grown"
init.from = [{ checkpoint = "first/best", grow = true }]
model.feedforward = { schedule = "stairs", values = [8, 16], every = "1 round" }
again.init.from = [{ checkpoint = "grown/best", grow = true }]

[[stage]]
name = "measured"
do = "evaluate"
model = "grown"
split = "val"

[[repeat]]
from = "grown"
to = "measured"
times = 2
"""


def test_what_is_repeated_equals_the_tables_of_a_file():
    Path("file.toml").write_text(TOML.replace('"parent"', '"mine"') + REPEATED)
    larger = {"schedule": "stairs", "values": [8, 16], "every": "1 round"}
    growing = {
        "init.from": [{"checkpoint": "first/best", "grow": True}],
        "model.feedforward": larger,
        "again.init.from": [{"checkpoint": "grown/best", "grow": True}],
    }
    measured = etude.Stage("measured", do="evaluate", overrides={"model": "grown", "split": "val"})
    stages = [etude.Stage("first"), etude.Repeat([etude.Stage("grown", overrides=growing), measured], times=2)]

    made = etude.Pipeline(stages, config="parent.toml", name="mine", say=quiet).course()

    written = load_pipeline("file.toml", [], build_job)
    names = ["first", "grown", "measured", "grown-2", "measured-2"]
    assert [node.name for node in made.nodes] == [node.name for node in written.nodes] == names
    identities = [[node.stage.identity({}) for node in one.nodes] for one in (made, written)]
    assert identities[0] == identities[1]
    assert len(set(identities[0])) == len(names)
    assert made.config == written.config


class Listener:
    """Notes what it is told of stages."""

    heard: ClassVar[list[tuple[object, ...]]] = []

    def on_stage_start(self, run, stage):
        self.heard.append((stage, "starts", run.task is None, dict(run.metrics)))

    def on_stage_end(self, run, stage):
        self.heard.append((stage, "ends", run.task is None, "val/loss" in run.metrics))
        return etude.Stop("enough") if stage == "counted" else None

    def on_exception(self, run, error):
        self.heard.append((run.folder.name, str(error)))


def test_callbacks_are_told_of_stages_of_every_kind():
    Listener.heard.clear()
    Path("parent.toml").write_text(TOML + f'[callbacks.listener]\ntype = "{__name__}:Listener"\n')
    mean = etude.Stage("mean", do="average", overrides={"model": "trained", "last": 1})
    said = []
    made = pipeline()
    etude.Pipeline([*made.stages, mean], config="parent.toml", overrides=SHORT, name="mine", say=said.append).run()

    kinds = {"trained": False, "counted": True, "doubled": True, "measured": True, "mean": True}
    told = [(stage, when, bare) for stage, when, bare, _ in Listener.heard]
    assert told == [(stage, when, bare) for stage, bare in kinds.items() for when in ("starts", "ends")]
    assert ("measured", "ends", True, True) in Listener.heard
    assert "A callback asked to stop (enough), but counted does not train: it has ended as it does." in said


def test_callbacks_are_told_of_what_ends_a_stage_by_an_error():
    Listener.heard.clear()
    Path("parent.toml").write_text(TOML + f'[callbacks.listener]\ntype = "{__name__}:Listener"\n')
    made = etude.Pipeline([etude.Stage("odd", lambda artifacts: 7)], config="parent.toml", name="odd", say=quiet)

    with pytest.raises(ConfigError):
        made.run()

    assert Listener.heard[0] == ("odd", "starts", True, {})
    assert Listener.heard[1][0] == "odd"
    assert "must give a path" in Listener.heard[1][1]


def test_a_function_that_gives_what_no_artifact_can_be_is_told():
    made = etude.Pipeline([etude.Stage("odd", lambda artifacts: 7)], name="odd", say=quiet)

    with pytest.raises(ConfigError, match="must give a path, a table or nothing, but gave a int"):
        made.run()
