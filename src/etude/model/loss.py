"""What a step minimises: a sum, or a mean, and the count that it is over."""

from dataclasses import dataclass
from typing import Self

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Loss:
    """One term of a loss, kept as a sum and a count so that it can be averaged over any set of batches.

    Over a step the value of a term is its sum of sums over its sum of counts, times `weight`; terms then add up.
    """

    sum: Tensor
    """Scalar tensor: the loss summed over `count` targets, with its graph."""
    count: int | float | Tensor
    """How many targets the sum is over; zero contributes nothing."""
    weight: float = 1.0
    """Factor of the term in the total; 0 means evaluation only and costs no backward."""
    targets: int | float | Tensor | None = None
    """The number of targets, where the count is the sum of their weights."""

    @classmethod
    def mean(
        cls,
        value: Tensor,
        count: float | Tensor,
        weight: float = 1.0,
        *,
        targets: float | Tensor | None = None,
    ) -> Self:
        """The term whose mean over `count` targets is `value`."""
        return cls(value * count, count, weight, targets)

    @property
    def value(self) -> Tensor:
        """The mean: `sum / count`, and 0 where there are no targets."""
        return (
            self.sum / max(self.count, 1) if not isinstance(self.count, Tensor) else self.sum / self.count.clamp(min=1)
        )


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean and what it is over: a term that keeps its bits in a step of one batch, which a sum divided again may not.

    Of several batches it is the sum `value * count` over the count.
    """

    value: Tensor
    """Scalar tensor, with its graph; 0 where the count is."""
    count: int | float | Tensor
    """What the mean was divided by."""
    weight: float = 1.0
    targets: int | float | Tensor | None = None
    """The number of targets, where the count is the sum of their weights."""

    @property
    def sum(self) -> Tensor:
        """The sum over all that was counted."""
        return self.value * self.count

    def as_loss(self) -> Loss:
        """The same as a sum and a count."""
        return Loss.mean(self.value, self.count, self.weight, targets=self.targets)
