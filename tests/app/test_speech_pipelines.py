"""Pipelines of speech: alignments made by one stage, learnt by the next, and made anew round by round."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pipeline_runs import weights
from speech_corpora import CONFIG, write_place

import etude
from etude.app.running import build_job
from etude.app.stages.loading import load_pipeline
from etude.base.errors import ConfigError

ROUNDS = """
[[stage]]
name = "even"
do = "align"
topology = "linear"

[[stage]]
name = "frames"
loss = { type = "framewise", alignments = "even" }
model.layers = { schedule = "stairs", values = [1, 2], every = "1 round" }
train.max_duration = "6 steps"
again.loss.alignments = "aligned"

[[stage]]
name = "aligned"
do = "align"
model = "frames/last"
prior_scale = 0.3

[[stage]]
name = "score"
do = "evaluate"
model = "frames"
split = "val"
"""
EVEN = '[[stage]]\nname = "a"\ndo = "align"\ntopology = "linear"\n'
REPEAT = """
[[repeat]]
from = "frames"
to = "aligned"
times = 2
"""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_place(tmp_path)
    return tmp_path


def written(stages):
    Path("p.toml").write_text(CONFIG + stages)


def loaded(stages, *overrides):
    written(stages)
    return load_pipeline("p.toml", list(overrides), build_job)


def ran(stages, *overrides):
    return [report.node.name for report in loaded(stages, *overrides).run(print)[1] if report.ran]


def test_rounds_align_and_train_with_a_larger_network_each_time():
    names = ["even", "frames", "aligned", "frames-2", "aligned-2", "score"]

    assert ran(ROUNDS + REPEAT) == names
    assert ran(ROUNDS + REPEAT) == []

    folder = Path("runs/p")
    configs = [load_pipeline(folder / "config.toml", [], build_job), loaded(ROUNDS + REPEAT)]
    assert configs[0].config == configs[1].config
    assert [report.ran for report in configs[0].run(print)[1]] == [False] * 6
    facts = [json.loads((folder / name / "train" / "manifest.json").read_text())["facts"] for name in names[::2][:2]]
    assert [one["topology"] for one in facts] == ["hmm", "hmm"]
    assert ran(ROUNDS + REPEAT, "--stage.frames-2.optimizer.learning_rate", "0.5") == ["frames-2", "aligned-2", "score"]
    shapes = [len(weights(folder / name)[0]) for name in ("frames", "frames-2")]
    assert shapes[1] > shapes[0]
    assert json.loads((folder / "score" / "done.json").read_text())["made_of"]["inputs"].keys() == {"frames-2"}


def test_rounds_are_written_out_with_what_each_stage_takes():
    nodes = {node.name: node for node in loaded(ROUNDS + REPEAT.replace("times = 2", "times = 3")).nodes}

    assert list(nodes) == ["even", "frames", "aligned", "frames-2", "aligned-2", "frames-3", "aligned-3", "score"]
    takes = {name: list(map(str, node.made.references.values())) for name, node in nodes.items()}
    assert takes == {
        "even": [],
        "frames": ["even"],
        "aligned": ["frames/last"],
        "frames-2": ["aligned"],
        "aligned-2": ["frames-2/last"],
        "frames-3": ["aligned-2"],
        "aligned-3": ["frames-3/last"],
        "score": ["frames-3"],
    }
    layers = [nodes[name].made.composed.loaded.config.model.layers for name in ("frames", "frames-2", "frames-3")]
    assert layers == [1, 2, 2]


def test_the_first_stage_of_a_round_takes_the_model_of_the_round_before():
    stages = """
[[stage]]
name = "ctc"
[[stage]]
name = "align"
do = "align"
model = "ctc/last"
topology = "ctc"
[[stage]]
name = "frames"
loss = { type = "framewise", alignments = "align" }
[[repeat]]
from = "align"
to = "frames"
times = 2
"""
    nodes = {node.name: node for node in loaded(stages).nodes}

    again = nodes["align-2"].stage
    assert (str(again.weights.reference), again.keys.topology) == ("frames/last", None)
    assert str(nodes["frames-2"].made.references["loss.alignments"]) == "align-2"

    stays = stages.replace('topology = "ctc"', 'topology = "ctc"\nagain.model = "ctc"')
    kept = {node.name: node for node in loaded(stays).nodes}
    assert str(kept["align-2"].stage.weights.reference) == "ctc"
    assert kept["align-2"].stage.keys.topology == "ctc"


@pytest.mark.parametrize("given", ['"ctc/last"', '{ checkpoint = "ctc/last" }', '[{ checkpoint = "ctc/last" }]'])
def test_a_stage_begins_with_the_weights_of_another_however_it_names_them(given):
    stages = f"""
