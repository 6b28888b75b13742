"""A task: a module that knows what a batch means and how wrong the model is on it."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from etude.base.config.other_words import hint
from etude.base.errors import ConfigError
from etude.base.paths import user_path
from etude.base.progress import Progress
from etude.base.schedules.values import ScheduledValue
from etude.data.nest import count_samples
from etude.model.loss import Loss, Mean
from etude.train.device import choose_device
from etude.train.memory.portable import load_task, record_arguments
from etude.train.splitting import split_in_time
from etude.train.watch.metrics import Metric, ScalarLog


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What a step returns when a loss alone does not say it all."""

    loss: "Tensor | Loss | Mean | Mapping[str, Loss]"
    hiddens: Any = None
    """Any nest of tensors, handed (detached) to the next piece of truncated back-propagation."""
    outputs: Any = None
    """Predictions of the batch, for saved outputs and callbacks."""


@runtime_checkable
class Tells(Protocol):
    """A part of a task that has values which follow schedules."""

    def scheduled_values(self) -> Sequence[ScheduledValue]:
        """Its values, not yet bound to the length of a run."""


class _KeepsArguments(type):
    """Keeps the arguments a task was made with, before its own constructor runs."""

    @property
    def __signature__(cls) -> inspect.Signature:
        """The constructor's, which a metaclass with a `__call__` would hide."""
        whole = inspect.signature(cls.__init__)  # type: ignore[misc]
        return whole.replace(parameters=list(whole.parameters.values())[1:])

    def __call__(cls, *args: object, **kwargs: object) -> Any:
        new: Any = cls.__new__
        task = new(cls, *args, **kwargs)
        object.__setattr__(task, "hparams", record_arguments(cls, args, kwargs))
        task.__init__(*args, **kwargs)
        return task


