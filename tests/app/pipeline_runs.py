"""A pipeline of seconds, and what is looked at of it."""

import json

from forks import CLOCK, TOML, files, written

from etude.app.running import build_job
from etude.app.stages.loading import load_pipeline

STAGES = """
[[stage]]
name = "small"
train.max_duration = "1 epoch"

[[stage]]
name = "large"
optimizer.learning_rate = 0.02
train.max_duration = "2 epochs"

[[stage]]
name = "measured"
do = "evaluate"
model = "large/best"
split = "val"
"""


def write(home, stages=STAGES, shared=TOML, name="pipe"):
    """A config with stages, and its data; its path."""
    home.mkdir(exist_ok=True)
    written(home)
    path = home / f"{name}.toml"
    path.write_text(shared.replace('"parent"', f'"{name}"') + stages, encoding="utf-8")
    return path


def loaded(path, *overrides):
    """The pipeline of a config, whose runs lie beside it."""
    return load_pipeline(path, ["--run.dir", str(path.parent / "runs"), *overrides], build_job)


def ran(path, *overrides, choice=None, said=None):
    """Run a pipeline; the names of the stages that ran."""
    _, reports = loaded(path, *overrides).run(print if said is None else said.append, choice)
    return [report.node.name for report in reports if report.ran]


def rows(folder):
    """What a stage logged, without what depends on the clock."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("time/") and not k.endswith(CLOCK)} for row in found]


def weights(folder):
    """The bytes of the last and the best weights."""
    return [(folder / "checkpoints" / name / "model.safetensors").read_bytes() for name in ("last", "best")]


def left(folder, *names):
    """Every file of some stages with its content and time, but for what remembers which files were looked at."""
    return {
        name: {key: one for key, one in files(folder / name).items() if ".checked" not in key and key != ".lock"}
        for name in names
    }
