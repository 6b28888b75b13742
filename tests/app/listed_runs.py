"""Run folders as files, as a training leaves them: for what only lists, filters and removes them."""

import json

CONFIG = """
[run]
name = "{name}"
dir = "{dir}"
seed = {seed}
[task]
type = "language_model"
[data]
train = "texts"
[model]
layers = {layers}
[optimizer]
learning_rate = {rate}
[train]
monitor = "val/loss"
max_duration = "6 steps"
[log]
tensorboard = {logged}
"""
LENGTH = {"kind": "length", "says": "max_duration reached"}
ASKED_TO_BREAK = {"kind": "interrupted", "says": "interrupted by SIGTERM"}


def made(folder, loss=None, *, seed=1, layers=2, rate=1e-3, ended=LENGTH, test=None, logged="true"):
    """A run folder."""
    folder.mkdir(parents=True)
    text = CONFIG.format(name=folder.name, dir=folder.parent, seed=seed, layers=layers, rate=rate, logged=logged)
    (folder / "config.toml").write_text(text)
    (folder / "environment.json").write_text("{}")
    rows = [{"step": 6, "epoch": 0.5, "tokens": 10, "train/loss": 3.5}, {"step": 6, "epoch": 0.5, "val/loss": loss}]
    rows += [] if test is None else [{"step": 4, "test/loss": test}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _save(folder / "checkpoints", loss, ended)
    return folder


def _save(folder, loss, ended):
    metrics = {} if loss is None else {"val/loss": loss, "val/perplexity": 2 * loss}
    for step in (4, 6):
        checkpoint = folder / f"step-{step:08}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "manifest.json").write_text(json.dumps({"step": step, "metrics": metrics, "files": {}}))
        state = {"progress": {"step": step, "epoch": 0, "epoch_done": 1, "epoch_total": 2}}
        state |= {"ended": ended} if ended and step == 6 else {}
        (checkpoint / "state.json").write_text(json.dumps(state))
        (checkpoint / "model.safetensors").write_bytes(b"x" * 5000)
    (folder / "best").symlink_to("step-00000004")
    (folder / "last").symlink_to("step-00000006")
