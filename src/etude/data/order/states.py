"""The global random states of this process: kept, lent to a user's code, and put back.

A user's dataset, sampler or generator draws from Python's, numpy's or torch's global generator, as its author
pleases. Here each draw becomes a function of (seed, epoch, sample): the states are set before, and what the rest of
the process has is put back afterwards. Only torch's CPU generator is touched, never a device's.
"""

import ctypes
import itertools
import random
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from etude.base.randomness import seed_of

_32_BITS = 0xFFFFFFFF
T = TypeVar("T")


class States(NamedTuple):
    """Python's, numpy's and torch's global states at one moment."""

    python: Any
    numpy: Any
    torch: torch.Tensor


def kept() -> States:
    """Read the global states."""
    return States(random.getstate(), np.random.get_state(legacy=False), torch.default_generator.get_state())  # noqa: NPY002 - the global one is the point


def put_back(states: States) -> None:
    """Set the global states to what they were."""
    random.setstate(states.python)
    np.random.set_state(states.numpy)  # noqa: NPY002 - the global one is the point
    torch.default_generator.set_state(states.torch)


class Glance:
    """A look at the global states that costs a fifth of `kept`, to see afterwards whether anything was drawn.

    Of numpy's state it sees the generator but not the second of a pair of normal numbers that may wait in
    `np.random.normal`; reading that one is what makes `kept` slow.
    """

    __slots__ = ("_numpy", "_python", "_torch")

    def __init__(self) -> None:
        self._python = random.getstate()
        self._numpy = ctypes.string_at(*_numpy_state())
        self._torch = torch.default_generator.get_state()

    def unmoved(self) -> bool:
        """Tell whether the states are still those that were looked at."""
        # Drawing moves the place (the last number) or renews all the others; seeding does both, but for the first.
        was, now = self._python[1], random.getstate()[1]
        return (
            was[-1] == now[-1]
            and was[1:3] == now[1:3]
            and self._numpy == ctypes.string_at(*_numpy_state())
            and torch.equal(self._torch, torch.default_generator.get_state())
        )

    def put_back(self) -> None:
        """Set the states to those that were looked at."""
        random.setstate(self._python)
        place, size = _numpy_state()
        ctypes.memmove(place, self._numpy, size)
        torch.default_generator.set_state(self._torch)


def _numpy_state() -> tuple[int, int]:
    """Where numpy's global generator (a Mersenne twister: 624 words and a place) lies in memory, and its size."""
    generator: Any = np.random.get_bit_generator()  # type: ignore[attr-defined]  # public, but numpy's types forget it
    return generator.ctypes.state_address, 4 * 625


def set_all(seed: int) -> None:
    """Seed the three global generators with one number of up to 63 bits."""
    random.seed(seed)
    np.random.seed(seed & _32_BITS)  # noqa: NPY002 - the global one is the point
    torch.default_generator.manual_seed(seed)


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
