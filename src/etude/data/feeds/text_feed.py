"""The feed of prepared text."""

from collections.abc import Sequence
from typing import NamedTuple

from etude.base.errors import ConfigError
from etude.base.says import Say, unheard
from etude.data.feeds.feed import Limit
from etude.data.feeds.planned import PlannedFeed
from etude.data.feeds.text_batches import TextFetch
from etude.data.feeds.workers import Workers
from etude.data.order.plan import Share
from etude.data.order.text_plan import ContiguousPlan, TextPlan
from etude.data.order.text_rows import DocumentSource, Joined, StreamSource
from etude.data.store.text_table import TextTable


class Weighed(NamedTuple):
    """A part of a mixture."""

    table: TextTable
    weight: float


class TextFeed(PlannedFeed):
    """Batches of text of one table, or of several: a mixture by their weights, one after the other for `evaluation`.

    A batch has `batch_size` rows, or as many as `batch_tokens` tokens fill, of `block_size` places. With `packing =
    "stream"` a row is a stretch of the stream of documents, with `"documents"` whole documents that know where they
    begin. `order = "contiguous"` lets each row go on where that row of the batch before ended. Training cuts and
    shuffles anew in every epoch; `evaluation`, and training without `shuffle`, takes the text as it lies. Every
    target is in one batch of an epoch, but in a mixture.
    """

    def __init__(  # noqa: PLR0913 - the options of [data] and [train], one for one
        self,
        tables: TextTable | Sequence[Weighed],
        *,
        seed: int,
        block_size: int,
        batch_size: int | None = None,
        batch_tokens: int | None = None,
        packing: str = "stream",
        order: str = "shuffled",
        shuffle: bool = True,
        evaluation: bool = False,
        workers: int = 0,
        pin_memory: bool = False,
        rank: int = 0,
        world: int = 1,
        limit: Limit | None = None,
        varying: bool = False,
        varying_block: bool = False,
        notice: Say = unheard,
    ) -> None:
        if (batch_size is None) == (batch_tokens is None):
            raise ValueError("A feed takes either batch_size or batch_tokens.")
        parts = [Weighed(tables, 1.0)] if isinstance(tables, TextTable) else list(tables)
        self._tables = [part.table for part in parts]
        size, by_tokens, share = batch_size or batch_tokens or 0, batch_tokens is not None, Share(rank, world)
        documents = packing == "documents"
        plan: TextPlan | ContiguousPlan
        if order == "contiguous":
            if documents or len(parts) > 1:
                what = 'data.packing = "documents"' if documents else "a mixture"
                raise ConfigError(f'data.order = "contiguous" follows one stream of text, and cannot be with {what}.')
            plan = ContiguousPlan(
                self._tables[0], size, block_size, by_tokens=by_tokens, varying=varying_block, share=share
            )
        else:
            shuffle = shuffle and not evaluation
            kind = DocumentSource if documents else StreamSource
            sources = [kind(table, number, seed=seed, shuffle=shuffle) for number, table in enumerate(self._tables)]
            plan = TextPlan(
                [Joined(sources)] if evaluation and len(parts) > 1 else sources,
                size,
                block_size,
                by_tokens=by_tokens,
                documents=documents,
                seed=seed,
                weights=[part.weight for part in parts],
                varying=varying_block,
                share=share,
            )
        fetch = TextFetch(self._tables)
        crew = Workers(fetch, count=workers, pin_memory=pin_memory) if workers else None
        self._text_plan = plan
        super().__init__(
            plan,
            fetch,
            workers=crew,
            pin_memory=pin_memory,
            limit=limit,
            varying=varying,
            notice=notice,
        )

    def resize_block(self, block: int) -> None:
        """Set the length of rows, for epochs begun from now on; one that is continued keeps its own."""
        self._text_plan.resize_block(block)

    def reweigh(self, source: int, weight: float) -> None:
        """Set the weight of a source of a mixture, for epochs begun from now on; one continued keeps its own."""
        self._text_plan.reweigh(source, weight)

    @property
    def targets(self) -> float:
        """Targets of an epoch that a loss counts: every token, and the end of each document."""
        plan = self._text_plan
        whole = plan.targets([table.targets for table in self._tables])
        return whole * min(1.0, (self.samples or plan.samples) / plan.samples)
