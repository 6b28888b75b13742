"""Ranks that `etude train` starts: signals reach all of them, none outlives it, and the same command goes on."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[2] / "recipes" / "tabular.toml"
LONGEST = 240


def start(folder, *more, launcher=(), processes=2):
    ranks = ["--distributed.processes", str(processes)] if not launcher else []
    words = [
        *(launcher or [sys.executable]),
        *("-m", "etude", "train", str(RECIPE), "--run.dir", str(folder), "--run.name", "run"),
        *("--train.max_duration", "2 epochs", "--train.log_every", "1 step", "--train.device", "cpu"),
        *("--model.dropout", "0.0", *ranks, *more),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, stderr=subprocess.PIPE, env=environment, text=True)


def steps(folder):
    path = folder / "run" / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["step"] for line in lines]


def losses(folder):
    """The loss of each step, in the order of the rows."""
    rows = map(json.loads, (folder / "run" / "metrics.jsonl").read_text().splitlines())
    return [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row]


def wait_for_step(folder, step, process):
    end = time.monotonic() + LONGEST
    while max(steps(folder), default=0) < step:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.02)


def children(process):
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def alive(pids):
    return [pid for pid in pids if Path(f"/proc/{pid}").exists() and "Z" not in state(pid)]


def state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_ranks_end_with_their_launcher_and_the_same_command_goes_on(tmp_path):
    first = start(tmp_path)
    wait_for_step(tmp_path, 3, first)
    os.kill(children(first)[1], signal.SIGKILL)
    begun = time.monotonic()
    said = first.communicate(timeout=LONGEST)[1]

    assert first.returncode == 6
    assert "rank 1 was killed by SIGKILL; the same command resumes the run" in said
    assert time.monotonic() - begun < 15

    second = start(tmp_path)
    wait_for_step(tmp_path, 5, second)
    ranks = children(second)
    second.send_signal(signal.SIGTERM)
    said = second.communicate(timeout=LONGEST)[1]

    assert second.returncode == 143
    assert "Starting 2 ranks with 1 threads each." in said
    assert re.search(r"Interrupted by SIGTERM and saved at step \d+", said), said
    assert len(ranks) == 2
    assert not alive(ranks)

    third = start(tmp_path)
    wait_for_step(tmp_path, max(steps(tmp_path)) + 5, third)
    ranks = children(third)
    third.kill()
    third.wait()
    third.stderr.close()
    end = time.monotonic() + 10
    while alive(ranks) and time.monotonic() < end:
        time.sleep(0.05)
    assert not alive(ranks)
    assert steps(tmp_path) == sorted(set(steps(tmp_path))), "a step was taken twice"


@pytest.mark.acceptance
def test_a_run_whose_launcher_was_killed_ends_as_an_unbroken_one(tmp_path):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    start(straight).communicate(timeout=LONGEST)
    first = start(broken, "--train.save_every", "5 steps")
    wait_for_step(broken, 20, first)
    first.kill()
    first.communicate(timeout=LONGEST)

    second = start(broken, "--train.save_every", "5 steps")
    said = second.communicate(timeout=LONGEST)[1]

    assert second.returncode == 0, said
    assert "Resuming from step" in said
    assert "2 ranks, each with 1/2 of every batch" in said
    assert said.count("Done at step 188") == 1
    assert losses(broken) == losses(straight)
    assert len(losses(broken)) == 188


def test_ranks_that_are_to_be_none_are_refused(tmp_path):
    command = [sys.executable, "-m", "etude", "train", str(RECIPE), "--distributed.strategy", "none"]
    given = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    done = subprocess.run(
        command, env={**os.environ, **given}, cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert 'distributed.strategy is "none", but 2 ranks have been started' in done.stderr


@pytest.mark.acceptance
def test_torchrun_starts_ranks(tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = start(tmp_path, launcher=launcher)
    said = process.communicate(timeout=LONGEST)[1]

    assert process.returncode == 0, said
    assert "2 ranks, each with 1/2 of every batch" in said
    assert said.count("Done at step 188") == 1
