"""Callbacks: who watches a run, when they are called, and the one thing they may ask for."""

import difflib
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from etude.base.errors import ConfigError
from etude.base.progress import Progress

PREFIX = "on_"


@dataclass(frozen=True, slots=True)
class Stop:
    """What a callback returns to end the run after this step; it waits for `min_duration`."""

    reason: str


@dataclass(frozen=True, slots=True)
class RunView:
    """What a callback sees of a run; nothing in it steers."""

    progress: Progress
    task: Any
    config: Mapping[str, Any]
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The last value of everything logged."""
    folder: Any = None
    """The run folder, or None."""
    validation_due: bool = True
    """Whether the last validation was due; the end of a run validates off the beat too, which moves no patience."""


class Callback:
    """Every event, and what it is about. Subclass it, or write a class of your own with any of these methods.

    Each may return `Stop("reason")`. Tensors handed over stay on their device: reading one is the callback's cost.
    A misspelt event is refused when the class is made. A callback with `state_dict` and `load_state_dict` is part
    of every checkpoint.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        refuse_unknown(cls)

    def on_fit_start(self, run: RunView) -> Stop | None:
        """Before the first step of this process."""

    def on_fit_end(self, run: RunView, reason: str) -> Stop | None:
        """After the last step, the end's validation and save."""

    def on_epoch_start(self, run: RunView) -> Stop | None:
        """Before an epoch's first batch."""

    def on_epoch_end(self, run: RunView) -> Stop | None:
        """After an epoch's last step."""

    def on_loader_exhausted(self, run: RunView) -> Stop | None:
        """When the loader has no further batch in this epoch."""

    def on_batch_start(self, run: RunView, batch: Any) -> Stop | None:
        """Before a batch is computed."""

    def on_batch_end(self, run: RunView, batch: Any) -> Stop | None:
        """After a batch's backward."""

    def on_step_start(self, run: RunView) -> Stop | None:
        """Before the batches of a step are computed."""

    def on_before_backward(self, run: RunView, loss: Any) -> Stop | None:
        """With the loss that is about to be differentiated."""

    def on_after_backward(self, run: RunView) -> Stop | None:
        """When gradients are there, before clipping."""

    def on_before_step(self, run: RunView, optimizer: Any) -> Stop | None:
        """When gradients are clipped, before the optimizer uses them."""

    def on_step_end(self, run: RunView, outcome: Any) -> Stop | None:
        """After a step, with its terms and gradient norm."""

    def on_validation_start(self, run: RunView) -> Stop | None:
        """Before a validation pass."""

    def on_validation_batch_start(self, run: RunView, batch: Any) -> Stop | None:
        """Before a validation batch."""

    def on_validation_batch_end(self, run: RunView, batch: Any) -> Stop | None:
        """After a validation batch."""

    def on_validation_end(self, run: RunView, metrics: Mapping[str, float]) -> Stop | None:
        """After a validation pass, with what it measured."""

    def on_test_start(self, run: RunView) -> Stop | None:
        """Before a test pass."""

    def on_test_batch_start(self, run: RunView, batch: Any) -> Stop | None:
        """Before a test batch."""

    def on_test_batch_end(self, run: RunView, batch: Any) -> Stop | None:
        """After a test batch."""

    def on_test_end(self, run: RunView, metrics: Mapping[str, float]) -> Stop | None:
        """After a test pass, with what it measured."""

    def on_predict_start(self, run: RunView) -> Stop | None:
        """Before predicting."""

    def on_predict_end(self, run: RunView) -> Stop | None:
        """After predicting."""

    def on_save(self, run: RunView, folder: Any) -> Stop | None:
        """When a checkpoint has been captured, with the folder it is written to."""

    def on_load(self, run: RunView, folder: Any) -> Stop | None:
        """When a checkpoint has been loaded."""

    def on_exception(self, run: RunView, error: BaseException) -> Stop | None:
        """When the run is about to end by an exception."""

    def on_stop(self, run: RunView, reason: str) -> Stop | None:
        """When the run has decided to end."""

    def on_stage_start(self, run: RunView, stage: str) -> Stop | None:
        """Before a stage of a pipeline."""

    def on_stage_end(self, run: RunView, stage: str) -> Stop | None:
        """After a stage of a pipeline."""


EVENTS = tuple(name.removeprefix(PREFIX) for name in vars(Callback) if name.startswith(PREFIX))


def unknown_events(cls: type) -> list[str]:
    """A sentence for each method of `cls` that looks like an event and is none."""
    names = [name for name, _ in inspect.getmembers(cls, callable) if name.startswith(PREFIX)]
    problems = []
    for name in names:
        if name.removeprefix(PREFIX) not in EVENTS:
            near = difflib.get_close_matches(name, [PREFIX + event for event in EVENTS], n=1)
            hint = f"; did you mean {near[0]}?" if near else "."
            problems.append(f"{cls.__name__}.{name} is not an event{hint}")
    return problems


def refuse_unknown(cls: type) -> None:
    """Raise ConfigError if a class listed as callback has a misspelt event."""
    if problems := unknown_events(cls):
        raise ConfigError(problems)


def _nobody(*_: Any) -> None:
    """Stand in for an event that nobody listens to."""


class Events:
    """Calls the listeners of each event; one without listeners is a function that does nothing."""

    def __init__(
        self, listeners: Iterable[Any], components: Iterable[Any] = (), view: Callable[[], RunView] | None = None
    ) -> None:
        self._listeners = [*listeners, *components]
        self._view = view
        self.requested: Stop | None = None
        for listener in self._listeners:
            problems = unknown_events(type(listener))
            if problems and listener in components:
                warnings.warn(" ".join(problems), stacklevel=2)
            elif problems:
                raise ConfigError(problems)
        self._calls = {event: self._caller(event) for event in EVENTS}

    @property
    def stop_reason(self) -> str | None:
        """What the first listener that asked for a stop gave as its reason."""
        return None if self.requested is None else self.requested.reason

    def _caller(self, event: str) -> Callable[..., None]:
        name = PREFIX + event
        own = [
            getattr(listener, name)
            for listener in self._listeners
            if callable(getattr(listener, name, None))
            and getattr(type(listener), name, None) is not getattr(Callback, name)
        ]
        if not own:
            return _nobody

        def call(*about: Any) -> None:
            view = self._view() if self._view is not None else None
            for method in own:
                answer = method(view, *about)
                if isinstance(answer, Stop) and self.requested is None:
                    self.requested = answer

        return call

    def __getattr__(self, event: str) -> Callable[..., None]:
        # Only reached once for each event: what is found becomes an attribute.
        try:
            call = self._calls[event]
        except KeyError:
            raise AttributeError(event) from None
        setattr(self, event, call)
        return call
