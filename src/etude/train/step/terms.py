"""What a step returned, as named terms in one form."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

from etude.base.errors import ConfigError
from etude.data.nest import tensors
from etude.model.loss import Loss, Mean
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
    targets: float | Tensor | None = None
    """The number of targets, where the count is the sum of their weights."""

    @property
    def learns(self) -> bool:
        """Whether there is anything to differentiate."""
        return self.weight != 0 and self.value.requires_grad

    @property
    def sum(self) -> Tensor:
        """The term summed over its targets."""
        return self.value * self.count if self.is_mean else self.value


def read_terms(returned: object, count_samples: Callable[[], int | None]) -> tuple[Term, ...]:
    """The terms of what `training_step` or `validation_step` returned.

    A bare tensor is a mean over the batch, weighted by `count_samples()`, or by 1 where that is not known.
    """
    if isinstance(returned, StepOutput):
        returned = returned.loss
    match returned:
        case Loss() | Mean():
            return (_counted(TOTAL, returned),)
        case Tensor() if not returned.ndim:
            return (Term(TOTAL, _real(TOTAL, returned), count_samples() or 1, is_mean=True),)
        case Tensor():
            raise ConfigError(
                f"A step must return a scalar loss, but returned a tensor of shape {tuple(returned.shape)}; "
                f"take its mean, or return Loss(sum, count)."
            )
        case Mapping() if returned:
            return tuple([_named(str(name), loss, count_samples) for name, loss in returned.items()])
    raise ConfigError(
        f"A step must return a tensor, a Loss, a mapping of named losses, or a StepOutput, "
        f"but returned {_shown(returned)}."
    )


def _named(name: str, loss: object, count_samples: Callable[[], int | None]) -> Term:
    match loss:
        case Loss() | Mean():
            return _counted(name, loss)
        case Tensor() if not loss.ndim:
            return Term(name, _real(name, loss), count_samples() or 1, is_mean=True)
    raise ConfigError(f"The loss {name!r} of a step must be a Loss or a scalar tensor, but is {_shown(loss)}.")


def _counted(name: str, loss: Loss | Mean) -> Term:
    match loss:
        case Loss(sum=Tensor(ndim=0) as total) | Mean(value=Tensor(ndim=0) as total):
            is_mean = isinstance(loss, Mean)
            count = _counting(name, loss.count)
            return Term(name, _real(name, total), count, loss.weight, is_mean, targets=loss.targets)
    raise ConfigError(f"The sum of the loss {name!r} must be a scalar tensor, but is {_shown(loss.sum)}.")


def _shown(returned: object) -> str:
    """What was returned, with the slip that most often leads there."""
    match returned:
        case None:
            return "None; is its return statement missing?"
        case Tensor():
            return f"a tensor of shape {tuple(returned.shape)}"
        case float():
            return "float; return the tensor itself, not its .item()"
        case Mapping() if not returned:
            return "an empty mapping"
    return type(returned).__name__


class ExtraTerm(Protocol):
    """A term of the loss that depends on the task alone, as L2 does."""

    @property
    def name(self) -> str:
        """The name it is logged under."""

    def __call__(self, task: Task) -> Loss:
        """The term, its present weight included."""


class Weigher:
    """How many samples a batch's mean loss stands for; it says once where that is not known, or may not be so."""

    def __init__(self, task: Task, say: Callable[[str], None]) -> None:
        self._task = task
        self._say: Callable[[str], None] | None = say
        self._last: tuple[tuple[int, ...], ...] | None = None
        """The shapes of the last batch, without the samples."""

    def __call__(self, batch: object) -> int | None:
        """The samples of `batch`, or None."""
        count = self._task.batch_size(batch)
        if self._say is not None:
            self._judge(batch, count, self._say)
        return count

    def _judge(self, batch: object, count: int | None, say: Callable[[str], None]) -> None:
        """Say, once, what the weight of a batch may be wrong by: from the second batch on, which may differ."""
        found = list(tensors(batch))
        before, self._last = self._last, tuple([tuple(tensor.shape[1:]) for tensor in found])
        if count is None:
            self._tell(_UNKNOWN, say)
        elif before is not None and self._differs(before, found):
            self._tell(_DOUBTFUL, say)

    def _differs(self, before: object, found: Sequence[Tensor]) -> bool:
        """Whether batches may differ in more than their samples."""
        return before != self._last or any(map(_holds_tokens, found))

    def _tell(self, told: str, say: Callable[[str], None]) -> None:
        say(told)
        self._say = None


