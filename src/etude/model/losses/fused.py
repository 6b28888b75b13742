"""Cross entropy straight from the last hidden layer, without ever holding all logits.

The loss and its gradients are computed in one go, a few rows of logits at a time, while those are in the cache: on a
large vocabulary, passing over the logits costs more than the product that makes them. The idea is that of Hsu et
al. 2024 (Liger Kernel); the label smoothing as rank-one terms is our own.

Legend: N targets, C rows of a chunk, M width of the model, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from etude.model.exact import exact_dtype

CHUNK_ELEMENTS = {"cpu": 1 << 20}
"""Logits at a time: what the processor's cache holds; other devices take `CHUNK_ELSEWHERE`."""
CHUNK_ELSEWHERE = 1 << 26
BLOCK_ELEMENTS = 1 << 22
"""Gradients of logits kept for one product with the hidden layer."""


def linear_cross_entropy(
    hidden_NM: Tensor, weight_VM: Tensor, targets_N: Tensor, *, label_smoothing: float, ignore_index: int
) -> Tensor:
    """Sum over targets of the cross entropy of `hidden_NM @ weight_VM.T`, smoothed as torch does it; a scalar.

    Under autocast the products are in its precision; softmax, loss and sums are float32 (float64 stays). The
    gradient cannot be differentiated again.
    """
    device = hidden_NM.device.type
    work = _Work(targets_N, label_smoothing, ignore_index, _product(hidden_NM))
    if torch.is_grad_enabled() and (hidden_NM.requires_grad or weight_VM.requires_grad):
        return _LinearCrossEntropy.apply(hidden_NM, weight_VM, work)  # type: ignore[no-any-return,no-untyped-call]
    with torch.autocast(device, enabled=False):
        return work.loss(hidden_NM, weight_VM)


def linear_cross_entropy_and_z(
    hidden_NM: Tensor, weight_VM: Tensor, targets_N: Tensor, *, label_smoothing: float, ignore_index: int
) -> tuple[Tensor, Tensor]:
    """The same, and beside it the sum over targets of the squared log-partition of `hidden_NM @ weight_VM.T`.

    Both are scalars whose gradients are each their own; for this the backward makes the logits a second time.
    """
    work = _Work(targets_N, label_smoothing, ignore_index, _product(hidden_NM))
    total, squares = _LinearCrossEntropyAndZ.apply(hidden_NM, weight_VM, work)  # type: ignore[no-untyped-call]
    return total, squares


def _product(hidden: Tensor) -> torch.dtype:
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


class _Context(Protocol):
    """What autograd keeps between forward and backward."""

    work: "_Work"
    saved_tensors: Sequence[Tensor]

    def save_for_backward(self, *tensors: Tensor) -> None: ...


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Context, hidden_NM: Tensor, weight_VM: Tensor, work: "_Work") -> Tensor:
        with torch.autocast(hidden_NM.device.type, enabled=False):
            total, hidden_gradient, weight_gradient = work.loss_and_gradients(hidden_NM, weight_VM)
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        hidden_gradient, weight_gradient = ctx.saved_tensors
        return hidden_gradient * gradient, weight_gradient * gradient, None


class _LinearCrossEntropyAndZ(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Context, hidden_NM: Tensor, weight_VM: Tensor, work: "_Work") -> tuple[Tensor, Tensor]:
        with torch.autocast(hidden_NM.device.type, enabled=False):
            total, partition_N = work.loss_and_partition(hidden_NM, weight_VM)
        ctx.save_for_backward(hidden_NM, weight_VM, partition_N)
        ctx.work = work
        return total, partition_N.square().sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, of_loss: Tensor, of_z: Tensor) -> tuple[Tensor, Tensor, None]:
        hidden_NM, weight_VM, partition_N = ctx.saved_tensors
        with torch.autocast(hidden_NM.device.type, enabled=False):
            return *ctx.work.gradients(hidden_NM, weight_VM, partition_N, of_loss, of_z), None


