"""A sweep that is killed and shared ends in the runs that its configs have alone, each run once."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny

pytestmark = pytest.mark.acceptance

WORDS = (
    "sweep",
    "tiny.toml",
    "--optimizer.learning_rate",
    "1e-2,1e-3",
    "--train.batch_size",
    "8,16",
    "--run.seed",
    "1,2,3",
)
RUNS = [
    f"learning_rate={rate},batch_size={size},seed={seed}"
    for rate in (0.01, 0.001)
    for size in (8, 16)
    for seed in (1, 2, 3)
]
LENGTH = "--train.max_duration", "40 steps"
ALONE = """
import sys
from etude.app.running import train
for run in sys.argv[1:]:
    rate, size, seed = (part.partition("=")[2] for part in run.split(","))
    keys = {"optimizer.learning_rate": float(rate), "train.batch_size": int(size), "run.seed": int(seed)}
    train("tiny.toml", {**keys, "train.max_duration": "40 steps", "run.dir": "alone", "run.name": run})
"""


def begin(folder, *words, told="log"):
    command = [sys.executable, "-m", "etude", *WORDS, *LENGTH, *words]
    with (folder / told).open("a") as log:
        return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True)


def states(folder):
    told = subprocess.run(
        [sys.executable, "-m", "etude", "sweep", "tiny.toml", "--status", "--json"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return {row["name"]: row["state"] for row in map(json.loads, told.stdout.splitlines())}


def ended(folder):
    """The runs that have been trained to their end."""
    return [
        place
        for place in (folder / "runs/tiny").glob("*/checkpoints/last/state.json")
        if '"length"' in place.read_text()
    ]


def wait_for(condition, seconds=600):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def made_of(run):
    """What a run is, aside from the clock."""
    kept = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [{k: v for k, v in row.items() if not k.startswith("time/") and not k.endswith(tiny.CLOCK)} for row in kept]
    files = {path.name: path.read_bytes() for path in (run / "checkpoints/last").glob("*.safetensors")}
    return rows, files


@pytest.fixture(scope="module")
def swept(quick_folder):
    """A sweep of 12 runs, killed twice, and ended by two processes at once."""
    folder = quick_folder / "swept"
    tiny.written(folder)
    for count in (2, 6):
        worker = begin(folder, "--jobs", "2")
        wait_for(lambda count=count: len(ended(folder)) >= count)
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
    workers = [begin(folder, told="shared") for _ in range(2)]
    codes = [worker.communicate()[0] and worker.returncode for worker in workers]
    assert codes == [0, 0], (folder / "shared").read_text()
    return folder


def test_a_sweep_killed_twice_has_the_results_of_its_configs_alone(swept):
    subprocess.run([sys.executable, "-c", ALONE, *RUNS], cwd=swept, check=True, capture_output=True)

    assert states(swept) == dict.fromkeys(RUNS, "done")
    for run in RUNS:
        assert made_of(swept / "runs/tiny" / run) == made_of(swept / "alone" / run), run


def test_it_runs_nothing_when_it_is_started_once_more(swept):
    before = {path: path.stat().st_mtime_ns for path in Path(swept, "runs").rglob("metrics.jsonl")}

    worker = begin(swept)
    table, _ = worker.communicate()

    assert worker.returncode == 0
    assert table.count("done") == 12
    assert {path: path.stat().st_mtime_ns for path in Path(swept, "runs").rglob("metrics.jsonl")} == before


def test_no_run_was_begun_twice_by_processes_that_shared_it(swept):
    killed, shared = ((swept / name).read_text() for name in ("log", "shared"))

    assert "in use by" not in killed + shared
    for run in RUNS:
        begun = [f"{run}: {word}." for word in ("started", "resumed")]
        assert sum(map(shared.count, begun)) <= 1, run
        assert sum(map((killed + shared).count, begun)) >= 1, run
    assert shared.count(": started.") + shared.count(": resumed.") < len(RUNS)  # the killed worker's results count
    assert not [place for place in Path("/proc").iterdir() if place.name.isdecimal() and _is_a_run_of(place, swept)]


def _is_a_run_of(process, folder):
    """Whether a process is that of a run of the sweep in a folder."""
    try:
        words = (process / "cmdline").read_text()
    except OSError:
        return False
    return "trial" in words and str(folder) in words


RANKS = "--distributed.processes", "2"
SHARED = "sweep", "tiny.toml", "--optimizer.learning_rate", "1e-2,1e-3", "--run.name", "shared", *RANKS, *LENGTH


def test_runs_of_several_ranks_end_with_a_killed_sweep_and_go_on_with_the_next(quick_folder):
    folder = quick_folder / "ranks"
    tiny.written(folder)
    swept = folder / "runs/shared"

    with (folder / "log").open("w") as log:
        worker = subprocess.Popen([sys.executable, "-m", "etude", *SHARED], cwd=folder, stderr=log)
        wait_for(lambda: [path for path in swept.glob("*/metrics.jsonl") if path.stat().st_size])
        assert len(ranks_in(folder)) == 2
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
        wait_for(lambda: not ranks_in(folder), seconds=30)
        again = subprocess.run([sys.executable, "-m", "etude", *SHARED], cwd=folder, stderr=log, check=False)
    assert again.returncode == 0, (folder / "log").read_text()

    for rate in ("0.01", "0.001"):
        alone = [
            "train",
            "tiny.toml",
            *RANKS,
            *LENGTH,
            "--optimizer.learning_rate",
            rate,
            "--run.name",
            f"alone-{rate}",
        ]
        subprocess.run([sys.executable, "-m", "etude", *alone], cwd=folder, check=True, capture_output=True)
        assert made_of(swept / f"learning_rate={rate}") == made_of(folder / f"runs/alone-{rate}"), rate


def ranks_in(folder):
    """The processes of ranks whose working folder this is."""
    found = []
    for place in Path("/proc").iterdir():
        try:
            at_home = place.name.isdecimal() and (place / "cwd").resolve() == folder.resolve()
            is_rank = at_home and b"\0RANK=" in (place / "environ").read_bytes()
        except OSError:
            continue
        if is_rank:
            found.append(place)
    return found