_UNKNOWN = (
    "The number of samples in a batch is unknown, so the mean loss of every batch counts equally; define "
    "batch_size(batch), or return Loss(sum, count)."
)
_DOUBTFUL = (
    "The loss of a batch is a mean, and is weighted by the number of samples in the batch. If it is a mean over "
    "tokens, or over anything else whose number differs between batches of as many samples, return Loss(sum, count)."
)


def _holds_tokens(tensor: Tensor) -> bool:
    """Whether it may hold padded sequences of tokens, whose number its shape does not tell."""
    return tensor.ndim == 2 and not tensor.is_floating_point()  # noqa: PLR2004 - samples and time


def inverse(count: float | Tensor) -> float | Tensor:
    """One over `count`, and zero where there is nothing to average."""
    if isinstance(count, Tensor):
        return (count > 0).to(count.dtype if count.is_floating_point() else None) / count.clamp(min=1e-12)
    return 1.0 / count if count > 0 else 0.0


def _real(name: str, value: Tensor) -> Tensor:
    """The value of a term, which can be minimised. Raises ConfigError for a complex one."""
    if value.is_complex():
        raise ConfigError(f"The loss {name!r} must be a real number, but is complex; take its abs(), or its real part.")
    return value


def _counting(name: str, count: object) -> float | Tensor:
    """A count that lies in this memory as a number; one on an accelerator stays there, unread.

    Raises ConfigError for what is no count.
    """
    match count:
        case Tensor(ndim=0) if count.device.type != "cpu":
            return count
        case Tensor(ndim=0):
            count = count.item()
    try:
        fits = 0 <= count < math.inf  # type: ignore[operator]  # the TypeError is caught
    except (TypeError, RuntimeError):
        fits = False
    if not fits:
        raise ConfigError(f"The count of the loss {name!r} must be a number from 0 on, but is {count!r}.")
    return count  # type: ignore[return-value]  # it has been compared with numbers


def weighted(terms: tuple[Term, ...], weights: Mapping[str, float]) -> tuple[Term, ...]:
    """The terms with the weights that a config gives by name in the place of their own."""
    return tuple([replace(term, weight=weights.get(term.name, term.weight)) for term in terms])


def uncounted(term: Term) -> Term:
    """The same term, of which nothing counts; its gradient is zero."""
    return replace(term, value=term.value * 0, count=0, targets=None if term.targets is None else 0)


class NameCheck:
    """Finds, once every optimizer of the run has computed a loss, the names that a config gives in vain.

    `weights` are those of `[loss.weights]`, `extra` the names of `[loss.terms]`, `optimizers` those of the run.
    """

    def __init__(self, weights: Iterable[str], extra: Iterable[str], optimizers: Iterable[str]) -> None:
        self._weights = list(weights)
        self._extra = list(extra)
        self._awaited = set(optimizers) if self._weights or self._extra else set()
        self._returned: dict[str, None] = {}

    def see(self, optimizer: str, returned: Iterable[str]) -> None:
        """Take in the names of the terms that a step returned for `optimizer`.

        Raises ConfigError for a weight of none of them, and for a further term that is called like one of them.
        """
        if not self._awaited:
            return
        self._awaited.discard(optimizer)
        self._returned |= dict.fromkeys(returned)
        self._check_extra()
        if not self._awaited:
            self._check_weights()

    def _check_extra(self) -> None:
        for name in self._extra:
            if name in self._returned:
                raise ConfigError(
                    f"loss.terms.{name} must have another name: the task's step returns a term of this name."
                )

    def _check_weights(self) -> None:
        for name in self._weights:
            if name not in self._returned:
                raise ConfigError(
                    f"loss.weights.{name} matches no term: the task's step returns "
                    f"{', '.join(self._returned)}. Take one of those names, or leave it out."
                )
