"""The weights that are evaluated, where others are trained: a moving average, or an optimizer's own."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import filterfalse

import torch
from torch import Tensor, nn

from etude.base.errors import ConfigError
from etude.model.growth import Transfer
from etude.train.optim.slot import Slot
from etude.train.world.sharding import Sharding, local


class NoAverage:
    """The average of a run that keeps none: its weights are the raw ones. It counts, for one that begins later."""

    def __init__(self) -> None:
        self.updates = 0

    def update(self) -> None:
        """Count a step."""
        self.updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Leave the weights as they are."""
        yield

    def weights(self) -> dict[str, Tensor] | None:
        """None: there is no average."""
        return None

    def state_dict(self) -> dict[str, int]:
        """The number of updates."""
        return {"updates": self.updates}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from `state_dict()`."""
        self.updates = state["updates"]

    def load(self, weights: Mapping[str, Tensor] | None) -> None:
        """Do nothing."""

    def carry(self, former: "NoAverage | Average", transfer: Transfer, sharding: Sharding) -> None:
        """Go on counting."""
        del transfer, sharding
        self.updates = former.updates


class OptimizersOwn(NoAverage):
    """The weights that optimizers with modes hold in `eval` mode, as schedule-free ones do.

    An evaluation, and a checkpoint's second set of weights, are of these; training goes on from the weights it had, to
    the bit. Memory: the weights twice more while they are evaluated.
    """

    def __init__(self, module: nn.Module, slots: Sequence[Slot]) -> None:
        super().__init__()
        self._module = module
        self._slots = slots
        self._trained = [parameter.detach() for slot in slots for parameter in slot.parameters]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the module hold the evaluated weights inside the block."""
        kept = list(map(torch.clone, self._trained))
        self._each(Slot.evaluate)
        try:
            yield
        finally:
            self._each(Slot.train)
            torch._foreach_copy_(self._trained, kept)

    def _each(self, act: Callable[[Slot], None]) -> None:
        for slot in self._slots:
            act(slot)

    def weights(self) -> dict[str, Tensor] | None:
        """The evaluated state dict, a weight of two names once."""
        with self.applied():
            return copy.deepcopy(self._module.state_dict())


class Average:
    """The moving average `a <- a + (1 - d) (w - a)` with d = min(decay, (1 + k) / (10 + k)) after step k.

    The growing decay lets the average leave its random start quickly (the form of TensorFlow's
    ExponentialMovingAverage). Buffers and integer tensors are taken over as they are.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module = module
        self._decay = decay
        self.updates = 0
        self._averaged: dict[str, Tensor] = {}
        self._old: list[Tensor] = []
        self._new: list[Tensor] = []
        self._rest: list[tuple[Tensor, Tensor]] = []
        kept: dict[int, Tensor] = {}
        for name, value in module.state_dict(keep_vars=True).items():
            # A weight of two names is one: swapped under each of them, it would come back as its average.
            if id(value) not in kept:
                kept[id(value)] = value.detach().clone()
                self._watch(kept[id(value)], value)
            self._averaged[name] = kept[id(value)]

    def _watch(self, old: Tensor, new: Tensor) -> None:
        """Average a parameter; take over a buffer, or a tensor of whole numbers, as it is."""
        if isinstance(new, nn.Parameter) and new.is_floating_point():
            self._old.append(old)
            self._new.append(new.detach())
        else:
            self._rest.append((old, new.detach()))

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        self.updates += 1
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self._old, self._new, 1 - decay)
        self._take_over()

    @torch.no_grad()
    def _take_over(self) -> None:
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
        """The averaged state dict; what has no average is as the module has it."""
        self._take_over()
        return self._averaged

    def state_dict(self) -> dict[str, int]:
        """The number of updates; the weights have a file of their own."""
        return {"updates": self.updates}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from `state_dict()`."""
        self.updates = state["updates"]

    def load(self, weights: Mapping[str, Tensor] | None) -> None:
        """Go on from stored weights; without them the average begins at the module's present ones."""
        for name, value in (weights or self._module.state_dict()).items():
            self._averaged[name].copy_(value)

    def carry(self, former: "NoAverage | Average", transfer: Transfer, sharding: Sharding) -> None:
        """Go on with the average of a network that has grown into this one; what is new begins at present weights.

        Call it when the module has the weights that the same transfer gave it.
        """
        averaged = sharding.whole(former.weights())
        if averaged is not None:
            own = sharding.whole(self._averaged)
            transfer.write(averaged, own)
            self.load({name: sharding.parted(value, self._averaged[name]) for name, value in own.items()})
        self.updates = former.updates


def evaluated_weights(module: nn.Module, decay: float | None, slots: Sequence[Slot]) -> NoAverage | Average:
    """What a run with these optimizers evaluates, with `train.ema_decay` or None.

    Raises ConfigError where both have weights of their own for that.
    """
    own = [slot for slot in slots if slot.has_modes]
    if not own:
        return NoAverage() if decay is None else Average(module, decay)
    if decay is None:
        return OptimizersOwn(module, own)
    raise ConfigError(
        f"train.ema_decay must be off with {type(own[0].optimizer).__name__}, which has an average of its own to be "
        f"evaluated."
    )


def not_finite(task: nn.Module) -> str | None:
    """The name of the first weight that is trained and not finite; None where all are.

    Buffers are not asked: a mask may hold infinities. It waits for an accelerator once.
    """
    trained = {name: local([weight.detach()])[0] for name, weight in task.named_parameters() if weight.requires_grad}
    finite = torch.ones((), dtype=torch.bool)
    for weight in trained.values():
        finite = finite.to(weight.device) & weight.isfinite().all()
    return None if finite else next(filterfalse(lambda name: trained[name].isfinite().all(), trained))