[[stage]]
name = "next"
init.from = {given}
train.max_duration = "1 step"
optimizer.learning_rate = 0.0
optimizer.weight_decay = 0.0
[[stage]]
name = "ctc"
train.max_duration = "2 steps"
"""
    assert ran(stages) == ["ctc", "next"]
    assert weights(Path("runs/p/next"))[0] == weights(Path("runs/p/ctc"))[0]

    again = load_pipeline("runs/p/config.toml", [], build_job)
    assert [str(one) for one in again.nodes[1].made.references.values()] == ["ctc/last"]
    assert [report.ran for report in again.run(print)[1]] == [False, False]
    assert ran(stages, "--stage.ctc.optimizer.learning_rate", "0.5") == ["ctc", "next"]


@pytest.mark.parametrize(
    ("stages", "told"),
    [
        ('[[stage]]\nname = "a"\ndo = "align"\n', 'stage "a": model is missing'),
        (
            '[[stage]]\nname = "a"\ndo = "align"\nmodel = "c"\ntopology = "hmm"\n[[stage]]\nname = "c"\n',
            'stage "a": topology "hmm" needs a network trained with loss.type framewise, but that of "c" is ctc',
        ),
        (
            f"{EVEN}[[stage]]\nname = 'f'\nloss = {{ type = 'framewise', alignments = 'a' }}\nmodel.subsampling = 4\n",
            'stage "f": loss.alignments names "a", which aligns for model.subsampling = 2, but here it is 4',
        ),
        (
            '[[stage]]\nname = "f"\nloss = { type = "framewise", alignments = "algin" }\n[[stage]]\nname = "align"\n',
            'loss.alignments is "algin", which is neither a stage nor a path that exists; did you mean "align"?',
        ),
        (
            '[[stage]]\nname = "c"\n[[stage]]\nname = "f"\nloss = { type = "framewise", alignments = "c" }\n',
            'stage "f": loss.alignments names "c", which leaves no alignments',
        ),
    ],
)
def test_what_cannot_be_aligned_or_learnt_so_is_refused_at_start(stages, told):
    with pytest.raises(ConfigError) as refused:
        loaded(stages)

    assert told in str(refused.value)
    assert "p.toml, line" in str(refused.value)
    assert not Path("runs").exists()


def test_an_alignment_that_was_cut_goes_on_by_shard_and_a_damaged_one_is_mended(monkeypatch):
    stages = '[[stage]]\nname = "even"\ndo = "align"\ntopology = "linear"\nshard_size = 4\nsplits = ["train"]\n'
    ran(stages)
    folder = Path("runs/p/even/train")
    before = {path.name: path.read_bytes() for path in folder.glob("*.parquet")}
    times = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
    (folder / "shard-00001.parquet").write_bytes(b"damaged")

    assert ran(stages) == ["even"]

    assert {path.name: path.read_bytes() for path in folder.glob("*.parquet")} == before
    now = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
    assert [name for name in now if now[name] != times[name]] == ["shard-00001.parquet"]


def rows_of(folder):
    return {row["id"]: row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()}


def test_of_two_rounds_each_recording_keeps_its_better_alignment():
    stages = """
[[stage]]
name = "even"
do = "align"
topology = "linear"
[[stage]]
name = "frames"
loss = { type = "framewise", alignments = "even" }
train.max_duration = "12 steps"
again.train.max_duration = "9 steps"
[[stage]]
name = "aligned"
do = "align"
model = "frames/last"
keep_better = true
shard_size = 5
splits = ["train"]
[[repeat]]
from = "frames"
to = "aligned"
times = 2
"""
    assert ran(stages) == ["even", "frames", "aligned", "frames-2", "aligned-2"]

    etude.Run("runs/p/frames-2").align("train", folder=Path("new"), weights="last")
    old, new, kept = (rows_of(Path(name)) for name in ("runs/p/aligned/train", "new", "runs/p/aligned-2/train"))
    better = {name: max(old[name], new[name], key=lambda row: row["score"]) for name in new}
    assert kept == better
    assert {kept[name] == old[name] for name in new} == {True, False}
    assert [report.ran for report in load_pipeline("runs/p/config.toml", [], build_job).run(print)[1]] == [False] * 5
