"""One pass over a split: every sample once, metrics weighted by their counts."""

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from etude.base.errors import DataError
from etude.base.randomness import seed_of
from etude.data.feeds.feed import Delivery
from etude.data.nest import move
from etude.train.step.terms import TOTAL, read_terms
from etude.train.task import StepOutput, Task
from etude.train.watch.metrics import ScalarLog, adapt, computed, prefixed

NAMES = {"val": "validation"}
"""What a message calls a split."""


def evaluate(  # noqa: PLR0913 - what a pass needs, one for one
    task: Task,
    deliveries: Iterable[Delivery],
    step: Callable[[Any], Any],
    *,
    prefix: str,
    device: torch.device,
    seed: int = 1,
    weigh: Callable[[Any], int | None] | None = None,
    before: Callable[[Any], None] = lambda _: None,
    after: Callable[[Any, Any], None] = lambda *_: None,
) -> dict[str, float]:
    """Run `step` (a task's validation_step or test_step) over `deliveries` and return the metrics by `prefix/name`.

    The task is put into `eval` mode and back; every generator of random numbers is left as it was found. `weigh`
    counts the samples of a batch whose loss is a mean (the task's own `batch_size`, unless given). `before` is told of
    each batch, `after` of the batch and what the step gave as `outputs`. Raises DataError where there is no batch.
    """
    weigh = weigh or task.batch_size
    sums, scalars = ScalarLog(), ScalarLog()
    weights: dict[str, float] = {}
    found = False
    given = task.configure_metrics()
    metrics = {name: adapt(metric, device) for name, metric in given.items()}
    for metric in metrics.values():
        metric.reset()
    with undisturbed(seed), evaluating(task), torch.no_grad():
        task.metrics, task._scalars = given, scalars  # noqa: SLF001 - the loop is the task's other half
        for delivery in deliveries:
            found = True
            batch = move(delivery.batch, device, non_blocking=True)
            before(batch)
            returned = step(batch)
            for term in read_terms(returned, lambda batch=batch: weigh(batch)):  # type: ignore[misc]
                sums.add_sum(term.name, term.sum.detach(), term.count)
                weights[term.name] = term.weight
            after(batch, returned.outputs if isinstance(returned, StepOutput) else None)
        task._scalars = None  # noqa: SLF001
    if not found:
        raise DataError(f"The {NAMES.get(prefix, prefix)} data holds no batch.")
    values = sums.read()
    active = {name: value * weights[name] for name, value in values.items() if weights[name]}
    result = scalars.read()  # what the step returned counts beside a scalar logged under the same name
    result |= {name: value for name, value in values.items() if name != TOTAL or not active}
    if active:
        result[TOTAL] = sum(active.values())
    result.update(computed(metrics))
    return {prefixed(prefix, name): value for name, value in result.items()}


@contextmanager
def evaluating(task: Task) -> Iterator[None]:
    """Put every module into `eval` mode inside the block, and back into its own."""
    modes = [(module, module.training) for module in task.modules()]
    task.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def undisturbed(seed: int) -> Iterator[None]:
    """Seed every global generator inside the block, and leave each as it was found."""
    kept = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002 - users' code may draw from it
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() and torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed_of(seed, "evaluation"))
        try:
            yield
        finally:
            torch.set_rng_state(kept[0])
            random.setstate(kept[1])
            np.random.set_state(kept[2])  # noqa: NPY002
