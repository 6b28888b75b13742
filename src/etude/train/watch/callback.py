"""Callbacks: who watches a run, when they are called, and the one thing they may ask for."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from etude.base.errors import ConfigError
from etude.base.progress import Progress
from etude.train.watch.apart import Apart
from etude.train.watch.naming import FOREIGN, PREFIX, is_event, meant


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

_POSITIONAL = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}


def unknown_events(cls: type, *, component: bool = False) -> list[str]:
    """A sentence for each method of `cls` that looks like an event and is none.

    Of a component, which may have names of its own, only those near an event's count, and none that torch gave it.
    """
    known = [PREFIX + event for event in EVENTS]
    problems = []
    for name in _methods(cls, foreign=not component):
        near = "" if name in known else meant(name, known)
        if near or not (component or name in known):
            hint = f"; did you mean {near}?" if near else f"; there are {', '.join(known)}."
            problems.append(f"{cls.__name__}.{name} is not an event{hint}")
    return problems


def refuse_unknown(cls: type) -> None:
    """Raise ConfigError if a class listed as callback has a misspelt event."""
    if problems := unknown_events(cls):
        raise ConfigError(problems)


def check_callback(callback: object, where: str = "callbacks") -> None:
    """Refuse what cannot be a callback: a class, a misspelt event, a method that needs more than its event gives.

    Raises ConfigError with every problem.
    """
    match callback:
        case type():
            raise ConfigError(
                f"{where} must hold objects, but there is the class {callback.__name__}; give one it made."
            )
        case None | str() | int() | float() | Mapping():
            raise ConfigError(f"{where} must hold objects with on_... methods, but there is {callback!r}.")
    if problems := [*unknown_events(type(callback)), *_faults(callback)]:
        raise ConfigError(problems)


def _methods(cls: type, *, foreign: bool) -> list[str]:
    """The names of `on_...` methods; not `foreign`, those of torch's classes are left out."""
    bases = [base for base in cls.__mro__ if foreign or base.__module__.partition(".")[0] != "torch"]
    names = {name for base in bases for name in vars(base) if is_event(name)}
    return sorted(name for name in names if callable(getattr(cls, name, None)))


def _faults(part: object) -> list[str]:
    """A sentence for each of its events that needs what the event does not give."""
    return [fault for event in EVENTS if (fault := _fault(part, event))]


def _fault(part: object, event: str) -> str:
    """What one of its events needs and is not given, as a sentence; nothing where all is well."""
    method = _own(part, event)
    needed = [] if method is None else _needed(method, given=len(GIVEN[event]))
    if not needed:
        return ""
    return (
        f"{type(part).__name__}.{PREFIX}{event} needs {', '.join(needed)}, which the event does not give; it gives "
        f"{', '.join(GIVEN[event])}."
    )


def _needed(method: Callable[..., object], *, given: int) -> list[str]:
    """The parameters that a method cannot be called without, beyond the first `given`."""
    parameters = _parameters(method) or []
    places = [one for one in parameters if one.kind in _POSITIONAL]
    beyond = places[given:] + [one for one in parameters if one.kind is one.KEYWORD_ONLY]
    return [one.name for one in beyond if one.default is one.empty]


def _own(part: object, event: str) -> Callable[..., Any] | None:
    """The method with which `part` listens to an event; None where it does not.

    Looked up without `__getattr__`: a part that hands every name on is no listener for that.
    """
    name = PREFIX + event
    found = inspect.getattr_static(part, name, None)
    if found is None or found is vars(Callback)[name]:
        return None
    method = getattr(part, name)
    return method if callable(method) else None


def _fitted(method: Callable[..., object], given: int) -> Callable[..., Any]:
    """The method, called with as many of an event's arguments as it takes."""
    parameters = _parameters(method)
    if parameters is None or any(one.kind is one.VAR_POSITIONAL for one in parameters):
        return method
    places = sum(one.kind in _POSITIONAL for one in parameters)
    return method if places >= given else lambda *about: method(*about[:places])


def _parameters(method: Callable[..., object]) -> list[inspect.Parameter] | None:
    """The parameters of a method; None where it does not tell."""
    try:
        return list(inspect.signature(method).parameters.values())
    except (TypeError, ValueError):
        return None


def read_only(nest: object) -> Any:
    """The nest with mappings and lists that cannot be changed."""
    match nest:
        case Mapping():
            return MappingProxyType({key: read_only(part) for key, part in nest.items()})
        case list() | tuple():
            return tuple(read_only(part) for part in nest)
    return nest


def _nobody(*_: object) -> None:
    """Stand in for an event that nobody listens to."""


