"""The Python face: a trainer with the options of `[train]`, and `fit` for a plain module."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from torch import nn

from etude.app.interrupted import telling
from etude.app.python.content import Check, check_content, read_check
from etude.app.python.data import TrainerData
from etude.app.python.folder import compare, describe
from etude.app.python.habits import check_steps, refuse_foreign
from etude.app.python.loggers import read_loggers
from etude.app.python.module_task import as_task
from etude.app.python.optimizers import ChosenOptimizer
from etude.app.python.options import check_resume, read_callbacks, read_options, refuse_unknown
from etude.app.python.results import at, check_weights, holding, record_test, step_of, summary, write_task
from etude.app.python.samples import as_data
from etude.app.ranks import beside, ranks_of
from etude.app.runs.saving import build_outputs, save_rest
from etude.base.errors import ConfigError
from etude.base.paths import user_path
from etude.base.progress import Progress
from etude.base.says import surely, unheard
from etude.base.signals import BEFORE_THE_END
from etude.callbacks.config import LogConfig, build_loggers, build_progress
from etude.train.components import components
from etude.train.config import TrainConfig
from etude.train.device import choose_device
from etude.train.fit import Job, Result, Resume
from etude.train.fit import fit as run_job
from etude.train.interrupt import Interrupted
from etude.train.lock import claimed
from etude.train.memory.checkpoint.origin import config_hash
from etude.train.passes import Passes
from etude.train.same import check_pass
from etude.train.step.precision import AUTO, Precision
from etude.train.task import Task
from etude.train.watch.callback import RunView, read_only
from etude.train.watch.events import Events
from etude.train.world import ALONE, World, passing
from etude.train.world.passing import refuse_parts


def _say(sentence: str) -> None:
    sys.stderr.write(sentence + "\n")


class Trainer:
    """Trains tasks.

    `options` are the keys of `[train]` (`max_duration="10 epochs"`, `accumulate=4`, ...); an unknown one is refused
    with the nearest name. `optimizer` is a name (`"adamw"`), an import path, a table with a type, a torch optimizer,
    its class, or a function of the parameters; `learning_rate` a number, a schedule
    (`{"schedule": "cosine", "peak": 1e-3}`) or a function of progress. With `run_dir` the run is kept there, and the
    same script, started again, continues it; without, nothing is written and the best weights are kept in memory.
    `check_data` says how that start finds out whether it is given other data: by the lengths and the content of a few
    samples ("sample"), of all ("full"), or by "lengths" alone.
    `loggers` are sinks of rows beside `metrics.jsonl` (TensorBoard in the run folder, where it is installed, unless
    given); `progress=False` shows no progress; `say` takes the sentences of a run (stderr, unless given). After one of
    `requeue_signals` the run saves and the process exits with 75, which asks a cluster to run the script again.
    Under torchrun, srun or mpirun the processes train together, as the keys of `distributed` say (those of
    `[distributed]`): each takes a part of every batch, and the first writes.
    """

    def __init__(  # noqa: PLR0913 - options by keyword, as documented
        self,
        *,
        optimizer: object = None,
        learning_rate: object = None,
        callbacks: Sequence[object] = (),
        loggers: Sequence[object] | None = None,
        run_dir: str | Path | None = None,
        resume: Resume = "auto",
        check_data: Check = "sample",
        requeue_signals: Sequence[str] | str | Literal[False] = BEFORE_THE_END,
        seed: int = 1,
        distributed: Mapping[str, object] | None = None,
        progress: bool = True,
        say: Callable[[str], None] = _say,
        **options: object,
    ) -> None:
        check_resume(resume, folder=run_dir)
        self._optimizer = ChosenOptimizer(optimizer, learning_rate)
        refuse_unknown(options)
        self._loaded = read_options(
            options, self._optimizer.keys(), distributed, seed=seed, requeue_signals=requeue_signals
        )
        self.config: TrainConfig = self._loaded.config.train
        self._precision = str(options.get("precision", AUTO))
        self._callbacks = read_callbacks(callbacks)
        self._log, self._loggers = read_loggers(loggers)
        self._folder = None if run_dir is None else user_path(run_dir)
        self._resume = resume
        self._run = self._loaded.config.run
        self._seed = self._run.seed
        self._check_data = read_check(check_data)
        self._shows = progress
        self.say = self._say = say = surely(say)
        """Takes the sentences of a run."""
        self._outputs = build_outputs(self.config, self._folder, say)
        self._data = TrainerData(self.config, seed=self._seed, say=say)
        self._task: Task | None = None
        self._test: object = None
        self.result: Result | None = None
        """How the last `fit` ended."""

    # -- training ----------------------------------------------------------------------------------------------------

    def fit(
        self, task: Task, train: object = None, val: object = None, test: object = None, **others: object
    ) -> Result:
        """Train `task` on `train`, judged on `val`; afterwards the task holds the last weights.

        Data is a DataLoader, a Dataset, an iterable of batches or an Etude source. `test` is kept for `test()`.
        """
        refuse_foreign("fit", others, ("task", "train", "val", "test"))
        if not isinstance(task, Task):
            raise ConfigError(f"fit needs an etude.Task, but got a {type(task).__name__}; etude.fit takes any module.")
        check_steps(task)
        if train is None:
            raise ConfigError("fit needs training data: fit(task, train=loader).")
        self._task, self._test = task, test
        given = _given(train=train, val=val, test=test)
        with ExitStack() as stack:
            here = stack.enter_context(ranks_of(self._loaded.config.distributed, self._folder))
            world = ALONE if here is None else here.world
            self._data.among(world)
            folder = self._folder if world.is_first else None
            if folder is not None:
                stack.enter_context(claimed(folder))
            origin = "" if folder is None else self._describe(folder, task, given)
            job = replace(self._job(task, given), origin=origin, folder=folder)
            self.result = self._do(job if world.is_first else beside(job))
        if world.is_first:
            self._say(summary(self.result, self.config.monitor))
        return self.result

    def _do(self, job: Job) -> Result:
        """Do the run; where a signal ends it, keep what it came to."""
        job.say(Precision(self.config.precision, choose_device(self.config.device)).told(validates="val" in job.data))
        with telling(self._folder, self._say):
            try:
                return run_job(job)
            except Interrupted as ending:
                self.result = ending.result
                raise

    def _describe(self, folder: Path, task: Task, given: Mapping[str, object]) -> str:
        """Compare what the run was begun with, write down what it is; the hash that its checkpoints name it by."""
        data = dict(self._loaded.data)
        if self._optimizer.is_made:
            del data["optimizer"]  # it was made in Python
        notes = compare(data, folder)
        facts = check_content(folder, given, self._check_data)
        origin = config_hash({**data, "task": type(task).__qualname__, "content": facts})
        for note in (*notes, *describe(data, folder)):
            self._say(note)
        return origin

    def _job(self, task: Task, given: Mapping[str, object]) -> Job:
        """The run to be done, with the data that was given by split."""
        train = self._data.train(given["train"])
        shown = build_progress(LogConfig(progress=self._shows))
        job = Job(
            task=task,
            train=train,
            val=self._data.validation(given.get("val")),
            config=self.config,
            distributed=self._loaded.config.distributed,
            optimizers=partial(self._optimizer.slots, config=self._loaded.config.optimizer, say=self._say),
            folder=self._folder,
            seed=self._seed,
            requeue=self._run.requeue_signals,
            values=self._data.scheduled_values(train),
            callbacks=[*self._callbacks, *self._outputs, *shown],
            loggers=[*self._loggers, *build_loggers(self._log, self._folder)],
            resume=self._resume,
            say=self._say,
            about=self._loaded.data,
            data=given,
        )
        job.after = partial(self._save_rest, job)
        return job

    def _save_rest(self, job: Job, result: Result, world: World) -> None:
        """Write the outputs that the run itself did not."""
        train, val = job.data["train"], job.data.get("val")
        feeds = {"train": lambda: self._data.evaluation(train, self.config.limit_train)}
        if job.val is not None:
            feeds["val"] = lambda: self._data.evaluation(val, self.config.limit_val)
        save_rest(job, result, world, feeds)

    # -- passes ------------------------------------------------------------------------------------------------------

    def validate(self, task: Task, data: object = None, **others: object) -> dict[str, float]:
        """The metrics of `task` on `data`, as `val/...`."""
        refuse_foreign("validate", others, ("task", "data"))
        _need(task, data, "validate")
        with self._sharing() as world:
            passes = self._told("Validating", task, {"val": data}, world)
            return passes.validate(self._data.evaluation(data, self.config.limit_val))

    def test(
        self, task: Task | None = None, data: object = None, weights: str = "best", **others: object
    ) -> dict[str, float]:
        """The metrics on `data` (or what `fit` was given as `test`), as `test/...`.

        After `fit` the best weights are used, unless `weights="last"`; the task keeps its own.
        """
        refuse_foreign("test", others, ("task", "data", "weights"))
        check_weights(weights)
        task, data = self._to_test(task, data)
        trained = self.result if task is self._task else None
        with self._sharing() as world:
            if trained is not None:
                return self._test_trained(task, data, trained, weights, world)
            passes = self._told("Testing", task, {"test": data}, world, self._outputs)
            return passes.test(self._data.evaluation(data, self.config.limit_test))

    def _sharing(self) -> AbstractContextManager[World]:
        """The ranks that share a pass."""
        return passing(self._loaded.config.distributed)

    def _to_test(self, task: Task | None, data: object) -> tuple[Task, object]:
        """The task and the data of a test: those given, or those of the last `fit`."""
        task = task or self._task
        data = self._test if data is None else data
        if task is None or data is None:
            raise ConfigError("test needs a task and data: test(task, loader), or fit(..., test=loader) before.")
        _need_task(task)
        return task, data

    def _test_trained(self, task: Task, data: object, trained: Result, weights: str, world: World) -> dict[str, float]:
        """Test the task that was trained here, by its best or last weights."""
        step = step_of(trained, weights)
        passes = self._passes(task, {"test": data}, world, self._outputs, weights_step=step)
        feed = self._data.evaluation(data, self.config.limit_test)
        with holding(task, trained, weights):
            passes.say(f"Testing with the {weights} weights{at(step)}, in {passes.precision}.")
            check_pass(world, task, {})
            metrics = passes.test(feed)
        record_test(trained, step, metrics, self._folder if world.is_first else None, passes.say)
        return metrics

    def predict(self, task: Task, data: object = None, **others: object) -> list[Any]:
        """What `task.predict_step` gives for each batch of `data`, in order."""
        refuse_foreign("predict", others, ("task", "data"))
        _need(task, data, "predict")
        with self._sharing() as world:
            passes = self._told("Predicting", task, {"predict": data}, world)
            return passes.predict(self._data.prediction(data))

    def _passes(
        self,
        task: Task,
        data: Mapping[str, object],
        world: World,
        outputs: Sequence[object] = (),
        weights_step: int | None = None,
    ) -> Passes:
        """Passes outside of training; who is told of them sees the run as `fit` left it.

        Of several ranks only the first writes, and is heard.
        """
        refuse_parts(task)
        writes, say = (outputs, self._say) if world.is_first else ((), unheard)
        view = RunView(
            progress=Progress(),
            task=task,
            config=read_only(self._loaded.data),
            metrics=MappingProxyType({}),
            folder=self._folder if world.is_first else None,
            data=read_only(data),
            weights_step=weights_step,
        )
        seen = view if self.result is None else _after(self.result, view)
        parts = components(task, data, others=self._loggers if world.is_first else ())
        events = Events([*self._callbacks, *writes], parts, lambda: seen, seed=self._seed, say=say)
        device = choose_device(self.config.device)
        precision = Precision(self.config.precision, device).for_evaluation(self._precision)
        return Passes(task, events, self.config, device, precision, self._seed, say, world)

    def _told(
        self, doing: str, task: Task, data: Mapping[str, object], world: World, outputs: Sequence[object] = ()
    ) -> Passes:
        """Passes of a task's present weights; what they compute in is said."""
        passes = self._passes(task, data, world, outputs)
        check_pass(world, task, {})
        passes.say(f"{doing} in {passes.precision}.")
        return passes

    # -- weights -----------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path, task: Task | None = None) -> Path:
        """Write the task's present weights and its arguments into `folder`, for `MyTask.load(folder)`."""
        task = task or self._task
        if task is None:
            raise ConfigError("save needs a task: there was no fit before.")
        place = user_path(folder)
        write_task(task, place)
        return place


