"""Terms of the loss that are functions of the task alone: once a step, however many batches it has."""

from collections.abc import Callable, Iterable, Sequence
from itertools import filterfalse
from typing import final

import torch
from torch import Tensor, nn

from etude.base.errors import ConfigError
from etude.model.loss import Loss
from etude.train.optim.freezing import found
from etude.train.optim.grouping import undecayed
from etude.train.task import Task

Penalty = Callable[[Iterable[Tensor]], Loss]
"""L2, L1, or what else is a sum over parameters."""


@final
class Regulariser:
    """A named function of the task as a term of the loss; `weight` may be set between steps.

    The function gives a scalar tensor, which counts once, or a `Loss`. With weight 0 it is computed without a graph,
    so that it is logged and costs no backward.
    """

    def __init__(self, name: str, measure: Callable[[Task], object], weight: float = 1.0) -> None:
        self.name = name
        self.weight = weight
        self._measure = measure

    def __call__(self, task: Task) -> Loss:
        """The term. Raises ConfigError where the function gives something else."""
        with torch.set_grad_enabled(self.weight != 0 and torch.is_grad_enabled()):
            measured = self._measure(task)
        match measured:
            case Loss(sum=Tensor(ndim=0)):
                return Loss(measured.sum, measured.count, measured.weight * self.weight)
            case Tensor(ndim=0):
                return Loss(measured, 1, self.weight)
            case Tensor(shape=shape) | Loss(sum=Tensor(shape=shape)):
                kind = f"a tensor of shape {tuple(shape)}"
            case Loss(sum=other) | other:
                kind = type(other).__name__
        raise ConfigError(f"loss.terms.{self.name} must give a scalar tensor or a Loss, but gives {kind}.")


@final
class OfParameters:
    """A penalty on chosen parameters, those of them that are trained at the moment.

    A parameter that is frozen adds nothing; of several optimizers each has a penalty on its own parameters.
    """

    def __init__(self, penalty: Penalty, parameters: Sequence[nn.Parameter]) -> None:
        self._penalty = penalty
        self._parameters = parameters

    def __call__(self, task: object) -> Loss:
        """The penalty, of weight 1."""
        del task  # its parameters are the same objects for as long as it lives
        return self._penalty([p for p in self._parameters if p.requires_grad])


def chosen(task: nn.Module, patterns: Sequence[str] | None, key: str, *, decay_all: bool = False) -> list[nn.Parameter]:
    """The parameters that `patterns` mean; without patterns those that weight decay acts on.

    Raises ConfigError, naming `key`, for a pattern that means none.
    """
    if patterns is not None:
        return list(dict.fromkeys(p for pattern in patterns for p in found(task, pattern, key)))
    floating = filter(torch.is_floating_point, task.parameters())
    return list(floating if decay_all else filterfalse(undecayed(task).__contains__, floating))
