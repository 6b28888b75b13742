"""A batch of sentence pairs, and how rows of a table become one.

Shapes: B samples, S the longest source, T the longest target.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from etude.data.tokens.tokenizers import BOS, EOS, PAD

SOURCE_SPECIALS = 1
"""A source ends with eos."""
TARGET_SPECIALS = 2
"""A target begins with bos and ends with eos."""

Ints = NDArray[np.int64]


class PairTable(Protocol):
    """What a batch needs of a prepared corpus: ids without special tokens, by side."""

    def gather(self, side: str, indices: Ints, /) -> tuple[NDArray[Any], NDArray[Any]]:
        """Give the ids of the samples one after another, and how many each has."""


@dataclass(frozen=True, eq=False, slots=True)
class PairBatch:
    """Pairs side by side, padded at the end."""

    source: Tensor
    """[B, S] int64: tokens, eos, padding."""
    source_lengths: Tensor
    """[B] int64, eos counted."""
    target: Tensor
    """[B, T] int64: bos, tokens, eos, padding."""
    target_lengths: Tensor
    """[B] int64, bos and eos counted."""
    tokens: int
    """Targets that a loss counts: every target token but bos."""
    indices: Tensor
    """[B] int64: which sample of the table each row is."""

    def __len__(self) -> int:
        return self.source.shape[0]

    @property
    def padding(self) -> float:
        """The share of both sides together that is padding."""
        cells = self.source.numel() + self.target.numel()
        real = int(self.source_lengths.sum()) + int(self.target_lengths.sum())
        return 1 - real / cells if cells else 0.0

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "PairBatch":  # noqa: FBT001, FBT002 - as Tensor.to
        """Give the batch with every tensor on `device`."""
        return PairBatch(
            self.source.to(device, non_blocking=non_blocking),
            self.source_lengths.to(device, non_blocking=non_blocking),
            self.target.to(device, non_blocking=non_blocking),
            self.target_lengths.to(device, non_blocking=non_blocking),
            self.tokens,
            self.indices.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> "PairBatch":
        """Give the batch in page-locked memory."""
        return PairBatch(
            self.source.pin_memory(),
            self.source_lengths.pin_memory(),
            self.target.pin_memory(),
            self.target_lengths.pin_memory(),
            self.tokens,
            self.indices.pin_memory(),
        )


def pair_batch(table: PairTable, indices: Ints) -> PairBatch:
    """Gather samples of `table` ([B] indices, in this order) into one batch; B may be 0."""
    source, source_lengths = padded(*table.gather("source", indices), bos=False)
    target, target_lengths = padded(*table.gather("target", indices), bos=True)
    return PairBatch(
        source=torch.from_numpy(source),
        source_lengths=torch.from_numpy(source_lengths),
        target=torch.from_numpy(target),
        target_lengths=torch.from_numpy(target_lengths),
        tokens=int(target_lengths.sum()) - len(indices),
        indices=torch.from_numpy(np.ascontiguousarray(indices, dtype=np.int64)),
    )


def padded(flat: NDArray[Any], lengths: NDArray[Any], *, bos: bool) -> tuple[Ints, Ints]:
    """Lay sequences that lie end to end into rows, eos after each and bos before it where asked.

    `flat` holds sum(lengths) ids. Returns [B, longest] and the lengths with special tokens.
    """
    lengths = np.asarray(lengths, dtype=np.int64)  # out of a mapped file: its own class of array is slow
    before = int(bos)
    longest = int(lengths.max(initial=0))
    rows = np.full((len(lengths), longest + before + 1), PAD, dtype=np.int64)
    if bos:
        rows[:, 0] = BOS
    body = rows[:, before : before + longest]
    body[np.arange(longest) < lengths[:, None]] = flat
    rows[np.arange(len(lengths)), lengths + before] = EOS
    return rows, lengths + before + 1
