"""Pipelines: what is missing or has changed runs, and nothing else; what was cut ends in the same bits."""

import json
import shutil

import pytest
import torch
from forks import KilledError, killed
from pipeline_runs import STAGES, left, loaded, ran, rows, weights, write
from safetensors.torch import load_file

import etude
from etude.app.stages.pipeline import Choice
from etude.base.errors import ConfigError, RefusedError
from etude.train.run import Run

NAMES = ("small", "large", "measured")
MEASURED = '[[stage]]\nname = "e"\ndo = "evaluate"\nmodel = "t"\n'


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The config of a pipeline that has run."""
    path = write(tmp_path_factory.mktemp("pipeline"))
    assert ran(path) == list(NAMES)
    return path


@pytest.fixture
def place(done, tmp_path):
    """The same in a folder of its own."""
    shutil.copytree(done.parent, tmp_path / "p", symlinks=True)
    path = tmp_path / "p" / done.name
    assert ran(path, "--data.train", str(done.parent / "train.tsv"), "--data.val", str(done.parent / "val.tsv")) == []
    return path


def again(path, done, *overrides, **options):
    data = ["--data.train", str(done.parent / "train.tsv"), "--data.val", str(done.parent / "val.tsv")]
    return ran(path, *data, *overrides, **options)


def test_a_second_run_does_nothing(done):
    folder = done.parent / "runs" / "pipe"
    before = left(folder, *NAMES)

    assert ran(done) == []

    assert left(folder, *NAMES) == before


def test_a_stage_that_has_changed_runs_again_with_all_that_depend_on_it_and_no_other(place, done):
    folder = place.parent / "runs" / "pipe"
    before, old = left(folder, "small"), weights(folder / "large")

    assert again(place, done, "--stage.large.optimizer.learning_rate", "0.03") == ["large", "measured"]

    assert left(folder, "small") == before
    assert weights(folder / "large") != old
    assert weights(folder / "large.old-1") == old


def test_keys_that_change_no_number_run_nothing_again(place, done):
    assert again(place, done, "--log.progress", "true", "--train.keep_last", "3") == []


def test_a_stage_that_is_gone_or_damaged_runs_again_and_what_depends_on_the_same_bits_does_not(place, done):
    folder = place.parent / "runs" / "pipe"
    old = weights(folder / "large")
    shutil.rmtree(folder / "large")

    assert again(place, done) == ["large"]
    assert weights(folder / "large") == old

    model = folder / "large" / "checkpoints" / "last" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-1] + b"?")
    assert again(place, done) == ["large"]
    assert weights(folder / "large") == old


@pytest.mark.parametrize("nth", [2, 9, 16])
def test_a_pipeline_that_was_killed_anywhere_goes_on_to_the_same_bits(nth, done, tmp_path, monkeypatch):
    path = write(tmp_path / "cut")
    with monkeypatch.context() as patch:
        killed(patch, Run, "step", nth)
        with pytest.raises(KilledError):
            ran(path)

    ran(path)

    folder, unbroken = path.parent / "runs" / "pipe", done.parent / "runs" / "pipe"
    for name in ("small", "large"):
        assert weights(folder / name) == weights(unbroken / name)
        assert rows(folder / name) == rows(unbroken / name)
    assert not list(folder.glob("*.old-*"))


def test_a_stage_is_begun_anew_where_its_config_has_changed_since_it_was_cut(tmp_path, monkeypatch):
    path = write(tmp_path / "cut")
    with monkeypatch.context() as patch:
        killed(patch, Run, "step", 11)
        with pytest.raises(KilledError):
            ran(path)

    assert ran(path, "--stage.large.optimizer.learning_rate", "0.03") == ["large", "measured"]

    assert (path.parent / "runs" / "pipe" / "large.old-1").is_dir()


def test_stages_draw_apart(tmp_path):
    alike = write(tmp_path / "a", '[[stage]]\nname = "one"\n[[stage]]\nname = "two"\n')
    ran(alike, "--train.max_duration", "2 steps")

    folder = tmp_path / "a" / "runs" / "pipe"
    assert weights(folder / "one") != weights(folder / "two")
    assert json.loads((folder / "one" / "done.json").read_text())["seed"] == [1, "one"]


def test_some_stages_can_be_run_alone_or_begun_at_or_forced(place, done):
    folder = place.parent / "runs" / "pipe"

    assert again(place, done, choice=Choice(force="large")) == ["large", "measured"]
    assert again(place, done, choice=Choice(force="measured")) == ["measured"]
    shutil.rmtree(folder / "measured")
    assert again(place, done, choice=Choice(only="small")) == []
    assert again(place, done, choice=Choice(only="measured")) == ["measured"]
    said = []
    change = ["--stage.small.optimizer.learning_rate", "0.5"]
    assert again(place, done, *change, choice=Choice(begin="large"), said=said) == []
    why = "its config has changed (optimizer.learning_rate was 0.01 and is 0.5)"
    assert f"Stage small is used as it is, although {why}." in said
    shutil.rmtree(folder / "large")
    with pytest.raises(RefusedError, match='The stage "large" must be done before, but is missing'):
        again(place, done, choice=Choice(only="measured"))
    with pytest.raises(ConfigError, match=r"--only names .*did you mean large"):
        again(place, done, choice=Choice(only="larg"))


def test_the_composed_config_runs_as_it_is(done, tmp_path):
    home = tmp_path / "moved"
    shutil.copytree(done.parent / "runs" / "pipe", home / "pipe", symlinks=True)

    moved = loaded(home / "pipe" / "config.toml", "--run.dir", str(home))

    assert moved.config == {**loaded(done).config, "run": moved.config["run"]}
    assert [report.ran for report in moved.run(print)[1]] == [False, False, False]


@pytest.mark.parametrize(
    ("stages", "told"),
    [
        ('[[stage]]\nname = "a"\ndo = "trian"\n', 'stage "a": do is "trian"; did you mean "train"?'),
        ('[[stage]]\nname = "a"\n[[stage]]\nname = "a"\n', 'Two stages are called "a"'),
        ('[[stage]]\nname = "a/b"\n', "stage.name must be the name of a folder"),
        ("[[stage]]\n", "stage.name is missing"),
        ('[[stage]]\nname = "a"\noptimizer.lerning_rate = 1\n', 'stage "a": optimizer.lerning_rate is not a key of'),
        ('[[stage]]\nname = "a"\nrun.name = "b"\n', 'stage "a": run.name is set by the pipeline'),
        (
            '[[stage]]\nname = "e"\ndo = "evaluate"\nmodel = "larg"\n[[stage]]\nname = "large"\n',
            'did you mean "large"?',
        ),
        ('[[stage]]\nname = "e"\ndo = "evaluate"\nmodel = "e"\n', 'stage "e": model names the stage itself'),
        ('[[stage]]\nname = "e"\ndo = "evaluate"\n', 'stage "e": model is missing'),
        ('[[stage]]\nname = "e"\ndo = "evaluate"\nmodle = "e"\n', "did you mean model?"),
        (
            f'[[stage]]\nname = "t"\n{MEASURED}[[stage]]\nname = "f"\ndo = "evaluate"\nmodel = "e"\n',
            'stage "f": model is "e", but that stage leaves no weights',
        ),
        ('[[stage]]\nname = "a"\ndo = "average"\nof = "a"\n', 'stage "a": one of last, best and checkpoints must'),
        ('[[stage]]\nname = "a"\ndo = "align"\ntopology = "linear"\n', "is for a task that can align"),
        ('[[repeat]]\nfrom = "b"\nto = "b"\ntimes = 2\n[[stage]]\nname = "a"\n', 'repeat.from is "b", which is not a'),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(stages, told, tmp_path):
    path = write(tmp_path, stages)

    with pytest.raises(ConfigError) as refused:
        loaded(path)

    assert told in str(refused.value)
    assert str(path) in str(refused.value) or "Two stages" in told
    assert not (tmp_path / "runs").exists()


def test_stages_that_wait_for_each_other_are_refused(tmp_path):
    (tmp_path / "own.py").write_text("def make(artifacts):\n    return None\n")
    stages = "".join(f'[[stage]]\nname = "{a}"\ndo = "own.py:make"\ninputs = ["{b}"]\n' for a, b in ("xy", "yz", "zx"))

    with pytest.raises(ConfigError, match="The stages wait for each other: x -> y -> z -> x"):
        loaded(write(tmp_path, stages))


def test_a_config_without_stages_knows_no_stage(tmp_path):
    path = write(tmp_path, STAGES)

    assert [node.name for node in loaded(path).nodes] == list(NAMES)
    assert [node.made.composed is None for node in loaded(path).nodes] == [False, False, True]


def test_an_average_is_a_model_for_others_and_is_made_of_what_it_names(tmp_path):
    stages = """
