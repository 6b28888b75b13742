"""Metrics that are one sum over another, merged over batches and ranks: perplexity, bits per byte, accuracy."""

import math
from typing import Self, final

from torch import Tensor

LARGEST_EXPONENT = 709.0
"""exp of more is beyond a float."""


class _Ratio:
    """One sum over another; both stay on the device until `compute`."""

    def __init__(self) -> None:
        self._sum: Tensor | float = 0.0
        self._count: Tensor | float = 0.0

    def update(self, total: Tensor | float, count: Tensor | float) -> None:
        """Take in a sum, and what it is over."""
        self._sum = self._sum + (total.detach().double() if isinstance(total, Tensor) else total)
        self._count = self._count + count

    def merge(self, other: Self) -> None:
        """Take in what `other` has seen."""
        self.update(other._sum, other._count)

    def compute(self) -> float:
        """The ratio; NaN where nothing was seen."""
        count = float(self._count)
        return float(self._sum) / count if count else math.nan

    def reset(self) -> None:
        """Forget all that was seen."""
        self._sum, self._count = 0.0, 0.0


@final
class Perplexity(_Ratio):
    """exp of the mean loss in nats: `update` takes the loss summed over targets, and their number."""

    def compute(self) -> float:
        """The perplexity; NaN where nothing was seen, infinite beyond the range of numbers."""
        mean = super().compute()
        return math.inf if mean > LARGEST_EXPONENT else math.exp(mean)


@final
class Accuracy(_Ratio):
    """The share of targets that were the likeliest token."""


@final
class BitsPerByte(_Ratio):
    """The loss of a text in bits for each of its bytes in UTF-8: comparable across tokenizers.

    `update` takes the loss summed in nats, and the bytes that its targets stand for.

    >>> metric = BitsPerByte()
    >>> metric.update(math.log(2) * 24, 8.0)
    >>> round(metric.compute(), 6)
    3.0
    """

    def compute(self) -> float:
        """Bits a byte; NaN where nothing was seen."""
        return super().compute() / math.log(2)
