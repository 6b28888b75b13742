"""A pipeline that is killed at any moment, and started again by the same command, leaves what it leaves unbroken."""

import json
import random
import sys
import time
from collections import Counter

import pytest
import tiny

pytestmark = pytest.mark.acceptance

MAIN = "etude.app.cli.main:main"
KILLS = 20
TRAINED = ("small", "grown", "large")
STAGES = """
[[stage]]
name = "small"
train.max_duration = "1 epoch"

[[stage]]
name = "grown"
model.encoder_layers = { schedule = "stairs", values = [1, 2], every = "1 epoch" }
train.max_duration = "2 epochs"

[[stage]]
name = "mean"
do = "average"
of = "grown"
last = 2

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


def written(folder):
    """Write the pipeline and its data; the command that runs it."""
    words = tiny.written(folder)
    config = folder / "tiny.toml"
    config.write_text(config.read_text() + STAGES)
    return words


def left(folder):
    """Of each training the tensors of its checkpoints and its rows; of the others what they have measured."""
    place = tiny.run_folder(folder)
    found = {}
    for name in TRAINED:
        for kind in ("last", "best"):
            for file in sorted((place / name / "checkpoints" / kind).glob("*.safetensors")):
                found[name, kind, file.name] = file.read_bytes()
        rows = map(json.loads, (place / name / "metrics.jsonl").read_text().splitlines())
        found[name, "rows"] = [{key: row[key] for key in row if not clocked(key)} for row in rows]
    done = {name: json.loads((place / name / "done.json").read_text()) for name in ("mean", "measured")}
    return found | {("metrics", name): one.get("metrics") for name, one in done.items()}


def clocked(key):
    return key.startswith("time/") or key.endswith(tiny.CLOCK)


def stage_of(folder):
    """The stages that are done."""
    return len(list(tiny.run_folder(folder).glob("*/done.json")))


def test_kills_at_random_moments_of_a_pipeline_change_nothing(quick_folder, tmp_path, nursery):
    straight = quick_folder / "straight"
    words = written(straight)
    begun = time.monotonic()
    assert nursery.run(MAIN, words, log=straight / "log", folder=straight) == 0, (straight / "log").read_text()
    whole = time.monotonic() - begun
    written(tmp_path)
    draw = random.Random(22)
    done, kills = Counter(), 0
    while kills < KILLS:
        child = nursery.start(MAIN, words, log=tmp_path / "log", folder=tmp_path)
        time.sleep(draw.uniform(0.1, 0.5) * whole)
        if not child.kill():
            assert child.code == 0, (tmp_path / "log").read_text()
            tiny.emptied(tmp_path)
            continue
        child.wait()
        kills += 1
        done[stage_of(tmp_path)] += 1

    assert nursery.run(MAIN, words, log=tmp_path / "log", folder=tmp_path) == 0, (tmp_path / "log").read_text()

    assert left(tmp_path) == left(straight)
    assert not list(tiny.run_folder(tmp_path).glob("*.old-*"))
    sys.stdout.write(f"\n{KILLS} kills of a pipeline, all equal; so many after so many stages: {dict(done)}\n")
