"""Etude trains sequence models: a run is a function of its config, to the last bit.

Three doors lead to the same loop: `etude.fit(module, train, val, loss=...)`, `etude.Trainer(...).fit(task, ...)` and
`etude.train("config.toml")`. Nothing is imported before it is used, so that the shell starts at once.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from etude import errors, growth, losses
    from etude.app.python.pipeline import Pipeline, Repeat, Stage
    from etude.app.python.trainer import Trainer, fit
    from etude.app.running import train
    from etude.app.runs.run import Run
    from etude.base.durations import Duration
    from etude.base.progress import Progress
    from etude.callbacks.early_stopping import EarlyStopping
    from etude.model.loss import Loss
    from etude.train.fit import Result
    from etude.train.memory.preload import load_weights
    from etude.train.optim.configured import Scheduled
    from etude.train.splitting import split_in_time
    from etude.train.task import StepOutput, Task
    from etude.train.watch.callback import Callback, Stop
    from etude.train.watch.metrics import Metric

__version__ = "0.1.0"

_HOMES = {
    "Callback": "etude.train.watch.callback",
    "Duration": "etude.base.durations",
    "EarlyStopping": "etude.callbacks.early_stopping",
    "Loss": "etude.model.loss",
    "Metric": "etude.train.watch.metrics",
    "Pipeline": "etude.app.python.pipeline",
    "Progress": "etude.base.progress",
    "Result": "etude.train.fit",
    "Run": "etude.app.runs.run",
    "Scheduled": "etude.train.optim.configured",
    "Repeat": "etude.app.python.pipeline",
    "Stage": "etude.app.python.pipeline",
    "StepOutput": "etude.train.task",
    "Stop": "etude.train.watch.callback",
    "Task": "etude.train.task",
    "Trainer": "etude.app.python.trainer",
    "fit": "etude.app.python.trainer",
    "load_weights": "etude.train.memory.preload",
    "split_in_time": "etude.train.splitting",
}
_MODULES = {"train": "etude.train", "losses": "etude.losses", "growth": "etude.growth", "errors": "etude.errors"}

__all__ = [
    "Callback",
    "Duration",
    "EarlyStopping",
    "Loss",
    "Metric",
    "Pipeline",
    "Progress",
    "Repeat",
    "Result",
    "Run",
    "Scheduled",
    "Stage",
    "StepOutput",
    "Stop",
    "Task",
    "Trainer",
    "errors",
    "fit",
    "growth",
    "load_weights",
    "losses",
    "split_in_time",
    "train",
]


def __getattr__(name: str) -> Any:
    import importlib

    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name not in _HOMES:
        raise AttributeError(f"module 'etude' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
