"""The Python face: a trainer with the options of `[train]`, and `fit` for a plain module."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import nn

from etude.app.module_task import ModuleTask
from etude.base.config.components import Imported, component
from etude.base.config.imports import resolve_import
from etude.base.config.loading import load
from etude.base.config.section import Section
from etude.base.errors import ConfigError
from etude.base.files import make_folder, write_json
from etude.base.horizon import Horizon
from etude.data.adopt import adopt
from etude.data.feed import Feed
from etude.train.checkpoint.content import ALIASES, MODEL, write_tensors
from etude.train.checkpoint.nest import snapshot
from etude.train.config import TrainConfig
from etude.train.evaluate import evaluate
from etude.train.fit import Job, Result, Resume
from etude.train.fit import fit as run_job
from etude.train.lock import claimed
from etude.train.optim.build import ONLY, build_imported, build_optimizer
from etude.train.optim.config import OPTIMIZERS, AdamWConfig, OptimizerConfig
from etude.train.optim.configured import configured_slots
from etude.train.optim.slot import Slot
from etude.train.portable import save_task
from etude.train.precision import choose_device
from etude.train.record import Record
from etude.train.task import Task


class _Options(Section):
    """What a trainer is told."""

    train: TrainConfig = TrainConfig()
    optimizer: Annotated[OptimizerConfig | Imported, component(OPTIMIZERS, "adamw")] = AdamWConfig()


def _say(sentence: str) -> None:
    sys.stderr.write(sentence + "\n")


class Trainer:
    """Trains tasks.

    `options` are the keys of `[train]` (`max_duration="10 epochs"`, `accumulate=4`, ...); an unknown one is refused
    with the nearest name. `optimizer` is a name (`"adamw"`), a table with a type, a torch optimizer or a function of
    the parameters; `learning_rate` a number or a schedule (`{"schedule": "cosine", "peak": 1e-3}`). With `run_dir`
    the run is kept there, and the same script, started again, continues it; without, nothing is written and the best
    weights are kept in memory.
    """

    def __init__(
        self,
        *,
        optimizer: Any = None,
        learning_rate: Any = None,
        callbacks: Sequence[Any] = (),
        loggers: Sequence[Any] = (),
        run_dir: str | Path | None = None,
        resume: Resume = "auto",
        seed: int = 1,
        say: Callable[[str], None] = _say,
        **options: Any,
    ) -> None:
        if resume not in {"auto", "never", "must"}:
            raise ConfigError(f'resume must be "auto", "never" or "must", but is {resume!r}.')
        self._given = dict(options)
        self._own_optimizer = optimizer if _is_made(optimizer) else None
        self._learning_rate = learning_rate
        overrides: dict[str, Any] = {f"train.{name}": value for name, value in options.items()}
        if optimizer is not None and self._own_optimizer is None:
            table = {"type": optimizer} if isinstance(optimizer, str) else optimizer
            overrides |= {f"optimizer.{name}": value for name, value in table.items()}
        if learning_rate is not None and not isinstance(learning_rate, torch.optim.lr_scheduler.LRScheduler):
            overrides["optimizer.learning_rate"] = learning_rate
        self._options = load(_Options, None, overrides).config
        self.config: TrainConfig = self._options.train
        self._callbacks = list(callbacks)
        self._loggers = list(loggers)
        self._folder = None if run_dir is None else Path(run_dir)
        self._resume = resume
        self._seed = seed
        self._say = say
        self._task: Task | None = None
        self._test: Any = None
        self.result: Result | None = None
        """How the last `fit` ended."""

    def fit(self, task: Task, train: Any = None, val: Any = None, test: Any = None) -> Result:
        """Train `task` on `train`, judged on `val`; afterwards the task holds the last weights.

        Data is a DataLoader, a Dataset, an iterable of batches or an Etude source. `test` is kept for `test()`.
        """
        if train is None:
            raise ConfigError("fit needs training data: fit(task, train=loader).")
        if not isinstance(task, Task):
            raise ConfigError(f"fit needs an etude.Task, but got a {type(task).__name__}; etude.fit takes any module.")
        self._task, self._test = task, test
        with ExitStack() as stack:
            if self._folder is not None:
                stack.enter_context(claimed(self._folder))
            train_feed, val_feed = self._feeds(train, val)
            job = Job(
                task=task,
                train=train_feed,
                val=val_feed,
                config=self.config,
                optimizers=self._slots,
                folder=self._folder,
                seed=self._seed,
                callbacks=self._callbacks,
                components=[task, *self._loggers],
                loggers=self._loggers,
                resume=self._resume,
                say=self._say,
                about=self._given,
            )
            self.result = run_job(job)
        return self.result

    def validate(self, task: Task, data: Any) -> dict[str, float]:
        """The metrics of `task` on `data`, as `val/...`."""
        return self._evaluate(task, data, task.validation_step, "val", self.config.limit_val)

    def test(self, task: Task | None = None, data: Any = None, weights: str = "best") -> dict[str, float]:
        """The metrics on `data` (or what `fit` was given as `test`), as `test/...`.

        After `fit` the best weights are used, unless `weights="last"`; the task keeps its own.
        """
        task = task or self._task
        data = data if data is not None else self._test
        if task is None or data is None:
            raise ConfigError("test needs a task and data: test(task, loader), or fit(..., test=loader) before.")
        kept = None
        if self.result is not None and task is self._task and weights == "best":
            kept = {name: value.clone() for name, value in task.state_dict().items()}
            self.result.load_best(task)
            self._say("Testing with the best weights.")
        elif self.result is not None and task is self._task:
            self._say("Testing with the last weights.")
        try:
            metrics = self._evaluate(task, data, task.test_step, "test", self.config.limit_test)
        finally:
            if kept is not None:
                task.load_state_dict(kept)
        if self._folder is not None and self.result is not None:
            progress = self.result.progress
            record = Record(self._folder, complain=self._say)
            record.open(cut=None)
            record.write(
                {"step": progress.step, "epoch": round(progress.epochs, 6), "tokens": progress.tokens} | metrics
            )
            record.close()
        return metrics

    def predict(self, task: Task, data: Any) -> list[Any]:
        """What `task.predict_step` gives for each batch of `data`, in order."""
        device = choose_device(self.config.device)
        task.to(device).eval()
        from etude.data.nest import move

        with torch.no_grad():
            return [task.predict_step(move(delivery.batch, device)) for delivery in self._feed(data, 1.0).epoch(0)]

    def save(self, folder: str | Path, task: Task | None = None) -> Path:
        """Write the task's weights and arguments into `folder`, for `MyTask.load(folder)`."""
        task = task or self._task
        if task is None:
            raise ConfigError("save needs a task: there was no fit before.")
        place = Path(folder)
        make_folder(place)
        tensors, aliases = snapshot(task.state_dict())
        write_tensors(place / MODEL, tensors)
        if aliases:
            write_json(place / ALIASES, {MODEL: aliases})
        save_task(task, place)
        return place

    def _evaluate(self, task: Task, data: Any, step: Callable[[Any], Any], prefix: str, limit: Any) -> dict[str, float]:
        device = choose_device(self.config.device)
        task.to(device)
        feed = self._feed(data, limit)
        return evaluate(task, feed.epoch(0), step, prefix=prefix, device=device, seed=self._seed)

    def _feeds(self, train: Any, val: Any) -> tuple[Feed, Feed | None]:
        config = self.config
        size = self._given.get("batch_size")
        shuffle = None if isinstance(train, torch.utils.data.DataLoader) else True
        if config.overfit is not None:
            feed = adopt(train, seed=self._seed, shuffle=False, batch_size=size, notice=self._say, limit=config.overfit)
            return feed, feed
        feed = adopt(
            train, seed=self._seed, shuffle=shuffle, batch_size=size, notice=self._say, limit=config.limit_train
        )
        return feed, None if val is None else self._feed(val, config.limit_val)

    def _feed(self, data: Any, limit: Any) -> Feed:
        size = self.config.eval_batch_size or self._given.get("batch_size")
        batches = isinstance(data, torch.utils.data.DataLoader) or not isinstance(data, torch.utils.data.Dataset)
        return adopt(
            data,
            seed=self._seed,
            shuffle=False,
            batch_size=None if batches else size,
            notice=self._say,
            limit=limit,
        )

    def _slots(self, task: Task, horizon: Horizon) -> list[Slot]:
        returned = task.configure_optimizers()
        if returned is not None:
            if self._learning_rate is not None or self._own_optimizer is not None:
                raise ConfigError(
                    f"{type(task).__name__} configures its own optimizers, so the trainer takes neither optimizer nor "
                    f"learning_rate."
                )
            return configured_slots(returned, task, horizon, self._say, _read_schedule)
        if self._own_optimizer is not None:
            return [self._made_slot(task, horizon)]
        config = self._options.optimizer
        if isinstance(config, Imported):
            return [build_imported(task, resolve_import(config.type), config.arguments, self._say, horizon)]
        return [build_optimizer(task, config, horizon, self._say)]

    def _made_slot(self, task: Task, horizon: Horizon) -> Slot:
        made = self._own_optimizer
        if isinstance(made, torch.optim.Optimizer):
            schedule = self._learning_rate
            entry = made if schedule is None else {ONLY: (made, schedule)}
            return configured_slots(entry, task, horizon, self._say, _read_schedule)[0]
        rate = {} if self._learning_rate is None else {"learning_rate": _read_schedule(self._learning_rate)}
        assert made is not None
        return build_imported(task, made, rate, self._say, horizon)


