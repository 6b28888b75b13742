"""Metrics of predicted numbers, as scikit-learn defines them, from moments in float64 that are merged exactly.

Legend: B batch, K targets; x what is predicted, y what is true.
"""

import math
from collections.abc import Callable, Sequence
from typing import Self, final

import torch
from torch import Tensor

MOMENTS = 8
"""Numbers that are kept of a target: n, means of x and y, their summed squares and product about these, errors."""


@final
class NumberMetrics:
    """Metrics of numbers: `NAME/TARGET` of each target and `NAME`, their mean; of one target the name alone.

    A target that is NaN is not counted. Moments are added up as Chan, Golub and LeVeque (1979) have it, which loses no
    digits where the mean is far from 0. `loss`, where given, makes the value `loss` of the moments of all targets.

    >>> metrics = NumberMetrics(["price"], ["mae", "r2"])
    >>> metrics.update(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[1.0], [2.0], [3.0]]))
    >>> {name: round(value, 4) for name, value in metrics.compute().items()}
    {'mae': 0.3333, 'r2': 0.7857}
    """

    def __init__(
        self, targets: Sequence[str], wanted: Sequence[str], loss: Callable[[Sequence[Tensor]], float] | None = None
    ) -> None:
        self._targets, self._wanted, self._loss = targets, wanted, loss
        self._moments_MK = torch.zeros(MOMENTS, len(targets), dtype=torch.float64)

    def update(self, true_BK: Tensor, predicted_BK: Tensor) -> None:
        """Take in the numbers of a batch, and those predicted."""
        self._add(_moments(predicted_BK.detach().cpu().double(), true_BK.detach().cpu().double()))

    def merge(self, other: Self) -> None:
        """Take in what `other` has seen."""
        self._add(other._moments_MK)

    def reset(self) -> None:
        """Forget all that was seen."""
        self._moments_MK = torch.zeros_like(self._moments_MK)

    def compute(self) -> dict[str, float]:
        """What is wanted, by name; NaN where it is not defined."""
        found: dict[str, float] = {}
        for name in self._wanted:
            values = [NUMBERS[name](moments) for moments in self._moments_MK.unbind(1)]
            found[name] = sum(values) / len(values)
            if len(values) > 1:
                found |= {f"{name}/{target}": value for target, value in zip(self._targets, values, strict=True)}
        if self._loss is not None:
            found["loss"] = self._loss(self._moments_MK.unbind(1))
        return found

    def _add(self, others_MK: Tensor) -> None:
        n_K, x_K, y_K, xx_K, yy_K, xy_K = self._moments_MK[:6]
        m_K, u_K, v_K, uu_K, vv_K, uv_K = others_MK[:6]
        all_K = (n_K + m_K).clamp(min=1)
        dx_K, dy_K, factor_K = u_K - x_K, v_K - y_K, n_K * m_K / all_K
        self._moments_MK = torch.stack(
            [
                n_K + m_K,
                x_K + dx_K * m_K / all_K,
                y_K + dy_K * m_K / all_K,
                xx_K + uu_K + dx_K.square() * factor_K,
                yy_K + vv_K + dy_K.square() * factor_K,
                xy_K + uv_K + dx_K * dy_K * factor_K,
                *(self._moments_MK[6:] + others_MK[6:]),
            ]
        )


def _moments(x_BK: Tensor, y_BK: Tensor) -> Tensor:
    """Those of a batch."""
    there_BK = ~y_BK.isnan()
    n_K = there_BK.sum(0).double()
    weights_BK = there_BK / n_K.clamp(min=1)
    x_BK, y_BK = x_BK.where(there_BK, 0.0), y_BK.where(there_BK, 0.0)
    x_K, y_K = (weights_BK * x_BK).sum(0), (weights_BK * y_BK).sum(0)
    dx_BK, dy_BK = (x_BK - x_K).where(there_BK, 0.0), (y_BK - y_K).where(there_BK, 0.0)
    errors_BK = x_BK - y_BK
    squares = dx_BK.square().sum(0), dy_BK.square().sum(0), (dx_BK * dy_BK).sum(0)
    return torch.stack([n_K, x_K, y_K, *squares, errors_BK.abs().sum(0), errors_BK.square().sum(0)])


def _over(total: float, count: float) -> float:
    return total / count if count else math.nan


def mse(moments: Tensor) -> float:
    """The mean squared error."""
    n, *_, squares = moments.tolist()
    return _over(squares, n)


def rmse(moments: Tensor) -> float:
    """Its square root."""
    return math.sqrt(mse(moments))


def mae(moments: Tensor) -> float:
    """The mean absolute error."""
    n, *_, errors, _ = moments.tolist()
    return _over(errors, n)


def r2(moments: Tensor) -> float:
    """The share of the variance of y that is explained, 1 - sum (y - x)^2 / sum (y - mean y)^2.

    Of targets that are all equal 1 where they are met exactly and else 0; NaN of fewer than two.
    """
    n, _, _, _, yy, _, _, squares = moments.tolist()
    if n < 2:  # noqa: PLR2004 - as scikit-learn has it
        return math.nan
    if not yy:
        return float(not squares)
    return 1 - float(squares / yy)


def ccc(moments: Tensor) -> float:
    """The concordance correlation coefficient, 2 cov(x, y) / (var x + var y + (mean x - mean y)^2) (Lin 1989)."""
    n, x, y, xx, yy, xy, *_ = moments.tolist()
    return _over(2 * xy, xx + yy + n * (x - y) ** 2)


def pearson(moments: Tensor) -> float:
    """Pearson's correlation coefficient, cov(x, y) / sqrt(var x var y)."""
    _, _, _, xx, yy, xy, *_ = moments.tolist()
    return _over(xy, math.sqrt(xx) * math.sqrt(yy))


NUMBERS: dict[str, Callable[[Tensor], float]] = {
    "mse": mse,
    "rmse": rmse,
    "mae": mae,
    "r2": r2,
    "ccc": ccc,
    "pearson": pearson,
}
"""By their names in `task.metrics`."""