def _given(**data: object) -> dict[str, object]:
    """The data by split, without what was left out."""
    return {name: given for name, given in data.items() if given is not None}


def _after(result: Result, view: RunView) -> RunView:
    """The view, with what is known of a run that has ended."""
    metrics = MappingProxyType(dict(result.metrics))
    return replace(view, progress=result.progress, metrics=metrics, best_step=result.best_step)


def _need_task(task: object) -> None:
    if not isinstance(task, Task):
        raise ConfigError(f"The trainer needs an etude.Task, but got a {type(task).__name__}.")
    check_steps(task)


def _need(task: object, data: object, verb: str) -> None:
    _need_task(task)
    if data is None:
        raise ConfigError(f"{verb} needs data: {verb}(task, loader).")


def fit(
    model: nn.Module,
    train: object,
    val: object = None,
    *,
    loss: Callable[..., Any] | None = None,
    teacher_forcing: bool = False,
    **options: Any,
) -> Result:
    """Train any module on `(inputs, targets)` batches.

    A batch may also be a mapping of the module's arguments plus `targets`; with `teacher_forcing` it is
    `(source, target)`. `loss` is any callable of (logits, targets). `options` are those of `Trainer`.

    >>> import torch
    >>> from torch.utils.data import TensorDataset
    >>> data = TensorDataset(torch.ones(8, 2), torch.zeros(8, 1))
    >>> quiet = {"say": lambda _: None, "progress": False, "device": "cpu"}
    >>> fit(nn.Linear(2, 1), data, loss=nn.functional.mse_loss, max_duration="2 epochs", **quiet).progress.epoch
    2
    """
    trainer = Trainer(**options)
    task = as_task(model, loss, teacher_forcing=teacher_forcing)
    if isinstance(model, Task):
        return trainer.fit(task, train, val)
    given = [as_data(data, name, trainer.say) for data, name in ((train, "train"), (val, "val"))]
    return trainer.fit(task, *given)