def _is_made(optimizer: Any) -> bool:
    return isinstance(optimizer, torch.optim.Optimizer) or (callable(optimizer) and not isinstance(optimizer, str))


def _read_schedule(schedule: Any) -> Any:
    """A schedule as written in Python, checked as one in a config is."""
    if isinstance(schedule, Mapping):
        config = load(_Options, None, {"optimizer.learning_rate": dict(schedule)}).config.optimizer
        return config.learning_rate  # type: ignore[union-attr]
    return schedule


def fit(
    model: nn.Module,
    train: Any,
    val: Any = None,
    *,
    loss: Callable[..., Any] | None = None,
    teacher_forcing: bool = False,
    **options: Any,
) -> Result:
    """Train any module on `(inputs, targets)` batches.

    A batch may also be a mapping of the module's arguments plus `targets`; with `teacher_forcing` it is
    `(source, target)`. `loss` is any callable of (logits, targets). `options` are those of `Trainer`.

    >>> from torch.utils.data import TensorDataset
    >>> data = TensorDataset(torch.ones(8, 2), torch.zeros(8, 1))
    >>> quiet = {"say": lambda _: None, "device": "cpu"}
    >>> fit(nn.Linear(2, 1), data, loss=nn.functional.mse_loss, max_duration="2 epochs", **quiet).progress.epoch
    2
    """
    if isinstance(model, Task):
        return Trainer(**options).fit(model, train, val)
    if loss is None:
        raise ConfigError("etude.fit needs a loss: etude.losses.CrossEntropy(), or any function of (logits, targets).")
    return Trainer(**options).fit(ModuleTask(model, loss, teacher_forcing=teacher_forcing), train, val)
