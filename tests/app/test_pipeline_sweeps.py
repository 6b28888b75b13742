"""Sweeps over a pipeline: stages that are equal among trials are run once, and end in the bits of a pipeline alone."""

import json
import shutil
import sys
import threading
from pathlib import Path

import pytest
from pipeline_runs import left, rows, weights, write
from pipeline_runs import ran as ran_alone
from sweeps import run, trials

from etude.__main__ import main
from etude.app.report.gather import folders, gather_all
from etude.app.results.groups import grouped
from etude.app.results.stages import summaries
from etude.app.results.values import Values
from etude.app.runs.pipelines import SHARED
from etude.app.stages.done import hash_of
from etude.app.stages.shared import GATES, HeldUpError, is_held_up
from etude.app.sweep import worker
from etude.app.sweep.plan import read_plan
from etude.app.sweep.state.state import Stand
from etude.base.errors import ConfigError, RefusedError
from etude.callbacks.rows import SWEEP
from etude.train.lock import Lock
from etude.train.step.update import Update

STAGES = """
[[stage]]
name = "small"
train.max_duration = "1 epoch"

[[stage]]
name = "large"
init.from = [{ checkpoint = "small/best" }]
train.max_duration = "1 epoch"

[[stage]]
name = "measured"
do = "evaluate"
model = "large/best"
split = "val"
"""
RATE = "--stage.large.optimizer.learning_rate"


@pytest.fixture
def sweep(tmp_path):
    """The folder of a sweep that has no trials yet, and the config of its pipelines."""
    folder = tmp_path / "runs/swept"
    folder.mkdir(parents=True)
    (folder / SWEEP).touch()
    return folder, write(tmp_path, STAGES)


def trial(sweep, name, *words, said=None):
    """Run a trial; the stages that ran for it."""
    folder, path = sweep
    return ran_alone(path, "--run.dir", str(folder), "--run.name", name, *words, said=said)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A sweep of two trials that have their first stage in common, and which stages each has run."""
    home = tmp_path_factory.mktemp("two")
    folder = home / "runs/swept"
    folder.mkdir(parents=True)
    (folder / SWEEP).touch()
    sweep = folder, write(home, STAGES)
    return sweep, trial(sweep, "a"), trial(sweep, "b", RATE, "0.001")


def test_a_stage_that_is_equal_is_run_once_and_lies_in_one_place(two):
    (folder, _), first, second = two

    assert (first, second) == (["small", "large", "measured"], ["large", "measured"])
    assert (folder / "a/small").resolve() == (folder / "b/small").resolve()
    assert (folder / "a/large").resolve() != (folder / "b/large").resolve()
    assert len([place for place in (folder / SHARED).iterdir() if not place.name.startswith(".")]) == 5


def test_each_trial_ends_in_the_bits_of_its_pipeline_alone(two, tmp_path):
    (folder, _), *_ = two
    alone = write(tmp_path, STAGES)

    ran_alone(alone, RATE, "0.001")

    for stage in ("small", "large"):
        assert weights(folder / "b" / stage) == weights(tmp_path / "runs/pipe" / stage)
        assert rows(folder / "b" / stage) == rows(tmp_path / "runs/pipe" / stage)
    assert not (tmp_path / "runs/pipe/small").is_symlink()
    assert not (tmp_path / "runs" / SHARED).exists()


def test_a_trial_that_is_done_runs_nothing_and_writes_nothing(two):
    sweep, *_ = two
    before = left(sweep[0] / "a", "small", "large", "measured")

    assert trial(sweep, "a") == []
    assert left(sweep[0] / "a", "small", "large", "measured") == before


def test_the_folder_of_a_sweep_can_be_moved(two, tmp_path):
    (folder, path), *_ = two
    moved = tmp_path / "moved/swept"
    shutil.copytree(folder, moved, symlinks=True)

    assert trial((moved, path), "b", RATE, "0.001") == []


def test_data_are_prepared_once_for_all_trials(two):
    (folder, _), *_ = two

    assert [place.parent.name for place in folder.rglob(".cache")] == [SHARED]


@pytest.fixture
def copy(two, tmp_path):
    """A sweep of two trials of one's own."""
    (folder, path), *_ = two
    shutil.copytree(folder, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy", path


def test_a_damaged_stage_is_run_again_for_all_and_what_was_damaged_is_kept(copy):
    sweep = copy
    model = sweep[0] / "a/small/checkpoints/last/model.safetensors"
    before = model.read_bytes()
    model.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))

    assert trial(sweep, "b", RATE, "0.001") == ["small"]
    assert trial(sweep, "a") == []
    assert model.read_bytes() == before
    assert len(list((sweep[0] / SHARED).glob("small-*.old-1"))) == 1


