"""What a step returned, as named terms in one form."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from etude.base.errors import ConfigError
from etude.model.loss import Loss
from etude.train.task import StepOutput, Task

TOTAL = "loss"
"""The name of the term of a step that returned one loss without a name."""


@dataclass(frozen=True, slots=True)
class Term:
    """One named term of one batch."""

    name: str
    value: Tensor
    """The sum over `count`, or the mean where `is_mean`: a bare tensor keeps its bits when it is used alone."""
    count: float | Tensor
    weight: float = 1.0
    is_mean: bool = False

    @property
    def sum(self) -> Tensor:
        """The term summed over its targets."""
        return self.value * self.count if self.is_mean else self.value


def read_terms(returned: Any, count_samples: Callable[[], int | None]) -> tuple[Term, ...]:
    """The terms of what `training_step` or `validation_step` returned.

    A bare tensor is a mean over the batch, weighted by `count_samples()`, or by 1 where that is not known.
    """
    if isinstance(returned, StepOutput):
        returned = returned.loss
    if isinstance(returned, Loss):
        return (_counted(TOTAL, returned),)
    if isinstance(returned, Tensor):
        if returned.ndim:
            raise ConfigError(
                f"A step must return a scalar loss, but returned a tensor of shape {tuple(returned.shape)}; "
                f"take its mean, or return Loss(sum, count)."
            )
        return (Term(TOTAL, returned, count_samples() or 1, is_mean=True),)
    if isinstance(returned, Mapping) and returned:
        return tuple(_named(name, loss, count_samples) for name, loss in returned.items())
    raise ConfigError(
        f"A step must return a tensor, a Loss, a mapping of named losses, or a StepOutput, "
        f"but returned {_shown(returned)}."
    )


def _named(name: str, loss: Any, count_samples: Callable[[], int | None]) -> Term:
    if isinstance(loss, Loss):
        return _counted(str(name), loss)
    if isinstance(loss, Tensor) and not loss.ndim:
        return Term(str(name), loss, count_samples() or 1, is_mean=True)
    raise ConfigError(f"The loss {name!r} of a step must be a Loss or a scalar tensor, but is {_shown(loss)}.")


def _counted(name: str, loss: Loss) -> Term:
    total = loss.sum
    if not isinstance(total, Tensor) or total.ndim:
        raise ConfigError(f"The sum of the loss {name!r} must be a scalar tensor, but is {_shown(total)}.")
    return Term(name, total, _on_host(loss.count), loss.weight)


def _shown(returned: Any) -> str:
    """What was returned, with the slip that most often leads there."""
    if returned is None:
        return "None; is its return statement missing?"
    if isinstance(returned, Tensor):
        return f"a tensor of shape {tuple(returned.shape)}"
    if isinstance(returned, float):
        return "float; return the tensor itself, not its .item()"
    return "an empty mapping" if isinstance(returned, Mapping) and not returned else type(returned).__name__


class Weigher:
    """How many samples a batch's mean loss stands for; said once where the task cannot tell."""

    def __init__(self, task: Task, say: Callable[[str], None]) -> None:
        self._task = task
        self._say: Callable[[str], None] | None = say

    def __call__(self, batch: Any) -> int | None:
        """The samples of `batch`, or None."""
        count = self._task.batch_size(batch)
        if count is None and self._say is not None:
            self._say(
                "How many samples a batch holds is not known, so the mean loss of every batch counts alike; define "
                "batch_size(batch), or return Loss(sum, count)."
            )
            self._say = None
        return count


def inverse(count: float | Tensor) -> float | Tensor:
    """One over `count`, and zero where there is nothing to average."""
    if isinstance(count, Tensor):
        return (count > 0).to(count.dtype if count.is_floating_point() else None) / count.clamp(min=1e-12)
    return 1.0 / count if count > 0 else 0.0


def _on_host(count: float | Tensor) -> float | Tensor:
    """A count that lies in this memory as a number; one on an accelerator stays there, unread."""
    return count.item() if isinstance(count, Tensor) and count.device.type == "cpu" else count
