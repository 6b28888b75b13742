"""The splits of a run whose samples lie in prepared tables: what is the same whatever a sample is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from etude.base.says import Say
from etude.base.schedules.values import ScheduledValue
from etude.data.feeds.batching import Batching
from etude.data.feeds.table_feed import TableFeed
from etude.data.files.skipped import PlacedSource, write_skipped
from etude.data.store.table import Table
from etude.tasks import batches
from etude.tasks.config import Config
from etude.tasks.task_type import Data, Processor

P = TypeVar("P", bound=Processor)
S = TypeVar("S", bound=PlacedSource)


@dataclass
class TableSplit(Generic[S]):
    """One split: its samples as they stand in files, and what was prepared of them."""

    source: S
    table: Table

    def __len__(self) -> int:
        return len(self.table)


T = TypeVar("T", bound=TableSplit[Any])


class TableData(Data[P], Generic[P, T]):
    """The splits of a run, each a table."""

    unit: ClassVar[str]
    """What samples are called, several of them."""
    config: Config
    splits: dict[str, T]

    @property
    def skipped(self) -> int:
        """Samples left out of all splits."""
        return sum(split.table.skipped for split in self.splits.values())

    def told(self) -> str:
        """What a run begins with: its splits and their sizes."""
        return ", ".join(f"{name} {len(split):,}" for name, split in self.splits.items()) + f" {self.unit}"

    def size(self, split: str) -> str:
        """How much a split holds, with its unit."""
        return f"{len(self.splits[split]):,} {self.unit}"

    def sources(self) -> Sequence[object]:
        """Parts that may listen to a run's events."""
        return [split.source for split in self.splits.values()]

    def fingerprints(self) -> dict[str, str]:
        """What tells one split's content from another's."""
        return {name: split.table.fingerprint for name, split in self.splits.items()}

    def write_skipped(self, path: Path) -> None:
        """List every sample left out, with its place and the reason."""
        write_skipped(path, [(split.table, split.source) for split in self.splits.values()])

    def only(self, split: str, held: str) -> None:
        """Leave but the split `held`, under the name `split`."""
        self.splits = {split: self.splits[held]}

    def held(self, split: str) -> T:
        """What `split` is judged on: the one fixed set of `overfit`, which is of the training data, or its own."""
        if "train" in self.splits and (self.config.train.overfit is not None or split not in self.splits):
            return self.splits["train"]
        return self.splits[split]

    def batching(self, split: str, workers: int, say: Say, *, training: bool) -> Batching:
        """How batches of a split are made: for training, or each sample once in a fixed order."""
        if training or self.config.train.overfit is not None:
            return batches.training(self.config, workers, say)
        return batches.evaluating(self.config, split, say)

    def scheduled_values(self, feed: TableFeed) -> Sequence[ScheduledValue]:
        """The size of batches, where a schedule drives it."""
        apply: Callable[[Any], None] = feed.resize
        sizes = batches.size_schedule(self.config.train)
        return [ScheduledValue(key, spec, apply, when="epoch", whole=True) for key, spec in sizes.items()]
