"""An exponential moving average of the weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class NoAverage:
    """The average of a run that keeps none: its weights are the raw ones."""

    def update(self) -> None:
        """Do nothing."""

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Leave the weights as they are."""
        yield

    def weights(self) -> dict[str, Tensor] | None:
        """None: there is no average."""
        return None

    def state_dict(self) -> dict[str, int]:
        """Nothing."""
        return {}

    def load(self, weights: Mapping[str, Tensor] | None, state: Mapping[str, int]) -> None:
        """Do nothing."""


class Average:
    """The moving average `a <- a + (1 - d) (w - a)` with d = min(decay, (1 + k) / (10 + k)) after step k.

    The growing decay lets the average leave its random start quickly (the form of TensorFlow's
    ExponentialMovingAverage). Buffers and integer tensors are taken over as they are.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module = module
        self._decay = decay
        self._updates = 0
        own = module.state_dict(keep_vars=True)
        # A weight of two names is one: swapped under each of them, it would come back as its average.
        kept = {id(value): value.detach().clone() for value in own.values()}
        self._averaged = {name: kept[id(value)] for name, value in own.items()}
        pairs = list({id(value): (kept[id(value)], value) for value in own.values()}.values())
        moving = [pair for pair in pairs if isinstance(pair[1], nn.Parameter) and pair[1].is_floating_point()]
        self._old = [old for old, _ in moving]
        self._new = [new.detach() for _, new in moving]
        averaged = {id(new) for _, new in moving}
        self._rest = [(old, new.detach()) for old, new in pairs if id(new) not in averaged]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        torch._foreach_lerp_(self._old, self._new, 1 - decay)
        for old, new in self._rest:
            old.copy_(new)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the module hold the averaged weights inside the block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for old, new in [*zip(self._old, self._new, strict=True), *self._rest]:
            kept = new.clone()
            new.copy_(old)
            old.copy_(kept)

    def weights(self) -> dict[str, Tensor] | None:
        """The averaged state dict."""
        return self._averaged

    def state_dict(self) -> dict[str, int]:
        """The number of updates; the weights have a file of their own."""
        return {"updates": self._updates}

    def load(self, weights: Mapping[str, Tensor] | None, state: Mapping[str, int]) -> None:
        """Go on from stored weights; without them the average begins at the module's present ones."""
        for name, value in (weights or self._module.state_dict()).items():
            self._averaged[name].copy_(value)
        self._updates = state.get("updates", 0)
