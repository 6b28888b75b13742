"""The Python face: a trainer with the options of `[train]`, and `fit` for a plain module."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from etude.app.python.data import TrainerData
from etude.app.python.folder import compare, describe
from etude.app.python.module_task import ModuleTask
from etude.app.python.options import Called, is_made, read_loggers, read_options, read_rate
from etude.app.runs.saving import build_outputs, save_rest
from etude.base.config.components import Imported
from etude.base.config.imports import resolve_import
from etude.base.errors import ConfigError
from etude.base.files import make_folder, write_json
from etude.base.horizon import Horizon
from etude.base.progress import Progress
from etude.callbacks.config import LogConfig, build_loggers, build_progress
from etude.data.feeds.feed import Feed
from etude.data.nest import move
from etude.train.components import components
from etude.train.config import TrainConfig
from etude.train.device import choose_device
from etude.train.evaluate import evaluate, evaluating, undisturbed
from etude.train.fit import Job, Result, Resume
from etude.train.fit import fit as run_job
from etude.train.lock import claimed
from etude.train.memory.checkpoint.content import ALIASES, MODEL
from etude.train.memory.checkpoint.nest import snapshot
from etude.train.memory.checkpoint.tensors import write_tensors
from etude.train.memory.portable import save_task
from etude.train.optim.build import ONLY, build_imported, build_optimizer
from etude.train.optim.configured import configured_slots
from etude.train.optim.slot import Slot
from etude.train.step.pieces import evaluated
from etude.train.task import Task
from etude.train.watch.callback import Events, RunView, check_callback, ending_by, read_only
from etude.train.watch.record import Record

WEIGHTS = ("best", "last")


def _say(sentence: str) -> None:
    sys.stderr.write(sentence + "\n")


class Trainer:
    """Trains tasks.

    `options` are the keys of `[train]` (`max_duration="10 epochs"`, `accumulate=4`, ...); an unknown one is refused
    with the nearest name. `optimizer` is a name (`"adamw"`), an import path, a table with a type, a torch optimizer,
    its class, or a function of the parameters; `learning_rate` a number, a schedule
    (`{"schedule": "cosine", "peak": 1e-3}`) or a function of progress. With `run_dir` the run is kept there, and the
    same script, started again, continues it; without, nothing is written and the best weights are kept in memory.
    `loggers` are sinks of rows beside `metrics.jsonl` (TensorBoard in the run folder, where it is installed, unless
    given); `progress=False` shows no progress; `say` takes the sentences of a run (stderr, unless given).
    """

    def __init__(  # noqa: PLR0913 - options by keyword, as documented
        self,
        *,
        optimizer: Any = None,
        learning_rate: Any = None,
        callbacks: Sequence[Any] = (),
        loggers: Sequence[Any] | None = None,
        run_dir: str | Path | None = None,
        resume: Resume = "auto",
        seed: int = 1,
        progress: bool = True,
        say: Callable[[str], None] = _say,
        **options: Any,
    ) -> None:
        if resume not in {"auto", "never", "must"}:
            raise ConfigError(f'resume must be "auto", "never" or "must", but is {resume!r}.')
        if resume == "must" and run_dir is None:
            raise ConfigError('resume="must" needs a run_dir: without one nothing is kept that could be resumed.')
        self._own_optimizer = optimizer if is_made(optimizer) else None
        if isinstance(learning_rate, torch.optim.lr_scheduler.LRScheduler) and (
            learning_rate.optimizer is not self._own_optimizer
        ):
            raise ConfigError(
                f"learning_rate is a {type(learning_rate).__name__}, which torch made for an optimizer of its own: "
                f"give that one as optimizer too."
            )
        if callable(learning_rate) and not isinstance(learning_rate, torch.optim.lr_scheduler.LRScheduler):
            learning_rate = Called(function=learning_rate)
        self._learning_rate = learning_rate
        named = None if self._own_optimizer is not None else optimizer
        self._chooses = optimizer is not None or learning_rate is not None
        self._loaded = read_options(options, optimizer=named, learning_rate=learning_rate, seed=seed)
        self._options = self._loaded.config
        self.config: TrainConfig = self._options.train
        if not isinstance(callbacks, Sequence) or isinstance(callbacks, str):
            raise ConfigError(f"callbacks must be a list of objects, but is a {type(callbacks).__name__}.")
        self._callbacks = list(callbacks)
        for callback in self._callbacks:
            check_callback(callback)
        self._log, self._loggers = (LogConfig(), []) if loggers is None else read_loggers(loggers)
        self._folder = None if run_dir is None else Path(run_dir)
        self._resume = resume
        self._seed = self._options.run.seed
        self._shows = progress
        self._say = say
        self._outputs = build_outputs(self.config, self._folder, say)
        self._data = TrainerData(self.config, seed=self._seed, say=say)
        self._task: Task | None = None
        self._test: Any = None
        self.result: Result | None = None
        """How the last `fit` ended."""

    def fit(self, task: Task, train: Any = None, val: Any = None, test: Any = None) -> Result:
        """Train `task` on `train`, judged on `val`; afterwards the task holds the last weights.

        Data is a DataLoader, a Dataset, an iterable of batches or an Etude source. `test` is kept for `test()`.
        """
        if not isinstance(task, Task):
            raise ConfigError(f"fit needs an etude.Task, but got a {type(task).__name__}; etude.fit takes any module.")
        if train is None:
            raise ConfigError("fit needs training data: fit(task, train=loader).")
        self._task, self._test = task, test
        given = {"train": train, "val": val, "test": test}
        with ExitStack() as stack:
            if self._folder is not None:
                stack.enter_context(claimed(self._folder))
                self._describe(self._folder)
            train_feed = self._data.train(train)
            shown = build_progress(LogConfig(progress=self._shows))
            job = Job(
                task=task,
                train=train_feed,
                val=self._validation(val),
                config=self.config,
                optimizers=self._slots,
                folder=self._folder,
                seed=self._seed,
                values=self._data.scheduled_values(train_feed),
                callbacks=[*self._callbacks, *self._outputs, *shown],
                loggers=[*self._loggers, *build_loggers(self._log, self._folder)],
                resume=self._resume,
                say=self._say,
                about=self._loaded.data,
                data={name: given for name, given in given.items() if given is not None},
            )
            feeds = {"train": lambda: self._data.evaluation(train, self.config.limit_train)}
            if job.val is not None:
                feeds["val"] = lambda: self._data.evaluation(val, self.config.limit_val)
            job.after = lambda result: save_rest(job, result, feeds)
            self.result = run_job(job)
        self._summarise(self.result)
        return self.result

    def validate(self, task: Task, data: Any) -> dict[str, float]:
        """The metrics of `task` on `data`, as `val/...`."""
        _need_task(task)
        events, feed = self._events(task, {"val": data}), self._data.evaluation(data, self.config.limit_val)
        events.validation_start()
        metrics = self._evaluate(task, feed, task.validation_step, "val", events)
        events.validation_end(MappingProxyType(metrics))
        return metrics

    def test(self, task: Task | None = None, data: Any = None, weights: str = "best") -> dict[str, float]:
        """The metrics on `data` (or what `fit` was given as `test`), as `test/...`.

        After `fit` the best weights are used, unless `weights="last"`; the task keeps its own.
        """
        if weights not in WEIGHTS:
            raise ConfigError(f'weights must be "best" or "last", but is {weights!r}.')
        task = task or self._task
        data = data if data is not None else self._test
        if task is None or data is None:
            raise ConfigError("test needs a task and data: test(task, loader), or fit(..., test=loader) before.")
        _need_task(task)
        trained = self.result if task is self._task else None
        of = None if trained is None else _step(trained, weights)
        events = self._events(task, {"test": data}, self._outputs, weights_step=of)
        feed = self._data.evaluation(data, self.config.limit_test)
        with _holding(task, trained if weights == "best" else None):
            if trained is not None:
                self._say(f"Testing with the {weights} weights{_at(_step(trained, weights))}.")
            events.test_start()
            metrics = self._evaluate(task, feed, task.test_step, "test", events)
            events.test_end(MappingProxyType(metrics))
        if trained is not None:
            self._record(trained, _step(trained, weights), metrics)
        return metrics

    def predict(self, task: Task, data: Any) -> list[Any]:
        """What `task.predict_step` gives for each batch of `data`, in order."""
        _need_task(task)
        device = choose_device(self.config.device)
        task.to(device)
        events = self._events(task, {"predict": data})
        events.predict_start()
        found = []
        feed = self._data.prediction(data)
        with ending_by(events), closing(feed), undisturbed(self._seed), evaluating(task), torch.no_grad():
            for delivery in feed.epoch(0):
                batch = move(delivery.batch, device)
                events.predict_batch_start(batch)
                found.append(task.predict_step(batch))
                events.predict_batch_end(batch, found[-1])
        events.predict_end()
        return found

    def save(self, folder: str | Path, task: Task | None = None) -> Path:
        """Write the task's present weights and its arguments into `folder`, for `MyTask.load(folder)`."""
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

    def _evaluate(
        self, task: Task, feed: Feed, step: Callable[[Any], Any], prefix: str, events: Events
    ) -> dict[str, float]:
        device = choose_device(self.config.device)
        task.to(device)
        before, after = (
            (events.validation_batch_start, events.validation_batch_end)
            if prefix == "val"
            else (events.test_batch_start, events.test_batch_end)
        )
        config = self.config
        step, deliveries = evaluated(task, step, feed.epoch(0), steps=config.tbptt_steps, carry=config.carry_hiddens)
        with closing(feed), ending_by(events):
            return evaluate(
                task,
                deliveries,
                step,
                prefix=prefix,
                device=device,
                seed=self._seed,
                before=before,
                after=after,
            )

    def _validation(self, val: Any) -> Feed | None:
        if val is None and self.config.overfit is None:
            return None
        if isinstance(val, Iterator):
            raise ConfigError(
                f"The validation data is a {type(val).__name__}, which can be read once only, but every validation "
                f"reads it; give a list, a DataLoader, or a function that returns a new iterator."
            )
        return self._data.evaluation(val, self.config.limit_val)

    def _events(
        self, task: Task, data: Mapping[str, Any], more: Sequence[Any] = (), weights_step: int | None = None
    ) -> Events:
        """Who is told of a pass outside of training."""
        result = self.result
        view = RunView(
            progress=Progress() if result is None else result.progress,
            task=task,
            config=read_only(self._loaded.data),
            metrics=MappingProxyType({} if result is None else dict(result.metrics)),
            folder=self._folder,
            data=read_only(data),
            best_step=None if result is None else result.best_step,
            weights_step=weights_step,
        )
        parts = components(task, data, others=self._loggers)
        return Events([*self._callbacks, *more], parts, lambda: view, seed=self._seed)

    def _describe(self, folder: Path) -> None:
        data = dict(self._loaded.data)
        if self._own_optimizer is not None:
            del data["optimizer"]  # it was made in Python
        for note in compare(data, folder):
            self._say(note)
        for note in describe(data, folder):
            self._say(note)

    def _summarise(self, result: Result) -> None:
        last, best = result.progress.step, _step(result, "best")
        where = "in memory" if result.best is None else f"in {result.best}"
        monitor = self.config.monitor
        value = next((row[monitor] for row in result.history if row["step"] == best and monitor in row), None)
        judged = "" if value is None else f", {monitor} {value:.6g}"
        self._say(
            f"{result.reason}. The task holds the last weights{_at(last)}; the best{_at(best)}{judged} are {where} and "
            f"come by result.load_best(task); test() uses them."
        )

    def _record(self, trained: Result, step: int, metrics: Mapping[str, float]) -> None:
        """Write a test's row, as of the step whose weights were tested."""
        now = trained.progress
        row = next((row for row in trained.history if row["step"] == step), None)
        head = {"step": step, "epoch": round(now.epochs, 6), "tokens": now.tokens}
        head |= {key: row[key] for key in head if row is not None and key in row}
        record = Record(self._folder, complain=self._say)
        record.open(cut=None)
        record.write(head | dict(metrics))
        record.close()
        if isinstance(trained.history, list):
            trained.history.append(record.rows[-1])

    def _slots(self, task: Task, horizon: Horizon) -> list[Slot]:
        returned = task.configure_optimizers()
        if returned is not None:
            if self._chooses:
                raise ConfigError(
                    f"{type(task).__name__} configures its own optimizers, so the trainer takes neither optimizer nor "
                    f"learning_rate."
                )
            return configured_slots(returned, task, horizon, self._say, read_rate)
        if self._own_optimizer is not None:
            return [self._made_slot(task, horizon)]
        config = self._options.optimizer
        called = {"learning_rate": self._learning_rate} if isinstance(self._learning_rate, Called) else {}
        if isinstance(config, Imported):
            return [build_imported(task, resolve_import(config.type), config.arguments | called, self._say, horizon)]
        return [build_optimizer(task, config.model_copy(update=called), horizon, self._say)]

    def _made_slot(self, task: Task, horizon: Horizon) -> Slot:
        made, rate = self._own_optimizer, read_rate(self._learning_rate)
        if isinstance(made, torch.optim.Optimizer):
            entry = made if rate is None else {ONLY: (made, rate)}
            return configured_slots(entry, task, horizon, self._say, read_rate)[0]
        assert made is not None
        return build_imported(task, made, {} if rate is None else {"learning_rate": rate}, self._say, horizon)


