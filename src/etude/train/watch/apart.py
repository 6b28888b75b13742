"""Random numbers of their own for who only watches, so that drawing some changes nothing in training."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from etude.base.randomness import seed_of
from etude.data.order.states import kept, put_back, set_all


class Apart:
    """Seeds every global generator anew inside a block, and hands each back as it was found.

    What is drawn inside is a function of (seed, what it is for, step, how often in this step).
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._step = -1
        self._calls: dict[str, int] = {}

    @contextmanager
    def __call__(self, what: str, step: int) -> Iterator[None]:
        """Draw apart from everybody else inside the block."""
        seed = self._next(what, step)
        outside = kept()
        device = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
        set_all(seed)
        if device is not None:
            torch.cuda.manual_seed(seed)
        try:
            yield
        finally:
            put_back(outside)
            if device is not None:
                torch.cuda.set_rng_state(device)

    def _next(self, what: str, step: int) -> int:
        if step != self._step:
            self._step, self._calls = step, {}
        count = self._calls.get(what, 0)
        self._calls[what] = count + 1
        return seed_of(self._seed, "callbacks", what, step, count)
