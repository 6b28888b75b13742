"""A parent run of a second, its forks, and what two runs must share."""

import json

from etude.app.cli.fork import bring
from etude.app.fork.plan import plan_fork
from etude.app.fork.start import make
from etude.app.running import train_run
from etude.app.runs.folder import CONFIG
from etude.tasks.config import load_config

WORDS = ("one", "two", "three", "four", "five", "six")
CLOCK = ("_seconds", "_per_second", "_memory")
TOML = """
[run]
name = "parent"

[task]
type = "translation"
eval_search_samples = 0

[data]
train = "train.tsv"
val = "val.tsv"

[tokenizer]
type = "word"

[model]
d_model = 8
heads = 2
encoder_layers = 1
decoder_layers = 1
feedforward = 8

[optimizer]
learning_rate = 0.01

[train]
max_duration = "3 epochs"
eval_every = "0.5 epochs"
save_every = "4 steps"
log_every = "1 step"
batch_size = 6
precision = "float32"
device = "cpu"

[log]
tensorboard = false
progress = false
"""
STEPS = 18
"""Of the whole run: 36 pairs make 6 batches an epoch."""


def quiet(_):
    """Nobody listens."""


def written(folder, **flags):
    """A config and its data in `folder`; the config, with `flags` in place of its values."""
    pairs = [(a, b) for a in WORDS for b in WORDS]
    for name, some in {"train": pairs, "val": pairs[::7]}.items():
        rows = "".join(f"{a} {b}\t{b} {a}\n" for a, b in some)
        (folder / f"{name}.tsv").write_text(f"source\ttarget\n{rows}", encoding="utf-8")
    (folder / "parent.toml").write_text(TOML, encoding="utf-8")
    return load_config(folder / "parent.toml", {"run.dir": str(folder / "runs"), **flags})


def parent(folder, **flags):
    """The folder of a run that was trained to its end."""
    loaded = written(folder, **flags)
    train_run(loaded, say=quiet)
    return loaded.config.folder


def fork(run, at, *overrides, say=quiet, train=True):
    """The folder of a fork of `run`, as `etude fork` makes it."""
    plan = plan_fork(run, at, overrides)
    is_new = make(plan, say)
    loaded = load_config(plan.folder / CONFIG)
    bring(loaded, plan.folder, is_new=is_new, tell=say)
    if train:
        train_run(loaded, say=say)
    return plan.folder


def rows(folder, upto=None):
    """What a run logged to a step, without what depends on the clock."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = [{k: v for k, v in row.items() if not k.startswith("time/") and not k.endswith(CLOCK)} for row in found]
    return [row for row in kept if upto is None or row["step"] <= upto]


def bits(folder, name="last"):
    """The bytes of a checkpoint's tensors, and all that its state says aside from the clock."""
    place = folder / "checkpoints" / name
    files = {file.name: file.read_bytes() for file in place.glob("*.safetensors")}
    state = json.loads((place / "state.json").read_text())
    del state["record"]  # the digits of times are of different length
    del state["progress"]["seconds"]
    for moment in ("since", "judged"):
        state["part stopping"][moment][5] = 0
    return {"step": place.resolve().name, "state": state, **files}


def files(folder):
    """Every file of a folder, with its content and the moment of its last change."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def about(folder):
    """What a fork says about where it comes from."""
    return json.loads((folder / "fork.json").read_text())


class KilledError(BaseException):
    """What a kill is in these tests."""


def killed(monkeypatch, place, name, nth):
    """Let the n-th call of a function be the end of the process."""
    calls, real = [], getattr(place, name)

    def counted(*given, **options):
        calls.append(1)
        if len(calls) == nth:
            raise KilledError
        return real(*given, **options)

    monkeypatch.setattr(place, name, counted)