def test_what_one_trial_was_cut_in_another_goes_on_with(sweep, monkeypatch):
    steps = []

    def cut(*given, **named):
        steps.append(1)
        if len(steps) == 5:
            raise KeyboardInterrupt
        return real(*given, **named)

    real = Update.__call__
    monkeypatch.setattr(Update, "__call__", cut)
    with pytest.raises(KeyboardInterrupt):
        trial(sweep, "a")
    monkeypatch.setattr(Update, "__call__", real)
    said = []

    assert trial(sweep, "b", said=said) == ["small", "large", "measured"]
    assert "Stage 1 of 3, small: goes on where it was interrupted." in said
    assert trial(sweep, "a") == []


def test_a_trial_gives_way_while_a_stage_of_its_is_run_for_another(copy):
    (copy[0] / "b/small").unlink()
    place = (copy[0] / "a/small").resolve()
    (place / "done.json").unlink()
    assert not is_held_up(copy[0] / "b")

    with Lock(copy[0] / SHARED / GATES / place.name):
        with pytest.raises(HeldUpError, match="Stage small is being run for another trial") as raised:
            trial(copy, "b", RATE, "0.001")
        assert is_held_up(copy[0] / "b")

    assert raised.value.exit_code == 75
    assert not is_held_up(copy[0] / "b")
    assert (copy[0] / "b/small").resolve() == place


def test_a_copied_trial_whose_links_became_folders_is_used_as_it_is(two, tmp_path):
    (folder, path), *_ = two
    moved = tmp_path / "swept"
    shutil.copytree(folder / "a", moved / "a")
    (moved / SWEEP).touch()
    assert trial((moved, path), "a") == []

    assert trial((moved, path), "a", "--stage.measured.batch_size", "3", "--stage.large.run.seed", "9")[0] == "large"
    assert not (moved / "a/large").is_symlink()


# -- the sweep over them -----------------------------------------------------------------------------------------------

