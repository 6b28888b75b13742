"""The feed of prepared text."""

from collections.abc import Sequence
from typing import NamedTuple, final

from etude.base.errors import ConfigError
from etude.data.feeds.batching import Batching, workers_of
from etude.data.feeds.feed import Feed
from etude.data.feeds.fetching import Counted
from etude.data.feeds.planned import PlannedFeed
from etude.data.feeds.text_batches import TextFetch
from etude.data.feeds.text_masks import TextMasks
from etude.data.order.plan import Keys
from etude.data.order.text_plan import ContiguousPlan, TextPlan
from etude.data.order.text_rows import DocumentSource, Joined, Rows, StreamSource
from etude.data.store.text_table import TextTable


class Weighed(NamedTuple):
    """A part of a mixture."""

    table: TextTable
    weight: float


class _Layout(NamedTuple):
    """How rows lie in the text."""

    block: int
    documents: bool
    contiguous: bool
    varying: bool


@final
class TextFeed(PlannedFeed):
    """Batches of text of one table, or of several: a mixture by their weights, one after the other for `evaluation`.

    A batch has as many rows as `batching` says, or as its tokens fill, of `block_size` places. With `packing =
    "stream"` a row is a stretch of the stream of documents, with `"documents"` whole documents that know where they
    begin. `masks` hide tokens, which are the targets then. `order = "contiguous"` lets each row go on where that row of
    the batch before ended. Training cuts and shuffles anew in every epoch; `evaluation`, and training without
    `shuffle`, takes the text as it lies. Every target is in one batch of an epoch, but in a mixture.
    """

    def __init__(
        self,
        tables: TextTable | Sequence[Weighed],
        batching: Batching,
        *,
        block_size: int,
        packing: str = "stream",
        order: str = "shuffled",
        varying_block: bool = False,
        masks: TextMasks | None = None,
    ) -> None:
        parts = [Weighed(tables, 1.0)] if isinstance(tables, TextTable) else list(tables)
        layout = _Layout(block_size, packing == "documents", order == "contiguous", varying_block)
        self._tables = [part.table for part in parts]
        self._text_plan = _plan(parts, batching, layout)
        self._masks = masks
        fetch = TextFetch(self._tables, masks)
        super().__init__(
            self._text_plan,
            fetch,
            workers=workers_of(batching, fetch),
            pin_memory=batching.pin_memory,
            limit=batching.limit,
            varying=batching.varying,
            notice=batching.notice,
        )

    def resize_block(self, block: int) -> None:
        """Set the length of rows, for epochs begun from now on; one that is continued keeps its own."""
        self._text_plan.resize_block(block)

    def reweigh(self, source: int, weight: float) -> None:
        """Set the weight of a source of a mixture, for epochs begun from now on; one continued keeps its own."""
        self._text_plan.reweigh(source, weight)

    def counted(self) -> Feed:
        """Give a feed of the same epochs whose deliveries hold, in place of a batch, its targets."""
        return self.fetching(Counted(Rows.targets))

    def places(self, epoch: int, keys: Keys) -> int:
        """Give the places of that batch."""
        del epoch
        return len(keys) * keys.width if isinstance(keys, Rows) else 0

    @property
    def targets(self) -> float | None:
        """Targets of an epoch that a loss counts: every token, and the end of each document; None of masked text."""
        if self._masks is not None:
            return None
        plan = self._text_plan
        whole = plan.targets([table.targets for table in self._tables])
        return whole * min(1.0, (self.samples or plan.samples) / plan.samples)


def _plan(parts: Sequence[Weighed], batching: Batching, layout: _Layout) -> TextPlan | ContiguousPlan:
    if layout.contiguous:
        return _contiguous(parts, batching, layout)
    kind = DocumentSource if layout.documents else StreamSource
    sources = [
        kind(part.table, number, seed=batching.seed, shuffle=batching.shuffled) for number, part in enumerate(parts)
    ]
    return TextPlan(
        [Joined(sources)] if batching.evaluation and len(parts) > 1 else sources,
        batching.size,
        layout.block,
        by_tokens=batching.by_tokens,
        documents=layout.documents,
        seed=batching.seed,
        weights=[part.weight for part in parts],
        varying=layout.varying,
        share=batching.share,
    )


def _contiguous(parts: Sequence[Weighed], batching: Batching, layout: _Layout) -> ContiguousPlan:
    if layout.documents or len(parts) > 1:
        what = 'data.packing = "documents"' if layout.documents else "a mixture"
        raise ConfigError(f'data.order = "contiguous" follows one stream of text, and cannot be with {what}.')
    return ContiguousPlan(
        parts[0].table,
        batching.size,
        layout.block,
        by_tokens=batching.by_tokens,
        varying=layout.varying,
        share=batching.share,
    )
