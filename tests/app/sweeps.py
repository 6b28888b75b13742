"""A sweep of a config whose runs take no time: a process that logs, saves and ends as a training does."""

import json
import sys
from pathlib import Path

from etude.app.sweep.begin import begin, opener
from etude.app.sweep.plan import read_plan
from etude.app.sweep.search import AllKnown, NoPruning
from etude.app.sweep.worker import Jobs, Worker

CONFIG = """
[task]
type = "language_model"

[data]
train = "text.txt"
val = "text.txt"

[model]
d_model = 8
heads = 2

[optimizer]
learning_rate = 1e-3

[train]
max_duration = "5 steps"
"""

QUICK = """
import json, math, os, signal, sys, time, tomllib
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
folder = os.path.dirname(sys.argv[1])
config = tomllib.load(open(sys.argv[1], "rb"))
rate, width = config["optimizer"]["learning_rate"], config["model"]["d_model"]
rows = os.path.join(folder, "metrics.jsonl")
done = len(open(rows).readlines()) if os.path.exists(rows) else 0
steps, pause = int(config["train"]["max_duration"].split()[0]), float(os.environ.get("PAUSE", 0))
with open(rows, "a") as file:
    for step in range(done + 1, steps + 1):
        time.sleep(pause)
        if width == 16 and not os.path.exists("mended"):
            print(f"etude: step {step} of {os.path.basename(folder)} went wrong.", file=sys.stderr)
            sys.exit(4)
        loss = (math.log10(rate) + 3) ** 2 + width / 100 + 1 / step
        file.write(json.dumps({"step": step, "epoch": 0, "val/loss": loss, "time/pid": os.getpid()}) + "\\n")
        file.flush()
"""
LOSS = {
    (rate, width): (power + 3) ** 2 + width / 100 + 0.2 for rate, power in ((1e-2, -2), (1e-3, -3)) for width in (8, 32)
}


def written(folder, sweep=""):
    """The config, beside the data and the process that it takes for training."""
    (folder / "text.txt").write_text("Once upon a time.\n")
    (folder / "quick.py").write_text(QUICK)
    (folder / "small.toml").write_text(CONFIG + sweep)
    return str(folder / "small.toml")


def quickly(config):
    """The command of a run."""
    return [sys.executable, "-S", str(config.parents[3] / "quick.py"), str(config)]


def run(config, *words, jobs=1, search=None, pruning=None, said=None, starts=quickly):
    """Run what is left of a sweep; its trials."""
    say = (said if said is not None else []).append
    plan = read_plan(config, words)
    open_state = opener(plan)
    begin(plan, open_state, say)
    Worker(
        plan, open_state, search or AllKnown(), pruning or NoPruning(), jobs=Jobs(jobs), say=say, starts=starts
    ).run()
    return trials(config, *words)


def trials(config, *words):
    """How the trials of a sweep stand."""
    state = opener(read_plan(config, words, runs=False))()
    found = state.trials()
    state.close()
    return found


def rows(folder):
    """What a run has logged."""
    return [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]
