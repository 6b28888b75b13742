"""A batch of text, and how rows of prepared text become one.

Shapes: B rows, T places in a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from etude.data.feeds.text_masks import TextMasks
from etude.data.order.plan import Keys
from etude.data.order.text_rows import Rows
from etude.data.store.text_table import DOCUMENT_START, TextTable
from etude.data.tokens.tokenizers import PAD

IGNORED = -100
"""The target where nothing is predicted, which every loss of torch leaves out."""
NO_DOCUMENT = -1
"""The document that padding belongs to."""


@dataclass(frozen=True, eq=False, slots=True)
class TextBatch:
    """Rows of text and, at each place, the token that comes next or, of masked text, the one that is hidden there."""

    inputs: Tensor
    """[B, T] int64: tokens, then padding."""
    targets: Tensor
    """[B, T] int64: what follows each input, or what is hidden there; `IGNORED` where nothing is predicted."""
    tokens: int
    """Targets that a loss counts."""
    bytes: float
    """Bytes of UTF-8 of the raw text that these targets stand for; the end of a document stands for none, and hidden
    tokens are not counted."""
    documents: Tensor | None = None
    """[B, T] int32: which document of its row a token belongs to, from 0 on, -1 for padding; attention stays inside.
    None where rows are stretches of a stream."""
    positions: Tensor | None = None
    """[B, T] int64: where a token stands in its document, from 0 on; None where that is 0 to T - 1."""

    def __len__(self) -> int:
        return self.inputs.shape[0]

    @property
    def padding(self) -> float:
        """The share of all places at which nothing is predicted."""
        return 1 - self.tokens / self.targets.numel() if self.targets.numel() else 0.0

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "TextBatch":  # noqa: FBT001, FBT002 - as Tensor.to
        """Give the batch with every tensor on `device`."""
        return TextBatch(
            self.inputs.to(device, non_blocking=non_blocking),
            self.targets.to(device, non_blocking=non_blocking),
            self.tokens,
            self.bytes,
            None if self.documents is None else self.documents.to(device, non_blocking=non_blocking),
            None if self.positions is None else self.positions.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> "TextBatch":
        """Give the batch in page-locked memory."""
        return TextBatch(
            self.inputs.pin_memory(),
            self.targets.pin_memory(),
            self.tokens,
            self.bytes,
            None if self.documents is None else self.documents.pin_memory(),
            None if self.positions is None else self.positions.pin_memory(),
        )


class TextFetch:
    """Makes a batch of rows of `tables`, which are the sources by number; with `masks`, hidden tokens are targets."""

    def __init__(self, tables: Sequence[TextTable], masks: TextMasks | None = None) -> None:
        self._tables = list(tables)
        self._masks = masks

    def __call__(self, epoch: int, rows: Keys) -> TextBatch:
        """Read the rows: the same in every epoch, but for masks."""
        assert isinstance(rows, Rows), "a plan of text gives rows"
        shape = len(rows), rows.width
        inputs = np.full(shape, PAD, dtype=np.int64)
        targets = np.full(shape, IGNORED, dtype=np.int64)
        for number, row in enumerate(rows):
            at = 0
            for source, begin, length in row.tolist():
                here = slice(at, at + length)
                inputs[number, here], targets[number, here] = self._piece(epoch, source, begin, length)
                at += length
        documents, positions = _places(rows) if rows.documents else (None, None)
        return TextBatch(
            inputs=torch.from_numpy(inputs),
            targets=torch.from_numpy(targets),
            tokens=int((targets != IGNORED).sum()),
            bytes=self._bytes(rows, inputs, targets) if self._masks is None else 0.0,
            documents=documents,
            positions=positions,
        )

    def _piece(self, epoch: int, source: int, begin: int, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What is seen of a stretch of text, and what is predicted there."""
        ids = self._tables[source].read(begin, length + 1).astype(np.int64)
        if self._masks is None:
            return ids[:-1], ids[1:]
        seen, chosen = self._masks.of(ids[:-1], begin, source, epoch)
        return seen, np.where(chosen, ids[:-1], IGNORED)

    def _bytes(self, rows: Rows, inputs: NDArray[np.int64], targets: NDArray[np.int64]) -> float:
        """Count the bytes of the targets, by source; all pieces of a row are of one."""
        if not len(rows):
            return 0.0
        sources = np.array([row[0, 0] for row in rows])
        total = 0.0
        for source in np.unique(sources).tolist():
            table, here = self._tables[source], sources == source
            counted = targets[here]
            real = counted != IGNORED
            begun = int((inputs[here][real] == DOCUMENT_START).sum())
            total += (float(table.token_bytes[counted[real]].sum()) - table.prefix * begun) * table.factor
        return total


def _places(rows: Rows) -> tuple[Tensor, Tensor]:
    """Give which document of its row each place belongs to, and where in that document it stands: [B, T] each."""
    documents = np.full((len(rows), rows.width), NO_DOCUMENT, dtype=np.int32)
    positions = np.zeros((len(rows), rows.width), dtype=np.int64)
    for number, row in enumerate(rows):
        lengths = row[:, 2]
        ends = np.cumsum(lengths)
        documents[number, : ends[-1]] = np.repeat(np.arange(len(lengths)), lengths)
        positions[number, : ends[-1]] = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
    return torch.from_numpy(documents), torch.from_numpy(positions)
