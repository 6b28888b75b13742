"""A batch of rows of numbers and categories with their targets, and the feed of them.

Shapes: B samples, N columns of numbers, C columns of categories, K targets.
"""

from dataclasses import dataclass
from functools import partial
from typing import final

import numpy as np
import torch
from torch import Tensor

from etude.data.feeds.batching import Batching
from etude.data.feeds.table_feed import Size, TableFeed, TableRows
from etude.data.store.columns import Ints
from etude.data.store.table import Table
from etude.data.store.tabular import CATEGORIES, NUMBERS
from etude.data.store.targets import GROUP, Targets


@final
@dataclass(frozen=True, eq=False, slots=True)
class TabularBatch:
    """Rows and the target of each."""

    numbers: Tensor
    """[B, N] float32, standardised; NaN where there is none."""
    categories: Tensor
    """[B, C] int64: ids."""
    targets: Tensor
    """[B] int64 of one label, else [B, K] float32."""
    indices: Tensor
    """[B] int64: which sample of the table each row is."""
    groups: tuple[str, ...] = ()
    """What metrics are by, of each sample; empty where they are of all."""

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What a model is called with."""
        return self.numbers, self.categories

    @property
    def told(self) -> dict[str, Tensor]:
        """Further columns of saved outputs: none."""
        return {}

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "TabularBatch":  # noqa: FBT001, FBT002 - as Tensor.to
        """Give the batch with every tensor on `device`."""
        numbers, categories, targets, indices = (
            part.to(device, non_blocking=non_blocking)
            for part in (self.numbers, self.categories, self.targets, self.indices)
        )
        return TabularBatch(numbers, categories, targets, indices, self.groups)

    def pin_memory(self) -> "TabularBatch":
        """Give the batch in page-locked memory."""
        numbers, categories, targets, indices = (
            part.pin_memory() for part in (self.numbers, self.categories, self.targets, self.indices)
        )
        return TabularBatch(numbers, categories, targets, indices, self.groups)


def tabular_batch(targets: Targets, table: Table, indices: Ints) -> TabularBatch:
    """Gather samples of `table` ([B] indices, in this order) into one batch; B may be 0."""
    return TabularBatch(
        numbers=torch.from_numpy(_rows(table, NUMBERS, indices).astype(np.float32)),
        categories=torch.from_numpy(_rows(table, CATEGORIES, indices).astype(np.int64)),
        targets=torch.from_numpy(np.ascontiguousarray(targets.of_rows(table, indices))),
        indices=torch.from_numpy(np.ascontiguousarray(indices, dtype=np.int64)),
        groups=tuple(table.texts(GROUP, indices)) if GROUP in table.columns else (),
    )


def _rows(table: Table, column: str, indices: Ints) -> np.ndarray[tuple[int, int], np.dtype[np.generic]]:
    """The rows of a column of one place each, [B, width]; of one that is not there [B, 0]."""
    if column not in table.columns:
        return np.zeros((len(indices), 0), dtype=np.float32)
    width = table.columns[column].width
    return table.gather(column, indices)[0].reshape(len(indices), width)


def tabular_feed(table: Table, targets: Targets, batching: Batching) -> TableFeed:
    """Make a feed of the rows of `table`; each counts as one, for a budget and for a loss."""
    rows = TableRows(table, partial(tabular_batch, targets), (Size(None, 1), Size(None)), Size(None, 1))
    return TableFeed(rows, batching)