class Task(nn.Module, metaclass=_KeepsArguments):
    """An `nn.Module` that knows its loss; the loop does the rest.

    Only `training_step` must be written. A step returns a tensor (a mean over the batch), a `Loss(sum, count)`,
    a mapping of named losses, or a `StepOutput`. The arguments of `__init__` are kept as `self.hparams` and
    restored by `load`.

    >>> class Line(Task):
    ...     def __init__(self, width: int = 1):
    ...         super().__init__()
    ...         self.layer = nn.Linear(width, 1)
    ...
    ...     def training_step(self, batch):
    ...         x, y = batch
    ...         return (self.layer(x) - y).square().mean()
    >>> Line(width=3).hparams
    {'width': 3}
    """

    hparams: dict[str, Any]
    progress: Progress = Progress()
    """How far the run has come; set by the loop before each step."""
    metrics: Mapping[str, Metric] = {}
    """What `configure_metrics` made for the pass that is running."""
    _scalars: ScalarLog | None = None

    # A step may also declare the keywords `hiddens` and `optimizer`; they are passed only to one that does.
    training_step: Callable[..., Any]

    @property
    def can_learn(self) -> bool:
        """Whether it has a training step."""
        return hasattr(self, "training_step")

    def validation_step(self, batch: Any) -> Any:
        """The loss of a batch in evaluation; the training step's, unless overridden.

        One that declares `hiddens` gets, with truncated back-propagation, pieces as in training.
        """
        return self.step_without_learning(batch)

    def step_without_learning(self, batch: object, hiddens: object = None) -> Any:
        """The training step outside of training, with what it declares and cannot do without."""
        parameters = inspect.signature(self.training_step).parameters.values()
        known = {"hiddens": hiddens, "optimizer": None, "progress": self.progress}
        needed = {p.name for p in parameters if p.name in known and p.default is inspect.Parameter.empty}
        if hiddens is not None:
            needed.add("hiddens")
        return self.training_step(batch, **{name: known[name] for name in needed})

    def test_step(self, batch: Any) -> Any:
        """The loss of a batch in testing; the validation step's, unless overridden."""
        return self.validation_step(batch)

    def predict_step(self, batch: Any) -> Any:  # noqa: ARG002 - overridden
        """The predictions of a batch; needed by `Trainer.predict` alone."""
        raise ConfigError(f"{type(self).__name__} needs a predict_step(batch), which returns the predictions.")

    def configure_optimizers(self) -> Any:
        """Optimizers of the task's own, in the forms of the guide; None leaves it to the `optimizer` option."""
        return None

    def configure_metrics(self) -> Mapping[str, Metric]:
        """Metrics by name, made anew for every pass; a step updates them through `self.metrics[name]`."""
        return {}

    def count_targets(self, batch: Any) -> Mapping[str, int] | None:  # noqa: ARG002 - overridden
        """Targets of each loss term in `batch`, known before the forward; None where they are not."""
        return None

    def batch_size(self, batch: Any) -> int | None:
        """Samples in `batch`; None where it cannot be known."""
        return count_samples(batch)

    def optimizer_step(
        self,
        optimizer: torch.optim.Optimizer,
        closure: Callable[[], Tensor],
        *,
        name: str,
        progress: Progress,
    ) -> None:
        """Take the step; `closure` computes loss and gradients and returns the loss, as torch's optimizers expect."""
        del name, progress
        optimizer.step(closure)  # type: ignore[arg-type]  # torch types the closure's result as float

    def scheduled_values(self) -> Sequence[ScheduledValue]:
        """What of the task follows a schedule of the config; unless overridden, what its modules and its loss tell."""
        parts = (part for part in (*self.modules(), *vars(self).values()) if part is not self)
        told = {id(part): part for part in parts if isinstance(part, Tells)}
        return [value for part in told.values() for value in part.scheduled_values()]

    def parameters_told(self) -> str:
        """How many parameters there are, as a run begins with it."""
        return f"{sum(p.numel() for p in self.parameters()):,} parameters"

    @property
    def predicts_late(self) -> bool:
        """Whether what is predicted of validation samples is known only once a validation in training is over."""
        return False

    def fitting(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Of the weights of a run of this task those that it has a place for; unless overridden, all."""
        return weights

    def output_columns(self, batch: Any, outputs: Any) -> Any:  # noqa: ARG002 - overridden
        """The outputs of a batch for the saved ones, best as columns of one value a sample; as the step gave them."""
        return outputs

    def flops_per_token(self, batch: Any) -> float | None:  # noqa: ARG002 - overridden
        """Operations of a step for each token of a batch; None where they are not known."""
        return None

    def padding_of(self, batch: object) -> float | None:
        """The share of a batch that is padding, for the log; None where it is not known."""
        match batch:
            case object(padding=float(share)):
                return share
        return None

    def split_for_tbptt(self, batch: Any, steps: int) -> Sequence[Any]:
        """The pieces of a batch for truncated back-propagation through time, each of at most `steps` time steps.

        Unless overridden: every tensor [B, T, ...] along T, lists of one sequence a sample, and PackedSequences; what
        has no time dimension goes with every piece. Raises ConfigError for a batch that this does not fit.
        """
        return split_in_time(batch, steps)

    def __getattr__(self, name: str) -> Any:
        """The parameter, buffer or module of that name; what another trainer's task would have is told of."""
        try:
            return super().__getattr__(name)
        except AttributeError as error:
            told = hint(name)
            raise AttributeError(f"{error}; {told}" if told else str(error)) from None

    def become(self, other: "Task") -> None:
        """Be what `other`, which nobody uses any more, is: of its class, with its parts and attributes."""
        vars(self).clear()
        vars(self).update(vars(other))
        self.__class__ = type(other)

    def log(self, name: str, value: float | Tensor, count: float | Tensor = 1, **others: object) -> None:
        """Add a scalar, averaged by `count` over the step (training) or the pass (evaluation), without a sync."""
        if others:
            raise ConfigError(
                f"self.log takes a name, a value and a count, but got {', '.join(others)}; leave that out: what is "
                f"logged is averaged, kept and shown by itself."
            )
        if self._scalars is not None:
            self._scalars.add(name, value, count)

    @classmethod
    def load(cls, folder: str | Path, *, device: str | torch.device = "cpu", **arguments: object) -> Self:
        """The task whose weights lie in `folder` (a checkpoint, a run's folder, whose best is taken, or what
        `Trainer.save` wrote), made from its recorded arguments; those that were not plain data are passed again as
        `arguments`.

        Raises StorageError where the folder is damaged and ConfigError where an argument is missing or the device is
        not there.
        """
        where = choose_device(str(device), "device")
        task: Self = load_task(cls, user_path(folder), arguments)
        return task.to(where)


def accepts(method: Callable[..., object], keyword: str) -> bool:
    """Whether `method` declares `keyword` (or takes any)."""
    parameters = inspect.signature(method).parameters.values()
    return any(p.name == keyword or p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
