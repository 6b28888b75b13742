"""Cross entropy straight from the last hidden layer, without ever holding all logits.

The loss and its gradients are computed in one go, a few rows of logits at a time, while those are in the cache: on a
large vocabulary, passing over the logits costs more than the product that makes them. The idea is that of Hsu et
al. 2024 (Liger Kernel); the label smoothing as rank-one terms is our own.

Legend: N targets, C rows of a chunk, M width of the model, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from etude.model.exact import exact_dtype

CHUNK_BYTES = {"cpu": 1 << 23}
"""Of logits at a time: what the processor's last cache holds; other devices take `CHUNK_ELSEWHERE`."""
CHUNK_ELSEWHERE = 1 << 28
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
        chunks = _Chunks(self, hidden_NM, weight_VM)
        room = chunks.room(chunks.rows)
        total = torch.zeros((), dtype=chunks.exact, device=hidden_NM.device)
        for rows in _pieces(0, len(self.targets), chunks.rows):
            total += chunks.parted(chunks.logits(rows, room), rows).loss
        return total

    def loss_and_gradients(self, hidden_NM: Tensor, weight_VM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The sum, and its gradients for hidden layer and weight."""
        chunks = _Chunks(self, hidden_NM, weight_VM)
        exact, weight_P = chunks.exact, chunks.weight_PM
        total = torch.zeros((), dtype=exact, device=hidden_NM.device)
        hidden_gradient = torch.empty_like(hidden_NM, dtype=exact)
        weight_gradient = torch.zeros_like(weight_VM, dtype=exact)
        share_N1 = hidden_gradient.new_empty(len(self.targets), 1)
        block_rows = min(max(chunks.rows, BLOCK_ELEMENTS // len(weight_VM) // chunks.rows * chunks.rows), len(share_N1))
        excess = chunks.room(block_rows)
        for block in _pieces(0, len(self.targets), block_rows):
            excess_BV = excess[: block.stop - block.start]
            for rows in _pieces(block.start, block.stop, chunks.rows):
                place_CV = excess_BV[rows.start - block.start : rows.stop - block.start]
                parted = chunks.parted(chunks.logits(rows, place_CV), rows)
                total += parted.loss
                share_N1[rows] = parted.share
                self._take_from(parted, rows, place_CV)
            hidden_gradient[block] = (excess_BV @ weight_P) * share_N1[block]
            # What brings powers to probabilities, and leaves rows out, is in the narrow factor, not in the wide one.
            _add_product(weight_gradient, excess_BV.T, (hidden_NM[block] * share_N1[block]).to(self.product))
        if self.smoothing:
            spread, counted_N = self.smoothing / len(weight_VM), (self.targets != self.ignored).to(exact)
            hidden_gradient.addr_(counted_N, weight_VM.sum(0, dtype=exact), alpha=-spread)
            weight_gradient -= (counted_N[:, None] * hidden_NM).sum(0) * spread
        return total, hidden_gradient.to(hidden_NM.dtype), weight_gradient.to(weight_VM.dtype)

    def loss_and_partition(self, hidden_NM: Tensor, weight_VM: Tensor) -> tuple[Tensor, Tensor]:
        """The sum, and the log-partition of each target [N], 0 for those that are ignored."""
        chunks = _Chunks(self, hidden_NM, weight_VM)
        room = chunks.room(chunks.rows)
        total = torch.zeros((), dtype=chunks.exact, device=hidden_NM.device)
        partition_N = torch.empty(len(self.targets), dtype=chunks.exact, device=hidden_NM.device)
        for rows in _pieces(0, len(self.targets), chunks.rows):
            parted = chunks.parted(chunks.logits(rows, room), rows)
            partition_N[rows] = parted.partition
            total += parted.loss
        return total, partition_N.where(self.targets != self.ignored, 0.0)

    def gradients(
        self, hidden_NM: Tensor, weight_VM: Tensor, partition_N: Tensor, of_loss: Tensor, of_z: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Gradients for hidden layer and weight, given those of the loss and of the squared log-partitions.

        That of a logit is of_loss (p - q) + 2 of_z log(Z) p.
        """
        chunks = _Chunks(self, hidden_NM, weight_VM)
        exact, size, weight_P, hidden_P = chunks.exact, len(weight_VM), chunks.weight_PM, chunks.hidden_PM
        room = chunks.room(chunks.rows)
        # Products in a narrow format see gradients of order one; what scales them all comes afterwards, in `exact`.
        scale = torch.maximum(of_loss.abs(), of_z.abs()).clamp(min=torch.finfo(exact).tiny)
        of_loss, of_z = of_loss / scale, of_z / scale
        hidden_gradient = torch.empty_like(hidden_NM, dtype=exact)
        weight_gradient = torch.zeros_like(weight_VM, dtype=exact)
        for rows in _pieces(0, len(self.targets), chunks.rows):
            targets_C1, partition_C1 = self.targets[rows, None], partition_N[rows, None]
            counted_C1 = targets_C1 != self.ignored
            excess_CV = chunks.logits(rows, room).sub_(partition_C1.where(counted_C1, torch.inf)).exp_()
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

    def _take_from(self, parted: "_Parted", rows: slice, place_CV: Tensor) -> None:
        """Make of powers the gradient of the logits, over the share: probability - (1 - s) at the target.

        What is - s / V everywhere is left to the rank-one terms.
        """
        targets_C = self.targets[rows]
        places_C1 = targets_C.where(targets_C != self.ignored, 0)[:, None]
        parted.powers.scatter_add_(1, places_C1, parted.mass * (self.smoothing - 1.0))
        if parted.powers.dtype != place_CV.dtype:
            place_CV.copy_(parted.powers)


class _Parted(NamedTuple):
    """A few rows of logits as powers: what they are e to the power of, over that of the largest."""

    loss: Tensor
    """The sum over the rows that count; a scalar."""
    powers: Tensor
    """[C, V], valid until the next rows."""
    mass: Tensor
    """[C, 1]: the sum of each row's powers, from 1 to V, or 1 where they are probabilities already."""
    partition: Tensor
    """[C]: the log of the sum of e to the power of each logit."""
    share: Tensor
    """[C, 1]: what makes powers probabilities; 0 where the target is ignored."""


@final
class _Chunks:
    """The logits of a few rows at a time, always in the same memory.

    Fresh memory for each chunk would cost more than the arithmetic: the system hands it out page by page. Nor is a pass
    over them wasted: each logit is put to the power once, and what every logit has a part in alike, the mean that
    smoothing asks for, is a product of the hidden layer with the mean weight.
    """

    def __init__(self, work: _Work, hidden_NM: Tensor, weight_VM: Tensor) -> None:
        self.exact = exact_dtype(hidden_NM)
        """The type of all but the products."""
        self.hidden_PM, self.weight_PM = hidden_NM.to(work.product), weight_VM.to(work.product)
        kinds = {work.product, self.exact}
        row = len(weight_VM) * sum(kind.itemsize for kind in kinds)
        self.rows = max(1, min(CHUNK_BYTES.get(weight_VM.device.type, CHUNK_ELSEWHERE) // row, len(hidden_NM)))
        """Rows at a time."""
        self._work = work
        self._wide = None if work.product == self.exact else self.room(self.rows).to(self.exact)
        self._mean_M = self.weight_PM.mean(0, dtype=self.exact) if work.smoothing else None

    def room(self, rows: int) -> Tensor:
        """Memory for so many rows, as the product gives them [rows, V]."""
        return self.hidden_PM.new_empty(rows, len(self.weight_PM))

    def logits(self, rows: slice, room: Tensor) -> Tensor:
        """In float32 or wider: [C, V], valid until the next call; in `room` itself where that is wide enough."""
        place_CV = room[: rows.stop - rows.start]
        torch.mm(self.hidden_PM[rows], self.weight_PM.T, out=place_CV)
        return place_CV if self._wide is None else self._wide[: len(place_CV)].copy_(place_CV)

    def parted(self, logits_CV: Tensor, rows: slice) -> _Parted:
        """The loss of the rows and what its gradient needs, in the memory of their logits."""
        smoothing, targets_C = self._work.smoothing, self._work.targets[rows]
        counted_C = targets_C != self._work.ignored
        best_C1 = logits_CV.amax(1, keepdim=True)
        best_C = best_C1[:, 0]
        right_C = logits_CV.sub_(best_C1).gather(1, targets_C.where(counted_C, 0)[:, None])[:, 0]
        mass_C1 = logits_CV.exp_().sum(1, keepdim=True)
        log_mass_C = mass_C1[:, 0].log()
        if self._work.product == torch.float16:
            # What stands at the target is of the size of the mass, which may be beyond the numbers of this format.
            logits_CV /= mass_C1
            mass_C1 = torch.ones_like(mass_C1)
        if self._mean_M is not None:
            mean_C = self.hidden_PM[rows].to(self.exact) @ self._mean_M
            right_C = right_C * (1.0 - smoothing) + (mean_C - best_C) * smoothing
        loss = (log_mass_C - right_C).where(counted_C, 0.0).sum()
        share_C1 = mass_C1.reciprocal().where(counted_C[:, None], 0.0)
        return _Parted(loss, logits_CV, mass_C1, log_mass_C + best_C, share_C1)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add a product of matrices; one in a narrower format is rounded to it first."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def _pieces(start: int, stop: int, length: int) -> list[slice]:
    return [slice(first, min(first + length, stop)) for first in range(start, stop, length)]
