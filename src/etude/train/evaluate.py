"""One pass over a split: every sample once, metrics weighted by their counts."""

import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from torch import nn

from etude.base.errors import DataError
from etude.base.randomness import seed_of
from etude.data.feeds.feed import Delivery
from etude.data.nest import move
from etude.model.initialisers import seed_everything
from etude.train.optim.slot import Slot
from etude.train.step.failures import attempted
from etude.train.step.terms import TOTAL, Term, read_terms
from etude.train.task import StepOutput, Task
from etude.train.turns import InOrder, Turns
from etude.train.watch.metrics import Metric, ScalarLog, adapt, computed, prefixed
from etude.train.world import ALONE, World

Forward = Callable[[], AbstractContextManager[object]]
"""Makes the context of one forward pass."""
NAMES = {"val": "validation"}
"""What a message calls a split."""


_NAMED = 5
"""How many names a sentence lists."""


def evaluate(  # noqa: PLR0913 - what a pass needs, one for one
    task: Task,
    deliveries: Iterable[Delivery],
    step: Callable[[object], object],
    *,
    prefix: str,
    device: torch.device,
    seed: int = 1,
    forward: Forward = nullcontext,
    weigh: Callable[[object], int | None] | None = None,
    before: Callable[[object], None] = lambda _: None,
    after: Callable[[object, object], None] = lambda *_: None,
    nothing: Callable[[], None] = lambda: None,
    world: World = ALONE,
    whole: bool = True,
) -> dict[str, float]:
    """Run `step` (a task's validation_step or test_step) over `deliveries` and return the metrics by `prefix/name`.

    The task is put into `eval` mode and back; every generator of random numbers is left as it was found. `forward` is
    the context of each step, such as a precision's (float32, unless given). `weigh` counts the samples of a batch
    whose loss is a mean (the task's own `batch_size`, unless given). `before` is told of each batch, `after` of the
    batch and what the step gave as `outputs`, `nothing` of a pass in which no target counted, which has no loss.
    Of several ranks in a `world` each is given the batches of its turns; every one takes in what all have found, in
    the order of the batches, as one process would; `whole` says whether `after` looks at what it is told. Raises
    DataError where there is no batch.
    """
    weigh = weigh or task.batch_size
    sums, scalars = _Sums(), ScalarLog()
    given = task.configure_metrics()
    metrics = {name: _begun(metric, device) for name, metric in given.items()}
    turns = InOrder(given, scalars) if world.size == 1 else Turns(world, metrics, device, whole=whole)
    with undisturbed(seed), evaluating(task), torch.no_grad():
        task.metrics, task._scalars = turns.metrics, turns.scalars  # noqa: SLF001 - the loop is the task's other half
        for delivery in turns.each(deliveries):
            if delivery is not None:
                batch = move(delivery.batch, device, non_blocking=True)
                before(batch)
                with forward():
                    returned = attempted(step, batch)
                turns.find(read_terms(returned, lambda batch=batch: weigh(batch)), batch, _outputs(returned))  # type: ignore[misc]
            for found in turns.shared():
                sums.add(found.terms)
                scalars.take_in(found.scalars)
                after(found.batch, found.outputs)
        task.metrics, task._scalars = given, None  # noqa: SLF001
    if not sums.found:
        raise DataError(f"The {NAMES.get(prefix, prefix)} data holds no batch.")
    if not sums.counted:
        nothing()
    # What the step returned counts beside a scalar logged under the same name.
    result = scalars.read() | sums.read() | computed(metrics)
    return _named(prefix, result)


def _outputs(returned: object) -> object:
    """What a step gave as outputs."""
    return returned.outputs if isinstance(returned, StepOutput) else None


def _named(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    return {prefixed(prefix, name): value for name, value in values.items()}


def _begun(metric: Metric, device: torch.device) -> Metric:
    """A metric on the device, that has seen nothing."""
    adapted = adapt(metric, device)
    adapted.reset()
    return adapted


def nothing_counted(split: str) -> str:
    """What is said of a pass over `split` in which no target counted."""
    return f"No target counted in the {NAMES.get(split, split)} data, so there is no loss: is all of it padding?"


class _Sums:
    """The terms of a loss over a pass."""

    def __init__(self) -> None:
        self.found = False
        """Whether there was a batch."""
        self._sums = ScalarLog()
        self._weights: dict[str, float] = {}

    @property
    def counted(self) -> bool:
        """Whether any term has targets."""
        return bool(self._sums.read())

    def add(self, terms: Iterable[Term]) -> None:
        """Take in one batch's."""
        self.found = True
        for term in terms:
            self._sums.add_sum(term.name, term.sum.detach(), term.count)
            self._weights[term.name] = term.weight

    def read(self) -> dict[str, float]:
        """Each term over its count, and their weighted sum as the loss."""
        values = self._sums.read()
        active = [value * self._weights[name] for name, value in values.items() if self._weights[name]]
        if active:
            values.pop(TOTAL, None)
            values[TOTAL] = sum(active)
        return values


@contextmanager
def evaluating(task: nn.Module) -> Iterator[None]:
    """Put every module into `eval` mode inside the block, and back into its own."""
    modes = [(module, module.training) for module in task.modules()]
    task.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def train(task: nn.Module, slots: Iterable[Slot], say: Callable[[str], None]) -> None:
    """Put a task and its optimizers into `train` mode.

    Parts of the task that are in `eval` mode while itself is not stay so, and it is said.
    """
    for slot in slots:
        slot.train()
    kept = _evaluated_parts(task) if task.training else {}
    task.train()
    for module in kept.values():
        module.training = False
    if kept:
        say(_kept(kept))


def _evaluated_parts(task: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in task.named_modules() if not module.training}


def _kept(names: Collection[str]) -> str:
    """What is said of parts in `eval` mode; of those inside others the outermost are named."""
    outer = [name for name in names if name.rpartition(".")[0] not in names]
    named = [*outer[:_NAMED], "..."] if len(outer) > _NAMED else outer
    return (
        f"Parts of the task that are in eval mode stay so, without dropout and with the statistics that they have: "
        f"{', '.join(named)}. Call train() on what is not to."
    )


def _devices_in_use() -> Sequence[int]:
    """The GPUs, where this process has begun to use them."""
    return range(torch.cuda.device_count()) if torch.cuda.is_available() and torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]


@contextmanager
def undisturbed(seed: int) -> Iterator[None]:
    """Seed every global generator inside the block, and leave each as it was found."""
    kept = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002 - users' code may draw from it
    with torch.random.fork_rng(devices=_devices_in_use()):
        seed_everything(seed_of(seed, "evaluation"))
        try:
            yield
        finally:
            torch.set_rng_state(kept[0])
            random.setstate(kept[1])
            np.random.set_state(kept[2])  # noqa: NPY002
