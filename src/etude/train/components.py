"""The parts of a run that may have events of their own: task, model, loss, data, optimizers, schedules, loggers."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from etude.train.optim.slot import Slot

MOST = 8
"""How many datasets may be wrapped in one another."""


def components(
    task: nn.Module,
    data: Mapping[str, object],
    *,
    slots: Iterable[Slot] = (),
    schedules: Iterable[object] = (),
    others: Iterable[object] = (),
) -> Iterator[Any]:
    """The parts, in that order; the same one may come twice."""
    yield from task.modules()
    # A loss or model that is no module lies beside the task's modules.
    yield from (part for name in ("model", "loss") if (part := vars(task).get(name)) is not None)
    for given in data.values():
        yield from _sources(given)
    for slot in slots:
        yield from _parts_of(slot)
    yield from schedules
    yield from others


def _parts_of(slot: Slot) -> Iterator[Any]:
    """An optimizer, and what sets its rates."""
    yield slot.optimizer
    yield slot._scheduler  # noqa: SLF001 - nobody else asks for it
    yield from (schedule for _, _, schedule in slot._rates)  # noqa: SLF001


def _sources(data: object) -> Iterator[Any]:
    """Data, and what it is made of: a loader's samplers and collation, the datasets that wrap one another."""
    yield data
    if isinstance(data, DataLoader):
        yield from (data.batch_sampler, data.sampler, data.collate_fn)
    for _ in range(MOST):
        match data:
            case object(dataset=inner) if inner is not None:
                yield inner
                data = inner
            case _:
                return
