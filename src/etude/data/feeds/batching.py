"""How a feed makes its batches, whatever they hold: what `[train]` and `[data]` say of it, as one value."""

from dataclasses import dataclass

from etude.base.says import Say, unheard
from etude.data.feeds.feed import Limit
from etude.data.feeds.fetching import Fetch
from etude.data.feeds.workers import Workers
from etude.data.order.plan import Share


@dataclass(frozen=True, kw_only=True)
class Batching:
    """Batches by count (`batch_size`) or by token budget (`batch_tokens`), all ranks together."""

    seed: int
    batch_size: int | None = None
    batch_tokens: int | None = None
    shuffle: bool = True
    """Whether every epoch has an order of its own; without, all are the same."""
    evaluation: bool = False
    """Whether batches are only evaluated: then every epoch is the same, in the order that is quickest."""
    workers: int = 0
    """Processes that make batches ahead of time; 0 makes them in this one."""
    pin_memory: bool = False
    limit: Limit | None = None
    """The first batches of each epoch that are taken; None takes all."""
    varying: bool = False
    """Whether the size of batches may change within an epoch, which is then counted in samples."""
    rank: int = 0
    world: int = 1
    notice: Say = unheard

    def __post_init__(self) -> None:
        if (self.batch_size is None) == (self.batch_tokens is None):
            raise ValueError("A feed takes either batch_size or batch_tokens.")

    @property
    def by_tokens(self) -> bool:
        """Whether the size is in tokens."""
        return self.batch_tokens is not None

    @property
    def size(self) -> int:
        """What a batch holds: samples or tokens."""
        return self.batch_tokens or self.batch_size or 0

    @property
    def shuffled(self) -> bool:
        """Whether epochs differ in their order."""
        return self.shuffle and not self.evaluation

    @property
    def share(self) -> Share:
        """Which part of every batch this process takes."""
        return Share(self.rank, self.world)


def workers_of(batching: Batching, fetch: Fetch) -> Workers | None:
    """Make the processes that run `fetch`, where there are to be some; the first batch starts them."""
    if not batching.workers:
        return None
    return Workers(fetch, count=batching.workers, pin_memory=batching.pin_memory)