def _need_task(task: Any) -> None:
    if not isinstance(task, Task):
        raise ConfigError(f"The trainer needs an etude.Task, but got a {type(task).__name__}.")


def _step(result: Result, weights: str) -> int:
    """The step that the best or the last weights are of."""
    best = result.best_step if weights == "best" else None
    return result.progress.step if best is None else best


def _at(step: int) -> str:
    return f" (step {step:,})"


@contextmanager
def _holding(task: Task, result: Result | None) -> Iterator[None]:
    """Let `task` hold a run's best weights inside the block; None leaves it its own."""
    if result is None:
        yield
        return
    kept = {name: value.clone() for name, value in task.state_dict().items()}
    try:
        result.load_best(task)
        yield
    finally:
        task.load_state_dict(kept)


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
    >>> quiet = {"say": lambda _: None, "progress": False, "device": "cpu"}
    >>> fit(nn.Linear(2, 1), data, loss=nn.functional.mse_loss, max_duration="2 epochs", **quiet).progress.epoch
    2
    """
    trainer = Trainer(**options)
    if isinstance(model, Task):
        if loss is not None or teacher_forcing:
            raise ConfigError(f"{type(model).__name__} is a task, which knows its loss; leave out what etude.fit adds.")
        return trainer.fit(model, train, val)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"etude.fit needs a torch.nn.Module, but got a {type(model).__name__}.")
    if not callable(loss):
        raise ConfigError("etude.fit needs a loss: etude.losses.CrossEntropy(), or any function of (logits, targets).")
    return trainer.fit(ModuleTask(model, loss, teacher_forcing=teacher_forcing), train, val)
