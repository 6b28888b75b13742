"""`[loss]` of tasks that predict labels or numbers of whole samples."""

from typing import Literal

from pydantic import Field

from etude.base.config.fields import Switch
from etude.model.losses.config import LossSection


class FocalConfig(LossSection):
    """`type = "focal"`: the cross entropy, less of what is predicted well already (Lin et al. 2017)."""

    type: Literal["focal"] = "focal"
    gamma: float = Field(2.0, ge=0.0)
    """Power of the probability that is not given to what is true; 0 makes it the cross entropy."""
    alpha: Switch[float] = Field(None, gt=0.0, lt=1.0)
    """With several labels a sample: weight of labels that are there; those that are not have 1 - alpha."""


class BinaryCrossEntropyConfig(LossSection):
    """`type = "binary_cross_entropy"`: of each label, there or not, in nats."""

    type: Literal["binary_cross_entropy"] = "binary_cross_entropy"
    pos_weight: Switch[Literal["balanced"] | float | dict[str, float]] = None
    """Weight of labels that are there: a number, a table by label, or balanced: samples without over samples with."""


class MeanAbsoluteErrorConfig(LossSection):
    """`type = "mae"`: absolute error, averaged over all elements."""

    type: Literal["mae"] = "mae"


class HuberConfig(LossSection):
    """`type = "huber"`: squared near the target, absolute farther away (Huber 1964)."""

    type: Literal["huber"] = "huber"
    delta: float = Field(1.0, gt=0.0)
    """Where it changes, in standard deviations of the target."""


class ConcordanceConfig(LossSection):
    """`type = "ccc"`: 1 - the concordance correlation coefficient of a batch, averaged over targets (Lin 1989)."""

    type: Literal["ccc"] = "ccc"


SAMPLE_LOSSES: dict[str, type[LossSection]] = {
    "focal": FocalConfig,
    "binary_cross_entropy": BinaryCrossEntropyConfig,
    "mae": MeanAbsoluteErrorConfig,
    "huber": HuberConfig,
    "ccc": ConcordanceConfig,
}
"""By the name that `loss.type` takes."""
