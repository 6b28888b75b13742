"""Rows of ids as a batch: padded side by side, or packed one behind the other.

Shapes: B rows, S the longest source, T the longest row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

IGNORED = -100
"""The target where nothing is predicted."""


@dataclass(frozen=True, eq=False, slots=True)
class HfBatch:
    """Rows side by side, padded at the end."""

    inputs: Tensor
    """[B, T] int64: what a causal model reads; [B, S] of a sequence-to-sequence one: the source."""
    attention: Tensor
    """[B, T] or [B, S] int64: 1 where `inputs` is no padding."""
    targets: Tensor
    """[B, T] int64: what is predicted at each place; `IGNORED` where nothing is."""
    tokens: int
    """Targets that a loss counts."""
    bytes: float
    """UTF-8 bytes of the text that they stand for."""
    documents: Tensor | None
    """[B, T] int64, of packed rows: which of its row's documents a token is of; attention stays inside."""
    positions: Tensor | None
    """[B, T] int64, of packed rows: the place inside the document."""
    indices: Tensor
    """[B] int64: which row of the table, or which pack of rows, each is."""

    def __len__(self) -> int:
        return self.inputs.shape[0]

    @property
    def padding(self) -> float:
        """The share of what the model reads that is padding."""
        return 1 - float(self.attention.sum()) / max(1, self.attention.numel())

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "HfBatch":  # noqa: FBT001, FBT002 - as Tensor.to
        """Give the batch with every tensor on `device`."""
        return replace(self, **{name: part.to(device, non_blocking=non_blocking) for name, part in self._tensors()})

    def pin_memory(self) -> "HfBatch":
        """Give the batch in page-locked memory."""
        return replace(self, **{name: part.pin_memory() for name, part in self._tensors()})

    def _tensors(self) -> list[tuple[str, Any]]:
        parts = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return [(name, part) for name, part in parts if isinstance(part, Tensor)]


@dataclass(frozen=True, slots=True)
class Ids:
    """A row of a table, or several that are packed behind one another."""

    ids: Sequence[Tensor]
    """[n] each."""
    counted: Sequence[Tensor]
    """[n] bool each."""
    source: Tensor
    """Of a sequence-to-sequence model; else empty."""
    bytes: float
    index: int


def causal_batch(rows: Sequence[Ids], pad: int, *, packed: bool) -> HfBatch:
    """What a causal model reads, every id but the last of each row, and what it predicts, every id but the first."""
    inputs = [torch.cat([ids[:-1] for ids in row.ids]) for row in rows]
    documents, positions = _packing(rows) if packed else (None, None)
    return _batch(rows, inputs, [_predicted(row) for row in rows], pad, documents, positions)


def _predicted(row: Ids) -> Tensor:
    """What is predicted at each place of a row: every id but the first that counts."""
    return torch.cat([ids[1:].where(counted[1:], IGNORED) for ids, counted in zip(row.ids, row.counted, strict=True)])


def _packing(rows: Sequence[Ids]) -> tuple[Tensor, Tensor]:
    """For each place of packed rows, which of its row's documents it is of, and where in that it stands."""
    sizes = [torch.tensor([len(ids) - 1 for ids in row.ids]) for row in rows]
    documents = _padded([torch.arange(len(size)).repeat_interleave(size) for size in sizes], IGNORED)
    return documents, _padded([torch.cat([torch.arange(n) for n in size.tolist()]) for size in sizes], 0)


def seq2seq_batch(rows: Sequence[Ids], pad: int) -> HfBatch:
    """Sources and their targets; the model itself shifts these to what its decoder reads."""
    targets = [row.ids[0].where(row.counted[0], IGNORED) for row in rows]
    return _batch(rows, [row.source for row in rows], targets, pad, None, None)


def _batch(
    rows: Sequence[Ids],
    inputs: list[Tensor],
    targets: list[Tensor],
    pad: int,
    documents: Tensor | None,
    positions: Tensor | None,
) -> HfBatch:
    padded = _padded(targets, IGNORED)
    return HfBatch(
        inputs=_padded(inputs, pad),
        attention=_padded([torch.ones(len(row), dtype=torch.int64) for row in inputs], 0),
        targets=padded,
        tokens=int((padded != IGNORED).sum()),
        bytes=float(sum(row.bytes for row in rows)),
        documents=documents,
        positions=positions,
        indices=torch.tensor([row.index for row in rows], dtype=torch.int64),
    )


def _padded(rows: list[Tensor], value: int) -> Tensor:
    return pad_sequence(rows, batch_first=True, padding_value=value)
