"""The feed of rows for a `transformers` model: padded batches of similar lengths, or packs."""

from typing import Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray

from etude.base.says import Say, unheard
from etude.data.feeds.feed import Limit
from etude.data.feeds.planned import PlannedFeed
from etude.data.feeds.workers import Workers
from etude.data.order.plan import CountPlan, Keys, Plan, Share
from etude.data.order.windows import Budget, Count, WindowPlan
from etude.tasks.hf.batch import HfBatch, Ids, causal_batch, seq2seq_batch
from etude.tasks.hf.rows import RowTable

Ints = NDArray[np.int64]


class Groups(Protocol):
    """Which rows of a table lie together in one row of a batch."""

    def __len__(self) -> int: ...

    def rows(self, index: int) -> range:
        """Give the rows of a group."""

    def lengths(self, indices: Ints) -> tuple[Ints, Ints]:
        """Give how many ids the groups have, source and target: [B] each."""


@final
class Alone:
    """Every row for itself."""

    def __init__(self, table: RowTable) -> None:
        self._sources, self._targets = table.lengths("sources"), table.lengths("ids")

    def __len__(self) -> int:
        return len(self._targets)

    def rows(self, index: int) -> range:
        """Give the row of a group."""
        return range(index, index + 1)

    def lengths(self, indices: Ints) -> tuple[Ints, Ints]:
        """Give how many ids the rows have, source and target: [B] each."""
        return self._sources[indices].astype(np.int64), self._targets[indices].astype(np.int64)


@final
class Packed:
    """Neighbours together as long as `length` places hold them: the same packs in every epoch."""

    def __init__(self, table: RowTable, length: int) -> None:
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
class HfFeed(PlannedFeed):
    """Batches of rows from `table`, by count (`batch_size`) or by token budget (`batch_tokens`), all ranks together.

    With `pack`, rows lie behind one another in places for `pack` tokens, and a pack counts as a sample. Training by
    count takes the order of the epoch as it comes; by budget, and in evaluation, rows of similar lengths together.
    """

    def __init__(  # noqa: PLR0913 - the options of [data] and [train], one for one
        self,
        table: RowTable,
        *,
        seq2seq: bool,
        pad: int,
        seed: int,
        batch_size: int | None = None,
        batch_tokens: int | None = None,
        pack: int | None = None,
        shuffle: bool = True,
        evaluation: bool = False,
        workers: int = 0,
        pin_memory: bool = False,
        rank: int = 0,
        world: int = 1,
        limit: Limit | None = None,
        varying: bool = False,
        notice: Say = unheard,
    ) -> None:
        if (batch_size is None) == (batch_tokens is None):
            raise ValueError("A feed takes either batch_size or batch_tokens.")
        groups: Groups = Alone(table) if pack is None else Packed(table, pack)
        fetch = HfFetch(table, groups, pad, seq2seq=seq2seq, packed=pack is not None)
        share, self._rows, self._whole = Share(rank, world), table, len(groups)
        plan: Plan
        if batch_size is not None and not evaluation:
            plan = CountPlan(len(groups), batch_size, seed=seed, shuffle=shuffle, share=share)
        else:
            plan = WindowPlan(
                len(groups),
                groups.lengths,
                Budget if batch_tokens is not None else Count,
                batch_tokens or batch_size or 0,
                seed=seed,
                shuffle=shuffle and not evaluation,
                share=share,
            )
        crew = Workers(fetch, count=workers, pin_memory=pin_memory) if workers else None
        super().__init__(plan, fetch, workers=crew, pin_memory=pin_memory, limit=limit, varying=varying, notice=notice)

    @property
    def targets(self) -> float:
        """Targets of an epoch that a loss counts."""
        return self._rows.total("targets") * (self.samples or self._whole) / max(1, self._whole)


@final
class HfFetch:
    """Makes a batch of a table's groups of rows, the same in every epoch."""

    def __init__(self, table: RowTable, groups: Groups, pad: int, *, seq2seq: bool, packed: bool) -> None:
        self._table = table
        self._groups = groups
        self._pad = pad
        self._seq2seq = seq2seq
        self._packed = packed

    def __call__(self, epoch: int, indices: Keys) -> HfBatch:
        """Give the batch of the groups `indices`."""
        del epoch
        rows = [self._ids(int(index)) for index in indices]
        if self._seq2seq:
            return seq2seq_batch(rows, self._pad)
        return causal_batch(rows, self._pad, packed=self._packed)

    def _ids(self, index: int) -> Ids:
        rows = np.array(self._groups.rows(index))
        ids, lengths = self._table.gather("ids", rows)
        counted, _ = self._table.gather("counted", rows)
        source, _ = self._table.gather("sources", rows[:1])
        sizes = lengths.tolist()
        return Ids(
            ids=torch.split(torch.from_numpy(ids), sizes),
            counted=torch.split(torch.from_numpy(counted), sizes),
            source=torch.from_numpy(source),
            bytes=sum(self._table.values("bytes", rows).tolist()),
            index=index,
        )