QUICK = """
import json, os, sys, tomllib
folder = os.path.dirname(sys.argv[1])
config = tomllib.load(open(sys.argv[1], "rb"))
rate = {one["name"]: one for one in config["stage"]}["large"].get("optimizer", config.get("optimizer"))["learning_rate"]
os.makedirs(os.path.join(folder, "large"), exist_ok=True)
os.makedirs(os.path.join(folder, "measured"), exist_ok=True)
with open(os.path.join(folder, "large/metrics.jsonl"), "w") as file:
    for step in (1, 2):
        file.write(json.dumps({"step": step, "val/loss": rate + 1 / step}) + "\\n")
with open(os.path.join(folder, "measured/done.json"), "w") as file:
    json.dump({"metrics": {"val/perplexity": 1 - rate}}, file)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quick.py").write_text(QUICK)
    return str(write(tmp_path, STAGES))


def test_trials_are_judged_by_the_last_stage_that_trains(place):
    found = run(place, RATE, "0.1,0.01")

    assert [(one.value, one.step, one.state) for one in found] == [(0.6, 2, Stand.DONE), (0.51, 2, Stand.DONE)]
    assert str(Path("runs/pipe/best").readlink()) == "learning_rate=0.01"


GIVES_WAY = """
import json, os, sys
folder = os.path.dirname(sys.argv[1])
json.dump({"stages": {"small": "train"}}, open(os.path.join(folder, "pipeline.json"), "w"))
os.symlink("../.stages/small-1", os.path.join(folder, "small"))
print("etude: Stage small is being run for another trial: it goes on after that.", file=sys.stderr)
sys.exit(75)
"""


def test_a_trial_that_is_held_up_leaves_its_place_of_jobs_to_the_next(place, monkeypatch):
    monkeypatch.setattr(worker, "WAIT_SECONDS", 0.05)
    gate = Lock(Path("runs/pipe", SHARED, GATES, "small-1"))
    begun, said, found = [], [], []

    def starts(config):
        begun.append(config.parent.name)
        words = [sys.executable, "-S", "-c", GIVES_WAY] if len(begun) == 1 else [sys.executable, "-S", "quick.py"]
        return [*words, str(config)]

    with gate:
        work = threading.Thread(
            target=lambda: found.extend(run(place, RATE, "0.1,0.01", starts=starts, said=said)), daemon=True
        )
        work.start()
        while "learning_rate=0.01: val/loss" not in "".join(said):
            work.join(0.01)
            assert work.is_alive()
        assert begun == ["learning_rate=0.1", "learning_rate=0.01"]
    work.join(60)

    assert begun == ["learning_rate=0.1", "learning_rate=0.01", "learning_rate=0.1"]
    assert said[1].startswith("[0/2] learning_rate=0.1: Stage small is being run for another trial")
    assert [one.state for one in found] == [Stand.DONE] * 2


def test_a_stage_that_is_named_judges_by_what_it_has_measured(place, capsys):
    words = RATE, "0.1,0.01", "--sweep.stage", "measured", "--sweep.metric", "val/perplexity"

    found = run(place, *words)

    assert [(one.value, one.step) for one in found] == [(0.9, None), (0.99, None)]
    assert str(Path("runs/pipe/best").readlink()) == "learning_rate=0.1"
    assert main(["sweep", place, *words]) == 0
    assert "Best: learning_rate=0.1 (val/perplexity 0.9)." in capsys.readouterr().err


def test_a_metric_that_the_stage_does_not_give_is_told_beside_those_that_it_gives(place):
    found = run(place, RATE, "0.1,0.01", "--sweep.stage", "measured", "--sweep.metric", "val/bleu")

    assert {one.error for one in found} == {'The stage "measured" gave no finite val/bleu; it gave val/perplexity.'}


def test_a_sweep_over_a_pipeline_that_is_done_runs_nothing(place):
    run(place, RATE, "0.1,0.01")

    assert [one.state for one in run(place, RATE, "0.1,0.01", starts=None)] == [Stand.DONE] * 2
    assert [one.name for one in trials(place)] == ["learning_rate=0.1", "learning_rate=0.01"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((RATE, "0.1,0.01", "--stage.small.train.max_duration", "3 epochs"), 'stage.small.train.max_duration was "1'),
        ((RATE, "0.1,0.01", "--stage.measured.split", "train"), "stage.measured.split was val and is train"),
        ((RATE, "0.1,0.01", "--sweep.stage", "small"), "stage was large and is small"),
    ],
)
def test_another_sweep_over_a_pipeline_is_refused_with_what_changed(place, words, says):
    run(place, RATE, "0.1,0.01")

    with pytest.raises(RefusedError, match=says):
        run(place, *words)


def test_stages_that_have_come_or_gone_make_it_another_sweep(place):
    run(place, RATE, "0.1,0.01")
    Path(place).write_text(Path(place).read_text().replace('"measured"', '"judged"'))

    with pytest.raises(RefusedError, match="the stages were small, large, measured and are small, large, judged"):
        run(place, RATE, "0.1,0.01")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--stage.lerge.optimizer.learning_rate", "0.1,0.01"), '"lerge" is not a stage; did you mean "large"'),
        (("--stage.large.optimizer.learning_rat", "0.1,0.01"), r"did you mean optimizer.learning_rate\?"),
        ((RATE, "0.1,0.01", "--sweep.stage", "lrge"), 'sweep.stage is "lrge", which is not a stage; did you mean "lar'),
        ((RATE, "0.1,0.01", "--sweep.stage", "measured"), 'sweep.metric must say which metric of the stage "measured"'),
        ((RATE, "0.1,0.01", "--sweep.metric", "test/loss"), "the test set never ranks"),
        ((RATE, "0.1,-1"), r'stage "large": optimizer.learning_rate must .* in learning_rate=-1'),
    ],
)
def test_mistakes_are_told_before_anything_is_written(place, words, says):
    with pytest.raises(ConfigError, match=says):
        run(place, *words)

    assert not Path("runs").exists()


def test_a_stage_is_named_for_a_config_with_stages_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, "")

    with pytest.raises(ConfigError, match=r'sweep.stage is "large", but .*pipe.toml has no stages'):
        read_plan(path, ["--run.seed", "1,2", "--sweep.stage", "large"])


def test_conditions_know_the_keys_of_stages(place):
    words = RATE, "0.1,0.01", "--stage.small.optimizer.learning_rate", "0.1,0.01"

    found = read_plan(
        place,
        [*words, "--sweep.where", "stage.small.optimizer.learning_rate * stage.small.train.batch_size > 0.3"],
    )

    assert [dict(one.values) for one in found.points.values()] == [
        {"stage.large.optimizer.learning_rate": rate, "stage.small.optimizer.learning_rate": 0.1}
        for rate in (0.1, 0.01)
    ]


# -- what is told of them ----------------------------------------------------------------------------------------------


def test_a_report_of_a_sweep_tells_of_the_last_training_of_each_trial(two):
    (folder, _), *_ = two
    (folder / "best").symlink_to("a")

    found = folders([folder])

    assert found == [folder / "a/large", folder / "b/large"]
    first, second = gather_all(found)
    assert (first.name, second.name) == ("a/large", "b/large")
    assert first.config["init.from"] == second.config["init.from"]
    assert folders([folder / "a"]) == [folder / "a/small", folder / "a/large"]
    (folder / "best").unlink()


def test_a_stage_that_trials_share_is_one_run_of_a_group(two):
    (folder, _), *_ = two

    runs = [Values(one) for one in summaries(folder) if one.name.endswith("/small")]

    assert [one.summary.name for one in runs] == ["a/small", "b/small"]
    assert [len(group.runs) for group in grouped(runs)] == [1]


def test_the_place_of_a_stage_follows_what_it_is_made_of(two):
    (folder, _), *_ = two
    record = json.loads((folder / "a/large/done.json").read_text())

    assert (folder / "a/large").resolve().name == f"large-{hash_of(record['made_of'])[:16]}"
