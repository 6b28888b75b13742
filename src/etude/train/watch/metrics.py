"""Metrics that can be merged, and scalars averaged by their counts."""

from collections.abc import Mapping
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from etude.base.errors import ConfigError


@runtime_checkable
class Metric(Protocol):
    """Anything that is updated batch by batch, merged over ranks, and computed once at the end of a pass."""

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Take in one batch."""

    def merge(self, other: Self) -> None:
        """Take in what `other` has seen."""

    def compute(self) -> Any:
        """A number, or a mapping of names to numbers."""

    def reset(self) -> None:
        """Forget all that was seen."""


@runtime_checkable
class Merges(Protocol):
    """What a `torchmetrics.Metric` has, whose `merge` has another name."""

    def update(self, *args: object, **kwargs: object) -> None:
        """Take in one batch."""

    def merge_state(self, other: object) -> None:
        """Take in what `other` has seen."""

    def compute(self) -> Any:
        """Its value."""

    def reset(self) -> None:
        """Forget all that was seen."""


@runtime_checkable
class Movable(Protocol):
    """What can be brought to a device."""

    def to(self, device: torch.device) -> object:
        """Bring it there."""


class TorchMetric:
    """A `torchmetrics.Metric` with the words of `Metric`."""

    def __init__(self, metric: Merges) -> None:
        self.metric = metric

    def update(self, *args: object, **kwargs: object) -> None:
        """Take in one batch."""
        self.metric.update(*args, **kwargs)

    def merge(self, other: "TorchMetric") -> None:
        """Take in what `other` has seen."""
        self.metric.merge_state(other.metric)

    def compute(self) -> Any:
        """The metric's value."""
        return self.metric.compute()

    def reset(self) -> None:
        """Forget all that was seen."""
        self.metric.reset()


def adapt(metric: Metric | Merges, device: torch.device | None = None) -> Metric:
    """`metric` itself, or a torchmetrics one behind our words, on `device`."""
    if device is not None and isinstance(metric, Movable):
        metric.to(device)
    if isinstance(metric, Merges) and not isinstance(metric, Metric):
        return TorchMetric(metric)
    return metric


Sums = dict[str, tuple[float | Tensor, float | Tensor]]
"""By name: sum and count."""


class ScalarLog:
    """Named scalars summed with their counts; tensors stay where they are until `read`."""

    def __init__(self) -> None:
        self._sums: Sums = {}

    def add(self, name: str, value: float | Tensor, count: float | Tensor = 1) -> None:
        """Add a mean over `count`."""
        value = value.detach() if isinstance(value, Tensor) else value
        self.add_sum(name, value * count, count)

    def add_sum(self, name: str, total: float | Tensor, count: float | Tensor) -> None:
        """Add a sum over `count`."""
        before = self._sums.get(name)
        self._sums[name] = (total, count) if before is None else (before[0] + total, before[1] + count)

    def take_in(self, sums: Sums) -> None:
        """Add what another has summed."""
        for name, (total, count) in sums.items():
            self.add_sum(name, total, count)

    def mark(self) -> Sums:
        """What was added so far, for `go_back`."""
        return dict(self._sums)

    def go_back(self, mark: Sums) -> None:
        """Forget what was added since the mark."""
        self._sums = dict(mark)

    def clear(self) -> None:
        """Forget all."""
        self._sums.clear()

    def read(self) -> dict[str, float]:
        """Mean by name; a name whose count is zero has no value and is left out."""
        return {
            name: _number(name, total) / float(count) for name, (total, count) in self._sums.items() if float(count)
        }


def computed(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """The value of every metric; one that computes a mapping gives a value a name."""
    values: dict[str, float] = {}
    for name, metric in metrics.items():
        value = metric.compute()
        parts = value.items() if isinstance(value, Mapping) else [(name, value)]
        values.update({str(key): _number(str(key), part) for key, part in parts})
    return values


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        shape = f" of shape {tuple(value.shape)}" if hasattr(value, "shape") else ""
        raise ConfigError(
            f"The value of {name!r} must be one number, but is a {type(value).__name__}{shape}; average it first, or "
            f"give a mapping of names to numbers."
        ) from None


def prefixed(prefix: str, name: str) -> str:
    """The name under which a scalar of a step is logged: `train/x` for `x`, and for `train/x` itself."""
    return name if name.startswith(f"{prefix}/") else f"{prefix}/{name}"