@final
@dataclass(frozen=True, eq=False)
class _Work:
    """One loss: what stays the same from chunk to chunk."""

    targets: Tensor
    """[N]."""
    smoothing: float
    ignored: int
    product: torch.dtype

    def loss(self, hidden_NM: Tensor, weight_VM: Tensor) -> Tensor:
        """The sum alone."""
        weight_P = weight_VM.to(self.product)
        exact = exact_dtype(hidden_NM)
        total = torch.zeros((), dtype=exact, device=hidden_NM.device)
        logs = _LogProbabilities(hidden_NM.to(self.product), weight_P, exact)
        for rows in _pieces(0, len(self.targets), logs.chunk):
            total += self._chunk_loss(logs.of(rows), rows)
        return total

    def loss_and_gradients(self, hidden_NM: Tensor, weight_VM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The sum, and its gradients for hidden layer and weight."""
        exact = exact_dtype(hidden_NM)
        share_N1 = (self.targets != self.ignored).to(exact)[:, None]
        weight_P, hidden_P = weight_VM.to(self.product), hidden_NM.to(self.product)
        total = torch.zeros((), dtype=exact, device=hidden_NM.device)
        hidden_gradient = torch.empty_like(hidden_NM, dtype=exact)
        weight_gradient = torch.zeros_like(weight_VM, dtype=exact)
        logs = _LogProbabilities(hidden_P, weight_P, exact)
        chunk, size = logs.chunk, weight_VM.size(0)
        block_rows = min(max(chunk, BLOCK_ELEMENTS // size // chunk * chunk), len(self.targets))
        excess = hidden_P.new_empty(block_rows, size)
        for block in _pieces(0, len(self.targets), block_rows):
            excess_BV = excess[: block.stop - block.start]
            for rows in _pieces(block.start, block.stop, chunk):
                log_CV = logs.of(rows)
                total += self._chunk_loss(log_CV, rows)
                self._excess(log_CV, rows, excess_BV[rows.start - block.start : rows.stop - block.start])
            hidden_gradient[block] = excess_BV @ weight_P
            # Ignored rows are taken out of the narrow factor, not of the wide one.
            weight_gradient += excess_BV.T @ (hidden_P[block] * share_N1[block].to(self.product))
        if self.smoothing:
            spread = self.smoothing / size
            hidden_gradient -= weight_VM.sum(0, dtype=exact) * spread
            weight_gradient -= (share_N1 * hidden_NM).sum(0) * spread
        hidden_gradient *= share_N1
        return total, hidden_gradient.to(hidden_NM.dtype), weight_gradient.to(weight_VM.dtype)

    def loss_and_partition(self, hidden_NM: Tensor, weight_VM: Tensor) -> tuple[Tensor, Tensor]:
        """The sum, and the log-partition of each target [N], 0 for those that are ignored."""
        exact = exact_dtype(hidden_NM)
        total = torch.zeros((), dtype=exact, device=hidden_NM.device)
        partition_N = torch.empty(len(self.targets), dtype=exact, device=hidden_NM.device)
        logs = _LogProbabilities(hidden_NM.to(self.product), weight_VM.to(self.product), exact)
        for rows in _pieces(0, len(self.targets), logs.chunk):
            partition_N[rows] = torch.logsumexp(logs.logits(rows), -1)
            total += self._chunk_loss(logs.of(rows, made=True), rows)
        return total, partition_N.where(self.targets != self.ignored, 0.0)

    def gradients(
        self, hidden_NM: Tensor, weight_VM: Tensor, partition_N: Tensor, of_loss: Tensor, of_z: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Gradients for hidden layer and weight, given those of the loss and of the squared log-partitions.

        That of a logit is of_loss (p - q) + 2 of_z log(Z) p.
        """
        exact, size = exact_dtype(hidden_NM), weight_VM.size(0)
        weight_P, hidden_P = weight_VM.to(self.product), hidden_NM.to(self.product)
        # Products in a narrow format see gradients of order one; what scales them all comes afterwards, in `exact`.
        scale = torch.maximum(of_loss.abs(), of_z.abs()).clamp(min=torch.finfo(exact).tiny)
        of_loss, of_z = of_loss / scale, of_z / scale
        hidden_gradient = torch.empty_like(hidden_NM, dtype=exact)
        weight_gradient = torch.zeros_like(weight_VM, dtype=exact)
        logs = _LogProbabilities(hidden_P, weight_P, exact)
        for rows in _pieces(0, len(self.targets), logs.chunk):
            targets_C1, partition_C1 = self.targets[rows, None], partition_N[rows, None]
            counted_C1 = targets_C1 != self.ignored
            excess_CV = logs.logits(rows).sub_(partition_C1.where(counted_C1, torch.inf)).exp_()
            excess_CV *= of_loss + 2 * of_z * partition_C1
            if self.smoothing:
                excess_CV -= of_loss * (self.smoothing / size) * counted_C1
            taken_C1 = (of_loss * (self.smoothing - 1.0)).where(counted_C1, 0.0)
            excess_CV.scatter_add_(1, targets_C1.where(counted_C1, 0), taken_C1)
            excess_P = excess_CV.to(self.product)
            hidden_gradient[rows] = excess_P @ weight_P
            weight_gradient += excess_P.T @ hidden_P[rows]
        hidden_gradient *= scale
        weight_gradient *= scale
        return hidden_gradient.to(hidden_NM.dtype), weight_gradient.to(weight_VM.dtype)

    def _chunk_loss(self, log_CV: Tensor, rows: slice) -> Tensor:
        targets_C = self.targets[rows]
        counted_C = targets_C != self.ignored
        right_C = log_CV.gather(1, targets_C.where(counted_C, 0)[:, None])[:, 0]
        if self.smoothing:
            right_C = right_C * (1.0 - self.smoothing) + log_CV.sum(1) * (self.smoothing / log_CV.size(1))
        return -right_C.where(counted_C, 0.0).sum()

    def _excess(self, log_CV: Tensor, rows: slice, into_CV: Tensor) -> None:
        """Make of log-probabilities the gradient of the logits: probability - (1 - s) at the target.

        What is - s / V everywhere is left to the rank-one terms.
        """
        targets_C = self.targets[rows]
        places_C1 = targets_C.where(targets_C != self.ignored, 0)[:, None]
        taken = log_CV.new_full((1, 1), self.smoothing - 1.0).expand_as(places_C1)
        if into_CV.dtype == log_CV.dtype:
            torch.exp(log_CV, out=into_CV).scatter_add_(1, places_C1, taken)
        else:
            into_CV.copy_(log_CV.exp_().scatter_add_(1, places_C1, taken))


@final
class _LogProbabilities:
    """Log-probabilities of a few rows at a time, always in the same memory.

    Fresh memory for each chunk would cost more than the arithmetic: the system hands it out page by page.
    """

    def __init__(self, hidden_NM: Tensor, weight_VM: Tensor, exact: torch.dtype) -> None:
        size = weight_VM.size(0)
        limit = CHUNK_ELEMENTS.get(weight_VM.device.type, CHUNK_ELSEWHERE)
        self.chunk = max(1, min(limit // size, len(hidden_NM)))
        """Rows at a time."""
        self._hidden, self._weight = hidden_NM, weight_VM
        self._logits = hidden_NM.new_empty(self.chunk, size)
        self._wide = (
            self._logits if hidden_NM.dtype == exact else self._logits.new_empty(self._logits.shape, dtype=exact)
        )
        self._logs = torch.empty_like(self._wide)

    def of(self, rows: slice, *, made: bool = False) -> Tensor:
        """[C, V], valid until the next call; `made` where `logits` of these rows was called just before."""
        length = rows.stop - rows.start
        wide_CV = self._wide[:length] if made else self.logits(rows)
        return torch.log_softmax(wide_CV, -1, out=self._logs[:length])

    def logits(self, rows: slice) -> Tensor:
        """The logits themselves, in float32 or wider: [C, V], valid until the next call."""
        length = rows.stop - rows.start
        logits_CV, wide_CV = self._logits[:length], self._wide[:length]
        torch.mm(self._hidden[rows], self._weight.T, out=logits_CV)
        if wide_CV.dtype != logits_CV.dtype:
            wide_CV.copy_(logits_CV)
        return wide_CV


def _pieces(start: int, stop: int, length: int) -> list[slice]:
    return [slice(first, min(first + length, stop)) for first in range(start, stop, length)]
