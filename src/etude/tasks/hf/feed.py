"""The feed of rows for a `transformers` model: padded batches of similar lengths, or packs."""

from dataclasses import dataclass
from typing import Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray

from etude.data.feeds.batching import Batching
from etude.data.feeds.table_feed import Samples, TableFeed
from etude.data.store.table import Table
from etude.tasks.hf.batch import HfBatch, Ids, causal_batch, seq2seq_batch

Ints = NDArray[np.int64]


class Packing(Protocol):
    """Which rows of a table lie behind one another in one row of a batch."""

    def __len__(self) -> int: ...

    def rows(self, index: int) -> range:
        """Give the rows of a pack."""

    def lengths(self, indices: Ints) -> tuple[Ints, Ints]:
        """Give how many ids packs have, source and target: [B] each."""


@final
class Alone:
    """Every row for itself."""

    def __init__(self, table: Table) -> None:
        self._sources, self._targets = table.lengths("sources"), table.lengths("ids")

    def __len__(self) -> int:
        return len(self._targets)

    def rows(self, index: int) -> range:
        """Give the row."""
        return range(index, index + 1)

    def lengths(self, indices: Ints) -> tuple[Ints, Ints]:
        """Give how many ids the rows have, source and target: [B] each."""
        return self._sources[indices].astype(np.int64), self._targets[indices].astype(np.int64)


@final
class Packed:
    """Neighbours together as long as `length` places hold them: the same packs in every epoch."""

    def __init__(self, table: Table, length: int) -> None:
        sizes = table.lengths("ids").astype(np.int64) - 1  # the last id of a row is only predicted
        cuts, held = [0], 0
        for row, size in enumerate(sizes.tolist()):
            if held + size > length and held:
                cuts.append(row)
                held = 0
            held += size
        self._cuts = np.array([*cuts, len(sizes)])
        self._sizes = np.add.reduceat(sizes, self._cuts[:-1])

    def __len__(self) -> int:
        return len(self._sizes)

    def rows(self, index: int) -> range:
        """Give the rows of a pack."""
        return range(int(self._cuts[index]), int(self._cuts[index + 1]))

    def lengths(self, indices: Ints) -> tuple[Ints, Ints]:
        """Give how many places the packs fill; there is no source."""
        return np.zeros(len(indices), dtype=np.int64), self._sizes[indices]


@final
@dataclass(frozen=True)
class HfSamples(Samples):
    """The rows of a table, or packs of them, as samples whose batches are `HfBatch`."""

    table: Table
    packs: Packing
    pad: int
    seq2seq: bool
    packed: bool

    def __len__(self) -> int:
        return len(self.packs)

    def lengths(self, indices: Ints) -> tuple[Ints, Ints]:
        """Give how many ids samples have, source and target: [B] each."""
        return self.packs.lengths(indices)

    def batch(self, indices: Ints) -> HfBatch:
        """Make a batch of samples."""
        rows = [self._ids(index) for index in indices.tolist()]
        if self.seq2seq:
            return seq2seq_batch(rows, self.pad)
        return causal_batch(rows, self.pad, packed=self.packed)

    def targets(self, indices: Ints) -> int:
        """Count the targets of samples."""
        rows = [row for index in indices.tolist() for row in self.packs.rows(index)]
        return int(self.table.values("targets", np.array(rows, dtype=np.int64)).sum())

    def expected(self, samples: int) -> float:
        """Estimate the targets of so many samples."""
        return self.table.total("targets") * samples / max(1, len(self))

    def _ids(self, index: int) -> Ids:
        rows = np.array(self.packs.rows(index))
        ids, lengths = self.table.gather("ids", rows)
        counted, _ = self.table.gather("counted", rows)
        source, _ = self.table.gather("sources", rows[:1])
        sizes = lengths.tolist()
        return Ids(
            ids=torch.split(torch.from_numpy(ids), sizes),
            counted=torch.split(torch.from_numpy(counted), sizes),
            source=torch.from_numpy(source),
            bytes=sum(self.table.values("bytes", rows).tolist()),
            index=index,
        )


def hf_feed(table: Table, batching: Batching, *, seq2seq: bool, pad: int, pack: int | None = None) -> TableFeed:
    """Make a feed of rows of `table`; with `pack`, rows lie behind one another in places for `pack` tokens.

    Then a pack counts as a sample.
    """
    packs: Packing = Alone(table) if pack is None else Packed(table, pack)
    return TableFeed(HfSamples(table, packs, pad, seq2seq=seq2seq, packed=pack is not None), batching)
