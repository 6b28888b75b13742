"""A batch of texts with their labels, how rows of a table become one, and the feed of them.

Shapes: B samples, S the longest text.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from etude.data.feeds.batches import padded
from etude.data.feeds.batching import Batching
from etude.data.feeds.pairs import refuse_too_long
from etude.data.feeds.table_feed import Size, TableFeed, TableRows
from etude.data.order.plan import Ints
from etude.data.store.columns import Column
from etude.data.store.labelled import LABEL, TEXT
from etude.data.store.table import Table
from etude.data.store.targets import GROUP, Targets

SPECIALS = 1
"""A text ends with eos."""


class LabelledTable(Protocol):
    """What a batch needs of a prepared table."""

    columns: Mapping[str, Column]
    """By name."""

    def texts(self, column: str, indices: Ints, /) -> list[str]:
        """Give the text of each row."""

    def gather(self, column: str, indices: Ints, /) -> tuple[NDArray[Any], NDArray[Any]]:
        """Give the ids of the samples one after another, and how many each has."""

    def values(self, column: str, indices: Ints, /) -> NDArray[Any]:
        """Give the number of each sample's label."""


@dataclass(frozen=True, eq=False, slots=True)
class LabelledBatch:
    """Texts, padded at the end, and the label of each."""

    tokens: Tensor
    """[B, S] int64: tokens, eos, padding."""
    lengths: Tensor
    """[B] int64, eos counted."""
    labels: Tensor
    """[B] int64 of one label, else [B, K] float32."""
    indices: Tensor
    """[B] int64: which sample of the table each row is."""
    groups: tuple[str, ...] = ()
    """What metrics are by, of each text; empty where they are of all."""

    def __len__(self) -> int:
        return self.tokens.shape[0]

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What a model is called with."""
        return (self.tokens,)

    @property
    def targets(self) -> Tensor:
        """The labels."""
        return self.labels

    @property
    def told(self) -> dict[str, Tensor]:
        """How long the texts are."""
        return {"tokens": self.lengths}

    @property
    def padding(self) -> float:
        """The share of the texts that is padding."""
        cells = self.tokens.numel()
        return 1 - int(self.lengths.sum()) / cells if cells else 0.0

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "LabelledBatch":  # noqa: FBT001, FBT002 - as Tensor.to
        """Give the batch with every tensor on `device`."""
        return LabelledBatch(
            self.tokens.to(device, non_blocking=non_blocking),
            self.lengths.to(device, non_blocking=non_blocking),
            self.labels.to(device, non_blocking=non_blocking),
            self.indices.to(device, non_blocking=non_blocking),
            self.groups,
        )

    def pin_memory(self) -> "LabelledBatch":
        """Give the batch in page-locked memory."""
        return LabelledBatch(
            self.tokens.pin_memory(),
            self.lengths.pin_memory(),
            self.labels.pin_memory(),
            self.indices.pin_memory(),
            self.groups,
        )


def labelled_batch(table: LabelledTable, indices: Ints, targets: Targets | None = None) -> LabelledBatch:
    """Gather samples of `table` ([B] indices, in this order) into one batch; B may be 0.

    Without `targets` each has one label.
    """
    labels = table.values(LABEL, indices).astype(np.int64) if targets is None else targets.of_rows(table, indices)
    tokens, lengths = padded(*table.gather(TEXT, indices), bos=False)
    groups = tuple(table.texts(GROUP, indices)) if GROUP in table.columns else ()
    return LabelledBatch(
        tokens=torch.from_numpy(tokens),
        lengths=torch.from_numpy(lengths),
        labels=torch.from_numpy(np.ascontiguousarray(labels)),
        indices=torch.from_numpy(np.ascontiguousarray(indices, dtype=np.int64)),
        groups=groups,
    )


def labelled_feed(
    table: Table, batching: Batching, place: Callable[[int], str], targets: Targets | None = None
) -> TableFeed:
    """Make a feed of the labelled texts of `table`; a loss counts one target a sample.

    A text that alone exceeds the token budget is a DataError; `place` says what messages call a sample.
    """
    text = Size(TEXT, SPECIALS)
    refuse_too_long(table, [text], batching, place)
    rows = TableRows(table, partial(labelled_batch, targets=targets), (text, Size(None)), Size(None, 1))
    return TableFeed(rows, batching)