[[stage]]
name = "trained"
train.max_duration = "8 steps"
train.keep_last = 3
[[stage]]
name = "mean"
do = "average"
of = "trained"
last = 2
[[stage]]
name = "score"
do = "evaluate"
model = "mean"
split = "val"
batch_size = 3
"""
    path = write(tmp_path, stages)
    assert ran(path) == ["trained", "mean", "score"]

    folder = tmp_path / "runs" / "pipe"
    tensors = [load_file(folder / name / "model.safetensors") for name in ("mean/average", *_last_two(folder))]
    for name, mean in tensors[0].items():
        torch.testing.assert_close(mean, (tensors[1][name] + tensors[2][name]) / 2)
    run = etude.Run(folder / "trained")
    measured = json.loads((folder / "score" / "val.json").read_text())
    assert measured["val/loss"] == pytest.approx(run.validate(weights=folder / "mean" / "average")["val/loss"])
    assert ran(path, "--stage.score.batch_size", "2") == []
    assert ran(path, "--stage.mean.last", "3") == ["mean", "score"]


def _last_two(folder):
    steps = sorted((folder / "trained" / "checkpoints").glob("step-*"))
    return [f"trained/checkpoints/{path.name}" for path in steps[-2:]]


def test_a_pipeline_that_was_cut_goes_on_where_it_was_moved_to_and_a_changed_data_file_is_noticed(
    tmp_path, monkeypatch
):
    path = write(
        tmp_path, STAGES.replace("optimizer.learning_rate", 'init.from = "small/last"\noptimizer.learning_rate')
    )
    with monkeypatch.context() as patch:
        killed(patch, Run, "step", 11)
        with pytest.raises(KilledError):
            ran(path)
    (tmp_path / "runs").rename(tmp_path / "moved")
    place = ["--run.dir", str(tmp_path / "moved")]
    said = []

    assert ran(path, *place, said=said) == ["large", "measured"]
    assert "Stage 2 of 3, large: goes on where it was interrupted." in said

    with (tmp_path / "val.tsv").open("a") as file:
        file.write("one one\tone one\n")
    assert ran(path, *place, said=said) == list(NAMES)
    assert "Stage 1 of 3, small: runs again, since the content of data.val has changed." in said


def test_first_weights_from_elsewhere_are_noticed_where_they_change(done, tmp_path):
    small, large = (done.parent / "runs/pipe" / name / "checkpoints/last/model.safetensors" for name in NAMES[:2])
    source = tmp_path / "weights.safetensors"
    source.write_bytes(small.read_bytes())
    stage = f'[[stage]]\nname = "small"\ninit.from = "{source}"\ntrain.max_duration = "1 step"\n'
    path = write(tmp_path / "own", stage)
    said = []

    assert ran(path) == ["small"]
    assert ran(path) == []
    source.write_bytes(large.read_bytes())
    assert ran(path, said=said) == ["small"]
    assert "Stage 1 of 1, small: runs again, since the content of init.from[0].checkpoint has changed." in said


def test_what_a_test_changes_is_checked_at_the_start(tmp_path):
    path = write(tmp_path, STAGES + "task.beam_sise = 8\n")

    with pytest.raises(ConfigError, match=r'stage "measured": task.beam_sise is not a key of \[task\]; did you mean'):
        loaded(path)
