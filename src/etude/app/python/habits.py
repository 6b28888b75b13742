"""Habits of other trainers in Python, each answered with Etude's way."""

import inspect
from collections.abc import Iterator, Mapping

from etude.base.errors import ConfigError
from etude.base.near import nearest
from etude.train.task import Task

STEPS = ("training_step", "validation_step", "test_step", "predict_step")
GIVEN = ("hiddens", "optimizer", "progress")
"""What a step may declare beside the batch."""
_INSTEAD = {
    "ckpt_path": "a run with run_dir resumes by itself, and test(weights=...) chooses the weights",
    "train_dataloaders": "write train=...",
    "train_dataloader": "write train=...",
    "val_dataloaders": "write val=...",
    "val_dataloader": "write val=...",
    "dataloaders": "give the data itself: {verb}(task, data)",
    "datamodule": "give its loaders: fit(task, train=..., val=...)",
    "model": "give the task as the first argument",
    "epochs": 'the length belongs to the trainer: Trainer(max_duration="3 epochs")',
    "batch_size": "the size belongs to the trainer: Trainer(batch_size=...)",
    "validation_data": "write val=...",
    "callbacks": "callbacks belong to the trainer: Trainer(callbacks=[...])",
    "verbose": "the display belongs to the trainer: Trainer(progress=False)",
}
"""Arguments of other trainers, and what takes their place."""


def refuse_foreign(verb: str, given: Mapping[str, object], known: tuple[str, ...]) -> None:
    """Raise ConfigError for arguments that a method of the trainer does not take, each with what is meant."""
    problems = [f"{verb} does not take {name}; {_advice(verb, name, known)}." for name in given]
    if problems:
        raise ConfigError(problems)


def _advice(verb: str, name: str, known: tuple[str, ...]) -> str:
    near = nearest(name, known)
    guess = f"did you mean {near}" if near else f"it takes {', '.join(known)}"
    return _INSTEAD.get(name, guess).format(verb=verb)


def check_steps(task: Task) -> None:
    """Refuse steps that need what the loop does not give, such as `batch_idx`. Raises ConfigError with all."""
    problems = [f"{type(task).__name__}.{step} needs {name}, which Etude does not give: {_way(name)}"
                for step in STEPS for name in _needed(task, step)]  # fmt: skip
    if problems:
        raise ConfigError(problems)


def _way(name: str) -> str:
    counted = "self.progress.batch counts batches" if "idx" in name else f"it may declare {', '.join(GIVEN)}"
    return f"leave it out; {counted}."


def _needed(task: Task, step: str) -> Iterator[str]:
    """The parameters of a step, beyond the batch, that it cannot be called without and nobody gives."""
    method = getattr(task, step, None)
    parameters = list(inspect.signature(method).parameters.values()) if callable(method) else []
    yield from (one.name for one in filter(_is_needed, parameters[1:]))


def _is_needed(one: inspect.Parameter) -> bool:
    rest = {one.VAR_POSITIONAL, one.VAR_KEYWORD}
    return one.default is one.empty and one.name not in GIVEN and one.kind not in rest
