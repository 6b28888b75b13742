"""Samples for a run of the hf task: the rows of each split, made by the model's own tokenizer, and feeds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etude.base.errors import ConfigError
from etude.base.files import make_folder
from etude.base.says import Say
from etude.base.schedules.values import ScheduledValue
from etude.data.feeds.table_feed import TableFeed
from etude.data.files.skipped import write_skipped
from etude.data.store.table import Table
from etude.tasks import batches
from etude.tasks.hf.build import build_task
from etude.tasks.hf.config import HfRun
from etude.tasks.hf.feed import hf_feed
from etude.tasks.hf.folder import HfParts, load_parts
from etude.tasks.hf.rows import prepare_rows
from etude.tasks.hf.samples import SampleSource, open_samples
from etude.tasks.hf.task import HfTask
from etude.tasks.task_type import Data


@dataclass
class SampleSplit:
    """One split: its samples and their rows."""

    source: SampleSource
    table: Table

    def __len__(self) -> int:
        return len(self.table)


@dataclass
class Samples(Data[HfParts]):
    """The splits of a run of the hf task."""

    config: HfRun
    processor: HfParts
    task: HfTask
    """Its tokenizer and template decide what the rows are."""
    splits: dict[str, SampleSplit] = field(default_factory=dict)

    @property
    def skipped(self) -> int:
        """Samples left out of all splits."""
        return sum(split.table.skipped for split in self.splits.values())

    def told(self) -> str:
        """What a run begins with: its splits and their sizes."""
        return ", ".join(f"{name} {len(split):,}" for name, split in self.splits.items()) + " rows"

    def size(self, split: str) -> str:
        """How much a split holds, with its unit."""
        return f"{len(self.splits[split]):,} rows"

    def fingerprints(self) -> dict[str, str]:
        """What tells one split's content from another's."""
        return {name: split.table.fingerprint for name, split in self.splits.items()}

    def write_skipped(self, path: Path) -> None:
        """List every sample left out, with its place and the reason."""
        write_skipped(path, [(split.table, split.source) for split in self.splits.values()])

    def only(self, split: str, held: str) -> None:
        """Leave but the split `held`, under the name `split`."""
        self.splits = {split: self.splits[held]}

    def sources(self) -> list[SampleSource]:
        """Parts that may listen to a run's events."""
        return [split.source for split in self.splits.values()]

    def feed(self, split: str, *, training: bool = False, say: Say) -> TableFeed:
        """Batches of a split: every row once, similar lengths together or, for training, in the order of the seed."""
        config = self.config
        trains = training or config.train.overfit is not None
        return hf_feed(
            self.splits[split].table,
            batches.training(config, config.data.workers, say) if trains else batches.evaluating(config, split, say),
            seq2seq=self.processor.seq2seq,
            pad=self.task.pad,
            pack=self.task.row_length(config.data.block_size) if config.data.packing else None,
        )

    def scheduled_values(self, feed: TableFeed) -> list[ScheduledValue]:
        """What the batches of an epoch are planned by and a schedule drives."""
        planned = batches.size_schedule(self.config.train)
        apply: Callable[[Any], None] = feed.resize
        return [ScheduledValue(key, spec, apply, when="epoch", whole=True) for key, spec in planned.items()]


def prepare(config: HfRun, splits: Sequence[str], say: Say, processor: HfParts | None = None) -> Samples:
    """Tokenise the given splits; without a `processor`, model and tokenizer are read from the model's folder.

    Raises ConfigError where the config names no such split, DataError where its files cannot be used.
    """
    parts = processor or load_parts(config.model, seed=config.run.seed)
    task, data, cache = build_task(config, parts), config.data, config.cache
    samples = Samples(config, parts, task)
    if data.packing:
        task.check_packing()
    for name in splits:
        split = {"train": data.train, "val": data.val, "test": data.test}[name]
        if split is None:
            raise ConfigError(f"data.{name} is not set: name a file, as in --data.{name} answers.jsonl.")
        make_folder(cache)
        source = open_samples(
            split,
            data.fields,
            source=data.source,
            target=data.target,
            form=data.form,
            cache=cache,
            notice=say,
            key=f"data.{name}",
        )
        table = prepare_rows(source, task.encoder, cache, data.policy, length=task.row_length(data.block_size))
        samples.splits[name] = SampleSplit(source, table)
    return samples
