"""Sparse gradients, as an embedding with `sparse=True` gives them: added and summed as dense ones."""

import torch
from torch import Tensor


def added(before: Tensor, after: Tensor) -> Tensor:
    """The sum of two gradients of one parameter, in the place of the first where its layout allows."""
    return after + before if before.is_sparse and not after.is_sparse else before.add_(after)


def summed(gradient: Tensor) -> Tensor:
    """A sparse gradient with every row once: what was added to it, in the order that a dense one adds it.

    On an accelerator the order is torch's own.
    """
    if gradient.is_coalesced() or gradient.sparse_dim() != 1 or gradient.device.type != "cpu":
        return gradient.coalesce()
    values = gradient._values()  # noqa: SLF001 - the public name wants each row once, which torch sums in another order
    rows, places = torch.unique(gradient._indices()[0], return_inverse=True)  # noqa: SLF001 - likewise
    total = values.new_zeros(len(rows), *values.shape[1:]).index_add_(0, places, values)
    return torch.sparse_coo_tensor(rows[None], total, gradient.shape, is_coalesced=True, check_invariants=False)


def no_rows(table: Tensor) -> Tensor:
    """The sparse gradient of a table of which no row was read."""
    rows, values = table.new_empty((1, 0), dtype=torch.int64), table.new_empty((0, *table.shape[1:]))
    return torch.sparse_coo_tensor(rows, values, table.shape, is_coalesced=True, check_invariants=False)
