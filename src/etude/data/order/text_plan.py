"""Which rows of text make which batch: computed from (seed, epoch), gone on with anywhere at the cost of one window."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from etude.data.order.mixture import Mixing, total_of
from etude.data.order.plan import ALONE, Planned, Position, Share
from etude.data.order.text_rows import Cursor, Row, Rows, RowSource, cursors_at, segments_of
from etude.data.store.text_table import TextTable


class TextPlan:
    """Batches of `size` rows, or of as many rows of `block` places as hold `size` tokens, of one source or several.

    One source gives every row of a pass once; a sample is a block of its stream, or a document. Several are mixed by
    `weights`: an epoch has as many rows as all of them together, a source with a large weight begins again in another
    order, and of one with a small weight a part is seen; a sample is a row. The last batch may be smaller.
    """

    def __init__(  # noqa: PLR0913 - what a plan is made of
        self,
        sources: Sequence[RowSource],
        size: int,
        block: int,
        *,
        by_tokens: bool,
        documents: bool,
        seed: int,
        weights: Sequence[float] | None = None,
        varying: bool = False,
        share: Share = ALONE,
    ) -> None:
        self._sources = list(sources)
        self._size, self._block, self._by_tokens = size, block, by_tokens
        self._weights = list(weights or [1.0] * len(sources))
        self._documents, self._seed, self._varying, self._share = documents, seed, varying, share

    @property
    def samples(self) -> int:
        """Samples of an epoch, all ranks together; None where unknown."""
        return self._sources[0].segments(self._block) if self._alone else self._rows

    @property
    def batches(self) -> int:
        """Batches of an epoch: projected from one window of documents where there are several."""
        return -(-self._rows // self._per_batch(self._size, self._block))

    @property
    def exact(self) -> bool:
        """Whether `batches` is the number in every epoch."""
        return not self._varying and (not self._alone or self._sources[0].exact(self._block))

    def resize(self, size: int) -> None:
        """Set what a batch holds, for epochs begun from now on; one that is continued keeps its own size."""
        self._size = size

    def resize_block(self, block: int) -> None:
        """Set the length of rows, for epochs begun from now on; one that is continued keeps its own."""
        self._block = block

    def reweigh(self, source: int, weight: float) -> None:
        """Set the weight of a source, for epochs begun from now on."""
        self._weights[source] = weight

    def targets(self, counts: Sequence[int]) -> float:
        """Estimate the targets of an epoch, of which source k has `counts[k]` a pass."""
        if self._alone:
            return float(sum(counts))
        rows, total = self._rows, total_of(self._weights)
        parts = zip(self._sources, self._weights, counts, strict=True)
        return sum(rows * weight / total * count / source.count(self._block) for source, weight, count in parts)

    def epoch(self, epoch: int, position: Position | None = None) -> Iterator[Planned]:
        """Give the batches of an epoch, from its begin or right after the one that carried `position`."""
        at = dict(position or self._begin())
        block, size, total = at["block"], at["size"], self._rows_of(at["block"])
        documents = self._documents
        cursors = [
            source.cursor(epoch, block, where) for source, where in zip(self._sources, at["sources"], strict=True)
        ]
        mixing = None if self._alone else Mixing(at["weights"], seed=self._seed, epoch=epoch, at=at["mixture"])
        per_batch = self._per_batch(size, block)
        over = False
        while not over:
            if mixing is None:
                rows = cursors[0].take(per_batch)
                at["sample"] += (samples := segments_of(rows))
                over = cursors[0].at["pass"] > 0
            else:
                rows = _mixed(cursors, mixing.take(min(per_batch, total - at["sample"])))
                at["sample"] += (samples := len(rows))
                at["mixture"] = mixing.at
                over = at["sample"] == total
            at = {**at, "batch": at["batch"] + 1, "sources": cursors_at(cursors)}
            indices = self._share.of(Rows(rows, block, documents))
            yield Planned(indices, samples, dict(at), over, self._share.borrows(len(rows)))

    def _begin(self) -> dict[str, Any]:
        begin: dict[str, Any] = {"batch": 0, "sample": 0, "block": self._block, "size": self._size}
        begin["sources"] = [None] * len(self._sources)
        return begin if self._alone else begin | {"weights": list(self._weights), "mixture": None}

    @property
    def _alone(self) -> bool:
        return len(self._sources) == 1

    @property
    def _rows(self) -> int:
        return self._rows_of(self._block)

    def _rows_of(self, block: int) -> int:
        return sum(source.count(block) for source in self._sources)

    def _per_batch(self, size: int, block: int) -> int:
        return max(1, size // block) if self._by_tokens else size


def _mixed(cursors: list[Cursor], drawn: Any) -> list[Row]:
    """Take the rows that were drawn, each from the source that it was drawn from."""
    counts = np.bincount(drawn, minlength=len(cursors)).tolist()
    taken = [iter(_enough(cursor, count)) for cursor, count in zip(cursors, counts, strict=True)]
    return [next(taken[source]) for source in drawn.tolist()]


def _enough(cursor: Cursor, count: int) -> list[Row]:
    """Take rows from as many passes as it needs."""
    rows: list[Row] = []
    while len(rows) < count:
        rows.extend(cursor.take(count - len(rows)))
    return rows


class ContiguousPlan:
    """Batches whose row b goes on where row b of the batch before it ended, for a state that is carried over.

    The ring is cut into as many equal stretches as a batch has rows, those of the first rows one target longer where
    it cannot be even; every target is in one batch. All batches have as many rows; the last one of an epoch may have
    shorter ones. The order is that of the text, the same in every epoch.
    """

    exact = True

    def __init__(
        self,
        table: TextTable,
        size: int,
        block: int,
        *,
        by_tokens: bool,
        varying: bool = False,
        share: Share = ALONE,
    ) -> None:
        self._table, self._size, self._block, self._by_tokens = table, size, block, by_tokens
        self._share = share
        self.exact = not varying

    @property
    def samples(self) -> int:
        """Samples of an epoch, which are its rows; None where unknown."""
        return self.batches * self._streams(self._size, self._block)

    @property
    def batches(self) -> int:
        """Batches of an epoch; None where unknown."""
        return -(-self._longest(self._streams(self._size, self._block)) // self._block)

    def resize(self, size: int) -> None:
        """Set what a batch holds, for epochs begun from now on; one that is continued keeps its own size."""
        self._size = size

    def resize_block(self, block: int) -> None:
        """Set the length of rows, for epochs begun from now on; one that is continued keeps its own."""
        self._block = block

    def reweigh(self, source: int, weight: float) -> None:
        """Raise ValueError: there is one source."""
        raise ValueError(f"A contiguous stream has no weights, but source {source} was to have {weight}.")

    def targets(self, counts: Sequence[int]) -> float:
        """Give the targets of an epoch."""
        return float(sum(counts))

    def epoch(self, epoch: int, position: Position | None = None) -> Iterator[Planned]:
        """Give the batches of an epoch, from its begin or right after the one that carried `position`."""
        del epoch
        at = dict(position or {"batch": 0, "sample": 0, "block": self._block, "size": self._size})
        block, count = at["block"], self._streams(at["size"], at["block"])
        longest, rest = self._longest(count), self._table.targets % count
        number = np.arange(count)
        lengths = longest - (number >= rest) if rest else np.full(count, longest)
        begins = np.cumsum(lengths) - lengths
        for batch in range(at["batch"], -(-longest // block)):
            done = batch * block
            width = min(block, longest - done)
            rows = np.zeros((count, 1, 3), dtype=np.int64)
            rows[:, 0, 1], rows[:, 0, 2] = begins + done, np.minimum(lengths - done, width)
            at = {**at, "batch": batch + 1, "sample": at["sample"] + count}
            last = done + width == longest
            indices = self._share.of(Rows(list(rows), width, documents=False))
            yield Planned(indices, count, at, last, self._share.borrows(len(rows)))

    def _longest(self, streams: int) -> int:
        return -(-self._table.targets // streams)

    def _streams(self, size: int, block: int) -> int:
        """Give how many rows there are: no more than there are targets."""
        return min(max(1, size // block) if self._by_tokens else size, self._table.targets)
