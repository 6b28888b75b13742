"""Terms of a loss that depend on the parameters alone: L2 and L1."""

from collections.abc import Iterable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from etude.base.config.components import Imported, component
from etude.base.config.fields import Switch
from etude.base.config.section import Section
from etude.model.exact import exact
from etude.model.loss import Loss
from etude.model.rates import Weight


class L2Config(Section):
    """`type = "l2"`: the sum of the squares of parameters."""

    type: Literal["l2"] = "l2"
    weight: Weight
    """Factor in the loss; half of it is what weight decay in plain SGD would be. 0 only logs the term."""
    match: Switch[str | Annotated[list[str], Field(min_length=1)]] = None
    """Parameters by name pattern, one or a list; what weight decay acts on unless given."""


class L1Config(Section):
    """`type = "l1"`: the sum of the absolute values of parameters."""

    type: Literal["l1"] = "l1"
    weight: Weight
    """Factor in the loss. 0 only logs the term."""
    match: Switch[str | Annotated[list[str], Field(min_length=1)]] = None
    """Parameters by name pattern, one or a list; what weight decay acts on unless given."""


class ImportedTerm(Imported):
    """A term of the user's: called with the task, it gives a scalar tensor or a Loss; once a step."""

    weight: Weight = 1.0
    """Factor in the loss. 0 only logs the term."""


TERMS: dict[str, type[Section]] = {"l2": L2Config, "l1": L1Config}
TermConfig = Annotated[L2Config | L1Config | ImportedTerm, component(TERMS, imported=ImportedTerm)]


def l2(parameters: Iterable[Tensor], weight: float = 1.0) -> Loss:
    """The sum of squares over all elements of `parameters`, any shapes: sum_i w_i^2, of count 1, in float32.

    Its gradient is 2 w, so that plain SGD with `weight` w decays as with a weight decay of 2 w (Krogh and Hertz 1991,
    "A Simple Weight Decay Can Improve Generalization").

    >>> float(l2([torch.tensor([3.0, -4.0])]).value)
    25.0
    """
    return Loss(_summed([exact(p).square().sum() for p in parameters]), 1, weight)


def l1(parameters: Iterable[Tensor], weight: float = 1.0) -> Loss:
    """The sum of absolute values over all elements of `parameters`, any shapes: sum_i |w_i|, of count 1, in float32.

    Its gradient is the sign, and 0 at 0 (Tibshirani 1996, "Regression Shrinkage and Selection via the Lasso").

    >>> float(l1([torch.tensor([3.0, -4.0])]).value)
    7.0
    """
    return Loss(_summed([exact(p).abs().sum() for p in parameters]), 1, weight)


def _summed(parts: list[Tensor]) -> Tensor:
    if not parts:
        return torch.zeros(())
    return torch.stack([part.to(parts[0].device) for part in parts]).sum()
