"""Telling the parts of a run of its events: who listens, and what they are given."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from etude.base.errors import ConfigError
from etude.train.watch.apart import Apart
from etude.train.watch.callback import (
    EVENTS,
    GIVEN,
    Callback,
    RunView,
    Stop,
    methods_of,
    refuse_unknown,
    unknown_events,
)
from etude.train.watch.naming import FOREIGN, PREFIX

_NAMES = {PREFIX + event: event for event in EVENTS}
_POSITIONAL = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}


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


def _faults(part: object) -> list[str]:
    """A sentence for each of its events that needs what the event does not give."""
    return [fault for event in _held(part) if (fault := _fault(part, event))]


def _held(part: object) -> list[str]:
    """The events that the object or a class of its has a name for: most parts have none, and to look closer is slow."""
    held = set().union(*(_NAMES.keys() & vars(one).keys() for one in type(part).__mro__))
    with suppress(AttributeError):  # it has slots
        held |= _NAMES.keys() & object.__getattribute__(part, "__dict__").keys()
    return [event for name, event in _NAMES.items() if name in held]


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
        self._callbacks = callbacks
        self._say = say
        self._looked_at: set[type] = set()
        self._view = view
        self._apart = Apart(seed)
        self._raised: Any = None
        self.requested: Stop | None = None
        self.listen(components)

    def listen(self, components: Iterable[object]) -> None:
        """Let these be the parts of the run that may have events; those before are told of nothing any more."""
        self._listeners = [*self._callbacks, *_listening(components, self._callbacks, self._looked_at, self._say)]
        self._calls = {event: self._caller(event) for event in EVENTS}
        for event in EVENTS:
            vars(self).pop(event, None)

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

    @property
    def takes_batches(self) -> bool:
        """Whether anybody looks at the batches of a validation, or at what they give."""
        return any(
            getattr(listener, "looks_at_batches", True) for listener, _ in self._listening_to("validation_batch_end")
        )

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


def _listening(
    components: Iterable[object], callbacks: Sequence[object], looked_at: set[type], say: Callable[[str], None]
) -> list[object]:
    """The parts of a run that may be told of events and are no callbacks; what looks like an event is said once."""
    known = {id(callback) for callback in callbacks}
    parts = [part for part in _once(components) if id(part) not in known and not isinstance(part, type)]
    for part in {type(part): part for part in parts if type(part) not in looked_at}.values():
        _look_at(part, say)
        looked_at.add(type(part))
    return [part for part in parts if _held(part) and not _faults(part)]


def _look_at(part: object, say: Callable[[str], None]) -> None:
    """Refuse a part with methods of another program's events; say what looks like an event of ours and is none."""
    cls = type(part)
    if any(name.startswith(FOREIGN) for name in methods_of(cls, foreign=False)):
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
