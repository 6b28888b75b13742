"""The global random states of this process: kept, lent to a user's code, and put back.

A user's dataset, sampler or generator draws from Python's, numpy's or torch's global generator, as its author
pleases. Here each draw becomes a function of (seed, epoch, sample): the states are set before, and what the rest of
the process has is put back afterwards. Only torch's CPU generator is touched, never a device's.
"""

import ctypes
import itertools
import pickle
import random
import struct
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple, TypeVar, final

import numpy as np
import torch
from numpy.random import mtrand

from etude.base.randomness import seed_of

_32_BITS = 0xFFFFFFFF
_WORDS = "624I"
"""The state of a Mersenne twister, which Python's generator and numpy's are, in memory; beside it stands its place."""
_WAITING = struct.Struct("i4xd")
"""Whether a normal number waits, and the number."""
T = TypeVar("T")


@final
class _Memory:
    """Bytes of this process, read and written as they lie: a hundredth of the cost of asking their owner."""

    def __init__(self, address: int, size: int = struct.calcsize(f"{_WORDS}i")) -> None:
        self.size = size
        self._held = (ctypes.c_char * size).from_address(address)

    def read(self) -> bytes:
        """Copy them."""
        return self._held.raw

    def write(self, content: bytes) -> None:
        """Set them."""
        self._held.raw = content


@final
class _Python:
    """Python's global generator, whose state lies right after the head of its object.

    That is so in CPython, and checked; elsewhere the generator itself is asked, and told.
    """

    def __init__(self) -> None:
        self._generator: Any = random._inst  # noqa: SLF001 - what random.random and the others draw from
        memory = _Memory(id(self._generator) + object.__basicsize__)
        self._memory = memory if self._lies_there(memory) else None

    def read(self) -> Any:
        """Copy the state."""
        if self._memory is None:
            return self._generator.getstate()
        return self._memory.read(), self._generator.gauss_next

    def write(self, state: Any) -> None:
        """Set the state."""
        if self._memory is None:
            self._generator.setstate(state)
            return
        words, self._generator.gauss_next = state
        self._memory.write(words)

    def _lies_there(self, memory: _Memory) -> bool:
        if type(self._generator).__basicsize__ < object.__basicsize__ + memory.size:
            return False
        place, *words = struct.unpack(f"i{_WORDS}", memory.read())
        _, state, _ = self._generator.getstate()
        return bool(state == (*words, place))


@final
class _Numpy:
    """Numpy's global generator: its words, and the second of a pair of normal numbers, which may wait beside them.

    Where that number lies is found out with a generator of our own; if it is not found, and for a generator of
    another kind that a user has set, numpy is asked, and told.
    """

    def __init__(self) -> None:
        self._generator: object = None
        self._words: _Memory | None = None
        place = _place_of_waiting()
        self._waiting = None if place is None else _Memory(id(mtrand._rand) + place, _WAITING.size)  # noqa: SLF001 - what np.random.random and the others draw from

    def read(self) -> Any:
        """Copy the state."""
        memory = self._memory()
        if memory is None or self._waiting is None:
            return np.random.get_state(legacy=False)  # noqa: NPY002 - the global one is the point
        return memory.read(), self._waiting.read()

    def write(self, state: Any) -> None:
        """Set the state."""
        match state, self._memory(), self._waiting:
            case (words, number), _Memory() as memory, _Memory() as waiting:
                memory.write(words)
                waiting.write(number)
            case (words, number), _, _:
                np.random.set_state(_spelt_out(words, number))  # noqa: NPY002
            case _:
                np.random.set_state(state)  # noqa: NPY002

    def seed(self, seed: int) -> None:
        """Seed it; one of another kind as a new one of its kind is."""
        if self._memory() is not None:
            np.random.seed(seed)  # noqa: NPY002
            return
        generator: Any = mtrand.get_bit_generator()
        generator.state = type(generator)(seed).state

    def unmoved(self, state: Any) -> bool:
        """Tell whether the state is `state`."""
        now = self.read()
        return state == now if isinstance(state, tuple) else pickle.dumps(state) == pickle.dumps(now)

    def _memory(self) -> _Memory | None:
        """Where the words lie, then the place; None for a generator of another kind that a user has set."""
        generator: Any = mtrand.get_bit_generator()
        if generator is not self._generator:
            known = type(generator) is np.random.MT19937
            self._generator, self._words = generator, _Memory(generator.ctypes.state_address) if known else None
        return self._words


