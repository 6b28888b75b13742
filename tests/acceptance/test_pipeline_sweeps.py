"""A sweep over a pipeline, killed and shared: each trial ends as its pipeline alone, equal stages are run once."""

import json
import signal
import subprocess
import sys
import time

import pytest
import tiny

pytestmark = pytest.mark.acceptance

STAGES = """
[[stage]]
name = "small"
train.max_duration = "40 steps"

[[stage]]
name = "large"
init.from = [{ checkpoint = "small/best" }]
train.max_duration = "40 steps"

[[stage]]
name = "measured"
do = "evaluate"
model = "large/best"
split = "val"
"""
RATES, SEEDS = (0.01, 0.001), (1, 2)
WORDS = "--stage.large.optimizer.learning_rate", "0.01,0.001", "--stage.large.run.seed", "1,2"
TRIALS = {f"learning_rate={rate},seed={seed}": (rate, seed) for rate in RATES for seed in SEEDS}


def begin(folder, *words):
    command = [sys.executable, "-m", "etude", "sweep", "tiny.toml", *WORDS, *words]
    with (folder / "log").open("a") as log:
        return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True)


def rows_of(place):
    try:
        return len((place / "metrics.jsonl").read_text().splitlines())
    except OSError:
        return 0


def wait_for(condition, seconds=600):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def made_of(stage):
    """What a training is, aside from the clock."""
    kept = [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]
    rows = [{k: v for k, v in row.items() if not k.startswith("time/") and not k.endswith(tiny.CLOCK)} for row in kept]
    files = {path.name: path.read_bytes() for path in (stage / "checkpoints/last").glob("*.safetensors")}
    return rows, files


def test_killed_in_a_shared_stage_and_in_one_of_its_own_it_ends_as_its_pipelines_alone(quick_folder):
    folder = quick_folder / "swept"
    tiny.written(folder)
    (folder / "tiny.toml").write_text((folder / "tiny.toml").read_text() + STAGES)
    sweep = folder / "runs/tiny"
    first = next(iter(TRIALS))
    for stage in ("small", "large"):
        worker = begin(folder, "--jobs", "2")
        wait_for(lambda stage=stage: any(rows_of(sweep / name / stage) > 9 for name in TRIALS))
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
    workers = [begin(folder) for _ in range(2)]
    codes = [worker.communicate()[0] and worker.returncode for worker in workers]
    assert codes == [0, 0], (folder / "log").read_text()

    for number, (name, (rate, seed)) in enumerate(TRIALS.items()):
        words = "--stage.large.optimizer.learning_rate", str(rate), "--stage.large.run.seed", str(seed)
        command = [sys.executable, "-m", "etude", "train", "tiny.toml", *words, "--run.name", f"alone-{number}"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        for stage in ("small", "large"):
            assert made_of(sweep / name / stage) == made_of(folder / f"runs/alone-{number}" / stage), (name, stage)

    logs = "".join((sweep / name / "log.txt").read_text() for name in TRIALS)
    assert logs.count("small: done in") == 1
    assert logs.count("large: done in") == len(TRIALS)
    assert len({(sweep / name / "small").resolve() for name in TRIALS}) == 1
    assert not list((sweep / ".stages").glob("*.old-*"))
    before = {path: path.stat().st_mtime_ns for path in sweep.rglob("metrics.jsonl")}
    worker = begin(folder)
    assert worker.communicate()[0].count("done") == len(TRIALS)
    assert {path: path.stat().st_mtime_ns for path in sweep.rglob("metrics.jsonl")} == before
    assert (sweep / first / "large").is_symlink()
