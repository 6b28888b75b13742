"""Random numbers of their own for who only watches, so that drawing some changes nothing in training."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.random import mtrand

from etude.base.randomness import seed_of


class Apart:
    """Seeds every global generator anew inside a block, and hands each back as it was found.

    What is drawn inside is a function of (seed, what it is for, step, how often in this step).
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._numpy = np.random.MT19937(0)
        self._step = -1
        self._calls: dict[str, int] = {}

    @contextmanager
    def __call__(self, what: str, step: int) -> Iterator[None]:
        """Draw apart from everybody else inside the block."""
        seed = self._next(what, step)
        python, host = random.getstate(), torch.get_rng_state()
        device = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
        # Swapping numpy's bit generator costs a tenth of copying its state, and an event of every step pays it.
        bits: Any = mtrand.get_bit_generator()
        mtrand.set_bit_generator(self._numpy)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - users' code may draw from it
        random.seed(seed)
        torch.default_generator.manual_seed(seed)
        if device is not None:
            torch.cuda.manual_seed(seed)
        try:
            yield
        finally:
            mtrand.set_bit_generator(bits)
            random.setstate(python)
            torch.set_rng_state(host)
            if device is not None:
                torch.cuda.set_rng_state(device)

    def _next(self, what: str, step: int) -> int:
        if step != self._step:
            self._step, self._calls = step, {}
        count = self._calls.get(what, 0)
        self._calls[what] = count + 1
        return seed_of(self._seed, "callbacks", what, step, count)
