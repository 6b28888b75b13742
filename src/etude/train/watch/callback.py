"""Callbacks: who watches a run, when they are called, and the one thing they may ask for."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from etude.base.errors import ConfigError
from etude.base.progress import Progress
from etude.train.watch.naming import PREFIX, is_event, meant


@dataclass(frozen=True, slots=True)
class Stop:
    """What a callback returns to end the run after this step; it waits for `min_duration`."""

    reason: str


@dataclass(frozen=True, slots=True)
class RunView:
    """What a callback sees of a run; nothing in it steers."""

    progress: Progress
    """How far the run has come."""
    task: Any
    config: Mapping[str, Any]
    """The run's composed config; from Python, the trainer's options."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The last value of everything logged."""
    folder: Any = None
    """The run folder, or None."""
    validation_due: bool = True
    """Whether the last validation was due; the end of a run validates off the beat too, which moves no patience."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """The data by split, as it was given (`train`, `val`, `test`), or the feeds that hold it."""
    best_step: int | None = None
    """The step of the best validation so far."""
    weights_step: int | None = None
    """The step that the weights at hand are of, where they are not those that the run ended with: in a test."""


class Callback:
    """Every event, and what it is about. Subclass it, or write a class of your own with any of these methods.

    A method may take fewer arguments than its event gives; it gets the first ones. Each may return `Stop("reason")`,
    and nothing else. Tensors handed over stay on their device: reading one is the callback's cost. Random numbers
    drawn in a callback are its own, and change nothing in training. A misspelt event is refused when the class is
    made. A callback with `state_dict` and `load_state_dict` is part of every checkpoint.
    """

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        refuse_unknown(cls)

    def on_fit_start(self, run: RunView) -> Stop | None:
        """Before the first step of this process, after a checkpoint was loaded and the sanity check passed."""

    def on_fit_end(self, run: RunView, reason: str) -> Stop | None:
        """After the last step, the end's validation and save."""

    def on_epoch_start(self, run: RunView) -> Stop | None:
        """Before an epoch's first batch; not when a run goes on in the middle of one."""

    def on_epoch_end(self, run: RunView) -> Stop | None:
        """After an epoch's last step, before what is due then is logged, validated and saved."""

    def on_loader_exhausted(self, run: RunView) -> Stop | None:
        """When the loader has no further batch in this epoch; after its last step, before `on_epoch_end`."""

    def on_batch_start(self, run: RunView, batch: Any) -> Stop | None:
        """Before a batch is computed; of several optimizers, by each."""

    def on_batch_end(self, run: RunView, batch: Any) -> Stop | None:
        """After a batch's backward."""

    def on_step_start(self, run: RunView) -> Stop | None:
        """Before the batches of a step are computed."""

    def on_before_backward(self, run: RunView, loss: Any) -> Stop | None:
        """With the loss that is about to be differentiated."""

    def on_after_backward(self, run: RunView) -> Stop | None:
        """When the gradients of all batches of a step are there, before clipping."""

    def on_before_step(self, run: RunView, optimizer: Any) -> Stop | None:
        """When gradients are clipped, before the optimizer uses them."""

    def on_step_end(self, run: RunView, outcome: Any) -> Stop | None:
        """After a step: `outcome.terms` (name to sum, count, weight), `outcome.grad_norm`, `outcome.finite`."""

    def on_validation_start(self, run: RunView) -> Stop | None:
        """Before a validation pass."""

    def on_validation_batch_start(self, run: RunView, batch: Any) -> Stop | None:
        """Before a validation batch."""

    def on_validation_batch_end(self, run: RunView, batch: Any, outputs: Any) -> Stop | None:
        """After a validation batch, with the `outputs` of the step's `StepOutput` (None without)."""

    def on_validation_end(self, run: RunView, metrics: Mapping[str, float]) -> Stop | None:
        """After a validation pass, with what it measured, once it is logged and judged."""

    def on_test_start(self, run: RunView) -> Stop | None:
        """Before a test pass."""

    def on_test_batch_start(self, run: RunView, batch: Any) -> Stop | None:
        """Before a test batch."""

    def on_test_batch_end(self, run: RunView, batch: Any, outputs: Any) -> Stop | None:
        """After a test batch, with the `outputs` of the step's `StepOutput` (None without)."""

    def on_test_end(self, run: RunView, metrics: Mapping[str, float]) -> Stop | None:
        """After a test pass, with what it measured."""

    def on_predict_start(self, run: RunView) -> Stop | None:
        """Before predicting."""

    def on_predict_batch_start(self, run: RunView, batch: Any) -> Stop | None:
        """Before a batch is predicted for."""

    def on_predict_batch_end(self, run: RunView, batch: Any, predictions: Any) -> Stop | None:
        """After a batch was predicted for, with what `predict_step` gave."""

    def on_predict_end(self, run: RunView) -> Stop | None:
        """After predicting."""

    def on_save(self, run: RunView, folder: Any) -> Stop | None:
        """When a checkpoint has been captured, with the folder it is written to (None without a run folder)."""

    def on_load(self, run: RunView, folder: Any) -> Stop | None:
        """When a checkpoint has been loaded, with its folder; before `on_fit_start`."""

    def on_exception(self, run: RunView, error: BaseException) -> Stop | None:
        """When the run is about to end by an exception; not told to the callback that raised it."""

    def on_stop(self, run: RunView, reason: str) -> Stop | None:
        """When the run has decided to end, before `on_fit_end`."""

    def on_stage_start(self, run: RunView, stage: str) -> Stop | None:
        """Before a stage of a pipeline."""

    def on_stage_end(self, run: RunView, stage: str) -> Stop | None:
        """After a stage of a pipeline."""


EVENTS = tuple(name.removeprefix(PREFIX) for name in vars(Callback) if name.startswith(PREFIX))
GIVEN = {event: list(inspect.signature(vars(Callback)[PREFIX + event]).parameters)[1:] for event in EVENTS}
"""What each event hands over: `run`, and what it is about."""


def read_only(nest: object) -> Any:
    """The nest with mappings and lists that cannot be changed."""
    match nest:
        case Mapping():
            return MappingProxyType({key: read_only(part) for key, part in nest.items()})
        case list() | tuple():
            return tuple(read_only(part) for part in nest)
    return nest


def unknown_events(cls: type, *, component: bool = False) -> list[str]:
    """A sentence for each method of `cls` that looks like an event and is none.

    Of a component, which may have names of its own, only those near an event's count, and none that torch gave it.
    """
    known = [PREFIX + event for event in EVENTS]
    problems = []
    for name in methods_of(cls, foreign=not component):
        near = "" if name in known else meant(name, known)
        if near or not (component or name in known):
            hint = f"; did you mean {near}?" if near else f"; there are {', '.join(known)}."
            problems.append(f"{cls.__name__}.{name} is not an event{hint}")
    return problems


def refuse_unknown(cls: type) -> None:
    """Raise ConfigError if a class listed as callback has a misspelt event."""
    if problems := unknown_events(cls):
        raise ConfigError(problems)


def methods_of(cls: type, *, foreign: bool) -> list[str]:
    """The names of `on_...` methods; not `foreign`, those of torch's classes are left out."""
    bases = [base for base in cls.__mro__ if foreign or base.__module__.partition(".")[0] != "torch"]
    names = {name for base in bases for name in vars(base) if is_event(name)}
    return sorted(name for name in names if callable(getattr(cls, name, None)))