Listener = tuple[object, Callable[..., object]]
"""Who listens to an event, and how it is told."""


class Events:
    """Calls the listeners of each event; one without listeners is a function that does nothing.

    `listeners` are callbacks, in order, `components` parts of the run that may have events too; each object is called
    once. What the user's own draw from global generators is apart from training's. `say` is told of misspelt events.
    """

    def __init__(
        self,
        listeners: Iterable[object],
        components: Iterable[object] = (),
        view: Callable[[], RunView] | None = None,
        *,
        seed: int = 1,
        say: Callable[[str], None] = print,
    ) -> None:
        callbacks = _once(listeners)
        for callback in callbacks:
            check_callback(callback)
        self._listeners = [*callbacks, *_listening(components, callbacks, say)]
        self._view = view
        self._apart = Apart(seed)
        self._raised: Any = None
        self.requested: Stop | None = None
        self._calls = {event: self._caller(event) for event in EVENTS}

    @property
    def stop_reason(self) -> str | None:
        """What the first listener that asked for a stop gave as its reason."""
        return None if self.requested is None else self.requested.reason

    def state_dict(self) -> dict[str, Any]:
        """The stop that was asked for, which may wait for `min_duration`."""
        return {"stop": self.stop_reason}

    def load_state_dict(self, state: Mapping[str, str | None]) -> None:
        """Go on from `state_dict()`."""
        asked = state["stop"]
        self.requested = None if asked is None else Stop(asked)

    def _caller(self, event: str) -> Callable[..., None]:
        own = list(self._listening_to(event))
        if not own:
            return _nobody
        own_randomness = not all(type(listener).__module__.startswith("etude.") for listener, _ in own)
        tell = self._tell_of_exception if event == "exception" else self._tell

        def call(*about: object) -> None:
            view = self._view() if self._view is not None else None
            step = 0 if view is None else view.progress.step
            with self._apart(event, step) if own_randomness else nullcontext():
                tell(own, view, about)

        return call

    def _listening_to(self, event: str) -> Iterator[Listener]:
        for listener in self._listeners:
            method = _own(listener, event)
            if method is not None:
                yield listener, _fitted(method, len(GIVEN[event]))

    def _tell(self, own: Sequence[Listener], view: object, about: tuple[object, ...]) -> None:
        for listener, method in own:
            try:
                answer = method(view, *about)
            except BaseException:
                self._raised = listener
                raise
            if isinstance(answer, Stop) and self.requested is None:
                self.requested = answer

    def _tell_of_exception(self, own: Sequence[Listener], view: object, about: tuple[object, ...]) -> None:
        """Tell everybody but who raised it; what fails there is noted at the error, which stays the cause."""
        (error,) = about
        assert isinstance(error, BaseException)
        for listener, method in own:
            if listener is self._raised:
                continue
            try:
                method(view, *about)
            except Exception as further:  # noqa: BLE001 - the first error is the one to be shown
                error.add_note(f"{type(listener).__name__}.on_exception failed too: {further}")

    def __getattr__(self, event: str) -> Callable[..., None]:
        # Only reached once for each event: what is found becomes an attribute.
        try:
            call: Callable[..., None] = vars(self)["_calls"][event]
        except KeyError:
            raise AttributeError(event) from None
        setattr(self, event, call)
        return call


def _listening(components: Iterable[object], callbacks: Sequence[object], say: Callable[[str], None]) -> list[object]:
    """The parts of a run that may be told of events and are no callbacks; what looks like an event is said."""
    known = {id(callback) for callback in callbacks}
    parts = [part for part in _once(components) if id(part) not in known and not isinstance(part, type)]
    for part in {type(part): part for part in parts}.values():
        _look_at(part, say)
    return [part for part in parts if not _faults(part)]


def _look_at(part: object, say: Callable[[str], None]) -> None:
    """Refuse a part with methods of another program's events; say what looks like an event of ours and is none."""
    cls = type(part)
    if any(name.startswith(FOREIGN) for name in _methods(cls, foreign=False)):
        refuse_unknown(cls)
    if problems := [*unknown_events(cls, component=True), *_faults(part)]:
        say(" ".join(problems))


@contextmanager
def ending_by(events: Events) -> Iterator[None]:
    """Tell everybody of an exception that leaves the block."""
    try:
        yield
    except GeneratorExit:  # somebody wanted no more
        raise
    except BaseException as error:
        events.exception(error)
        raise


def _once(parts: Iterable[object]) -> list[Any]:
    """The parts in order, each object once."""
    return list({id(part): part for part in parts if part is not None}.values())