def _place_of_waiting() -> int | None:
    """Bytes from the begin of a RandomState to the number that waits in it: whether there is one, then it."""
    probe = np.random.RandomState(0)
    places = {*range(0, type(probe).__basicsize__ - _WAITING.size, 8)}
    for waits, number in ((1, 0.1), (0, -2.7e7), (1, 3.9e-5)):
        probe.set_state(("MT19937", np.zeros(624, np.uint32), 0, waits, number))
        held = ctypes.string_at(id(probe), type(probe).__basicsize__)
        places = {place for place in places if _WAITING.unpack_from(held, place) == (waits, number)}
    return places.pop() if len(places) == 1 else None


def _spelt_out(words: bytes, waiting: bytes) -> dict[str, object]:
    """A state as numpy gives it."""
    *key, place = struct.unpack(f"{_WORDS}i", words)
    waits, number = _WAITING.unpack(waiting)
    state = {"key": np.array(key, dtype=np.uint32), "pos": place}
    return {"bit_generator": "MT19937", "state": state, "has_gauss": waits, "gauss": number}


_PYTHON: Final = _Python()
_NUMPY: Final = _Numpy()


class States(NamedTuple):
    """Python's, numpy's and torch's global states at one moment."""

    python: Any
    numpy: Any
    torch: torch.Tensor


def kept() -> States:
    """Read the global states."""
    return States(_PYTHON.read(), _NUMPY.read(), torch.default_generator.get_state())


def put_back(states: States) -> None:
    """Set the global states to what they were."""
    _PYTHON.write(states.python)
    _NUMPY.write(states.numpy)
    torch.default_generator.set_state(states.torch)


def unmoved(states: States) -> bool:
    """Tell whether nothing was drawn since `states` were read."""
    now = torch.default_generator.get_state()
    return (
        states.python == _PYTHON.read() and _NUMPY.unmoved(states.numpy) and _bytes_of(states.torch) == _bytes_of(now)
    )


def set_all(seed: int) -> None:
    """Seed the three global generators with one number of up to 63 bits."""
    random.seed(seed)
    _NUMPY.seed(seed & _32_BITS)
    torch.default_generator.manual_seed(seed)


def _bytes_of(state: torch.Tensor) -> bytes:
    return _Memory(state.data_ptr(), state.nbytes).read()


def on_its_own(items: Iterable[T], seed: int, *, ahead: int = 1) -> Iterator[T]:
    """Iterate with global states of its own that begin at `seed`, `ahead` items at a time.

    Outside of the iteration the process sees its own states, as if nothing had been drawn.
    """
    outside = kept()
    set_all(seed)
    try:
        iterator = iter(items)
        inside = kept()
    finally:
        put_back(outside)
    while True:
        drawn = []
        outside = kept()
        put_back(inside)
        try:
            for item in iterator:
                drawn.append(item)
                if len(drawn) == ahead:
                    break
            inside = kept()
        finally:
            put_back(outside)
        yield from drawn
        if len(drawn) < ahead:
            return


def begun_seeded(items: Iterable[T], seed: int) -> Iterator[T]:
    """Begin an iteration with global states that are `seed`'s, and leave it to itself."""
    outside = kept()
    try:
        set_all(seed)
        return iter(items)
    finally:
        put_back(outside)


def each_seeded(items: Iterable[T], seed: int, *, begin: int) -> Iterator[T]:
    """Iterate with global states set anew for every item, from `seed` and its number; the first is `begin`."""
    iterator: Iterator[T] | None = None
    for number in itertools.count(begin):
        outside = kept()
        try:
            set_all(seed_of(seed, number))
            iterator = iter(items) if iterator is None else iterator
            item = next(iterator)
        except StopIteration:
            return
        finally:
            put_back(outside)
        yield item


def reseed(owner: object, seed: int) -> None:
    """Seed every generator that an object keeps as an attribute: torch's, numpy's and Python's."""
    for part in vars(owner).values() if hasattr(owner, "__dict__") else ():
        match part:
            case torch.Generator():
                part.manual_seed(seed)
            case random.Random():
                part.seed(seed)
            case np.random.RandomState():
                part.seed(seed & _32_BITS)
            case np.random.Generator():
                part.bit_generator.state = type(part.bit_generator)(seed).state
