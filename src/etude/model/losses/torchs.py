"""Losses that are torch's or the user's own: called by one rule, and torch's counted as they divide.

A mean over what differs between batches, such as targets without padding, can be joined to the mean of other batches
only by what it was divided by. Of torch's losses that is known here; the mean itself is torch's, to the bit.

Legend: B batch, T time, V classes.
"""

from collections.abc import Callable, Mapping
from copy import copy
from functools import partial
from typing import Any, NamedTuple, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from etude.base.errors import ConfigError
from etude.model.exact import exact
from etude.model.loss import Loss, Mean

LossFunction = Callable[..., Any]
"""Takes logits and targets; gives a tensor, a `Loss`, or a mapping of losses."""
LossValue = Tensor | Loss | Mean | Mapping[str, Loss]


class Count(NamedTuple):
    """What a mean was divided by."""

    divisor: float | Tensor
    targets: float | Tensor | None = None
    """The number of targets, where the divisor is the sum of their weights."""


Counts = Mapping[str, Callable[[LossFunction, Any, Any], Count]]
"""By reduction: what a loss of torch's divides by, from the loss, its logits and its targets."""


def _classes(loss: LossFunction, logits: Tensor, targets: Tensor) -> Count:
    """The targets that are not ignored, or the sum of their classes' weights; all of those that are probabilities."""
    if targets.is_floating_point():
        return Count(logits.numel() // logits.shape[min(1, logits.ndim - 1)])
    counted = targets != _option(loss, "ignore_index", -100)
    weight = _option(loss, "weight", None)
    if weight is None:
        return Count(counted.sum())
    return Count((weight[targets.where(counted, 0)] * counted).sum(), counted.sum())


def _elements(loss: LossFunction, logits: Tensor, targets: Tensor) -> Count:
    """Every element, whatever its weight."""
    del loss
    return Count(logits.numel() if logits.shape == targets.shape else (logits.detach() - targets).numel())


def _weighted_elements(loss: LossFunction, logits: Tensor, targets: Tensor) -> Count:
    """Every element, or the sum of their weights."""
    plain = _elements(loss, logits, targets)
    weight = _option(loss, "weight", None)
    return plain if weight is None else Count(weight.sum(), plain.divisor)


def _rows(loss: LossFunction, logits: Tensor, targets: Tensor) -> Count:
    """Every row of classes."""
    del loss, targets
    return Count(logits.numel() // logits.shape[-1])


def _samples(loss: LossFunction, logits: Tensor, targets: Tensor) -> Count:
    """The first dimension."""
    del loss, targets
    return Count(logits.shape[0])


def _sequences(loss: LossFunction, logits: Tensor, targets: object) -> Count:
    """The sequences of CTC, [T, B, V]: each is divided by its own length first."""
    del loss, targets
    return Count(logits.shape[1] if logits.ndim > 2 else 1)  # noqa: PLR2004 - without a batch


_OF_CLASSES: Counts = {"mean": _classes}
_OF_ELEMENTS: Counts = {"mean": _elements}
_OF_ROWS: Counts = {"mean": _rows}
_OF_SEQUENCES: Counts = {"mean": _sequences}
_OF_DIVERGENCE: Counts = {"mean": _elements, "batchmean": _samples}
_NONE: Counts = {}
MODULES: Mapping[type, Counts] = {
    nn.CrossEntropyLoss: _OF_CLASSES,
    nn.NLLLoss: _OF_CLASSES,
    nn.BCELoss: _OF_ELEMENTS,
    nn.BCEWithLogitsLoss: _OF_ELEMENTS,
    nn.MSELoss: _OF_ELEMENTS,
    nn.L1Loss: _OF_ELEMENTS,
    nn.SmoothL1Loss: _OF_ELEMENTS,
    nn.HuberLoss: _OF_ELEMENTS,
    nn.SoftMarginLoss: _OF_ELEMENTS,
    nn.HingeEmbeddingLoss: _OF_ELEMENTS,
    nn.PoissonNLLLoss: _OF_ELEMENTS,
    nn.KLDivLoss: _OF_DIVERGENCE,
    nn.MultiMarginLoss: _OF_ROWS,
    nn.MultiLabelMarginLoss: _OF_ROWS,
    nn.MultiLabelSoftMarginLoss: _OF_ROWS,
    nn.CTCLoss: _OF_SEQUENCES,
}
_OLD_NAMES = {"size_average", "reduce"}
"""Arguments of torch's functions that replace `reduction`, and are on their way out."""
FUNCTIONS: Mapping[object, Counts] = {
    F.cross_entropy: _OF_CLASSES,
    F.nll_loss: _OF_CLASSES,
    F.binary_cross_entropy: _OF_ELEMENTS,
    F.binary_cross_entropy_with_logits: _OF_ELEMENTS,
    F.mse_loss: {"mean": _weighted_elements},
    F.l1_loss: {"mean": _weighted_elements},
    F.smooth_l1_loss: _OF_ELEMENTS,
    F.huber_loss: _OF_ELEMENTS,
    F.soft_margin_loss: _OF_ELEMENTS,
    F.hinge_embedding_loss: _OF_ELEMENTS,
    F.poisson_nll_loss: _OF_ELEMENTS,
    F.kl_div: _OF_DIVERGENCE,
    F.multi_margin_loss: _OF_ROWS,
    F.multilabel_margin_loss: _OF_ROWS,
    F.multilabel_soft_margin_loss: _OF_ROWS,
    F.ctc_loss: _OF_SEQUENCES,
}


@final
class Called:
    """A loss as a task calls it: classes are found in the last dimension too, and what a mean is over is told."""

    def __init__(self, loss: LossFunction) -> None:
        self._loss = loss
        self._counts = _counts_of(loss)
        self._takes_classes = isinstance(loss, (nn.CrossEntropyLoss, nn.NLLLoss)) or self._counts is _OF_CLASSES
        self._is_torchs = isinstance(loss, nn.modules.loss._Loss) or bool(self._counts)  # noqa: SLF001 - the only base that torch's losses share
        self._last: bool | None = None
        """Whether classes are in the last dimension, as batches told that leave no doubt."""

    def __call__(self, logits: Any, targets: Any) -> LossValue:
        """The loss of a batch: logits [B, V, ...] and targets [B, ...] as torch has them, or logits [..., V].

        Raises ConfigError where both readings fit and no batch before left but one.
        """
        if self._are_to_be_flattened(logits, targets):
            logits, targets = logits.flatten(0, -2), targets.flatten()
        return self._counted(logits, targets)

    def _are_to_be_flattened(self, logits: Any, targets: Any) -> bool:
        return self._takes_classes and _is_of_indices(logits, targets) and self._are_last(logits, targets)

    def on_last(self, logits: Tensor, targets: Tensor) -> LossValue:
        """The loss of logits [..., V] and targets [...]; torch's own get [N, V], in float32, and [N]."""
        if self._is_torchs:
            logits, targets = exact(logits.flatten(0, -2)), targets.flatten()
        return self._counted(logits, targets)

    def _counted(self, logits: Any, targets: Any) -> LossValue:
        """What the loss gives; a mean of torch's with what it is over."""
        count = self._counts.get(_option(self._loss, "reduction", "mean"))
        value = self._value(logits, targets)
        if count is None or not isinstance(value, Tensor):
            return value  # type: ignore[no-any-return]
        divisor, number = count(self._loss, logits, targets)
        return Mean(_settled(value, divisor), divisor, targets=number)

    def _value(self, logits: Any, targets: Any) -> Any:
        """What the loss gives; the targets of CTC come with their lengths."""
        if self._counts is _OF_SEQUENCES and isinstance(targets, (tuple, list)):
            return self._loss(logits, *targets)
        return self._loss(logits, targets)

    def _are_last(self, logits: Tensor, targets: Tensor) -> bool:
        """Whether the classes are in the last dimension."""
        last, second = logits.shape[:-1], logits.shape[:1] + logits.shape[2:]
        if last == second == targets.shape:
            return self._remembered(logits, targets)
        if targets.shape in {last, second}:
            self._last = targets.shape == last
        return targets.shape == last

    def _remembered(self, logits: Tensor, targets: Tensor) -> bool:
        if self._last is None:
            raise ConfigError(
                f"The logits have the shape {list(logits.shape)} and the targets {list(targets.shape)}, so that the "
                f"classes may be in the last dimension or, as in torch, in the second. Give the loss "
                f"etude.losses.CrossEntropy(), which takes the last; for the second: "
                f"lambda logits, targets: etude.losses.CrossEntropy()(logits.movedim(1, -1), targets)."
            )
        return self._last


def plain(loss: LossFunction) -> LossFunction:
    """What evaluation reports: the same loss without label smoothing.

    That is its own `plain()`, or a copy of which the smoothing is taken away.
    """
    match loss:
        case object(plain=own) if callable(own):
            return own()  # type: ignore[no-any-return]
        case object(label_smoothing=share) if share:
            copied: Any = copy(loss)
            copied.label_smoothing = 0.0
            return copied  # type: ignore[no-any-return]
        case partial(keywords={"label_smoothing": _}):
            return partial(loss, label_smoothing=0.0)
    return loss


def _counts_of(loss: LossFunction) -> Counts:
    """What is known of how a loss divides: nothing of one that is not torch's own."""
    match loss:
        case nn.Module():
            return _counts_of_module(loss)
        case partial(args=()) if _OLD_NAMES.isdisjoint(loss.keywords):
            return _counts_of(loss.func)
    return next((counts for function, counts in FUNCTIONS.items() if function is loss), _NONE)


def _counts_of_module(loss: nn.Module) -> Counts:
    """What is known of a module that computes what torch's own of its kind does."""
    kind = next(filter(MODULES.__contains__, type(loss).__mro__), None)
    return _NONE if kind is None or type(loss).forward is not vars(kind)["forward"] else MODULES[kind]


def _option(loss: LossFunction, name: str, default: Any) -> Any:
    """What a loss of torch's was told, at this moment."""
    match loss:
        case nn.Module():
            return getattr(loss, name, default)
        case partial():
            return loss.keywords.get(name, default)
    return default


def _is_of_indices(logits: object, targets: object) -> bool:
    """Whether targets are the indices of classes, and there is a dimension besides samples and classes."""
    match logits, targets:
        case Tensor(ndim=dimensions), Tensor():
            return dimensions > 2 and not targets.is_floating_point()  # noqa: PLR2004 - samples and classes
    return False


def _settled(value: Tensor, divisor: float | Tensor) -> Tensor:
    """A mean over nothing is 0, and has no gradient."""
    match divisor:
        case Tensor(device=torch.device(type="cpu")) | int():
            return value if divisor else value.new_zeros(())
    return torch.where(torch.as_tensor(divisor) != 0, value, 0.0)  # unread
