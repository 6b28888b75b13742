"""Samples for a run of the hf task: the folder's model and tokenizer, the rows of each split, and feeds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from etude.app.config import Config
from etude.app.corpus import CACHE, SKIPPED, Say
from etude.app.sizes import evaluation_size, training_size
from etude.base.errors import ConfigError
from etude.base.files import make_folder
from etude.base.schedules import ScheduleSection
from etude.base.schedules.values import ScheduledValue
from etude.data.files.skipped import write_skipped
from etude.model.losses import CrossEntropy, CrossEntropyWithZ, LossConfig
from etude.tasks.hf.batch import IGNORED
from etude.tasks.hf.feed import HfFeed
from etude.tasks.hf.folder import HfParts, load_parts, store_parts, stored_parts
from etude.tasks.hf.rows import RowTable, prepare_rows
from etude.tasks.hf.samples import SampleSource, open_samples
from etude.tasks.hf.task import HfTask


@dataclass
class SampleSplit:
    """One split: its samples and their rows."""

    source: SampleSource
    table: RowTable

    def __len__(self) -> int:
        return len(self.table)


@dataclass
class Samples:
    """The splits of a run of the hf task, and the model that they are made for."""

    config: Any
    parts: HfParts
    splits: dict[str, SampleSplit] = field(default_factory=dict)

    @cached_property
    def task(self) -> HfTask:
        """The task of the run: its tokenizer and template decide what the rows are."""
        given = self.config.loss
        if not isinstance(given, LossConfig):
            raise ConfigError(f'loss.type must be "cross_entropy" for the hf task, but is "{given.type}".')
        kind = CrossEntropyWithZ if given.z_loss != 0 else CrossEntropy
        return HfTask(self.parts, self.config.task, loss=kind.of(given, ignore_index=IGNORED))

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

    def write_skipped(self, folder: Path) -> None:
        """List every sample left out in `skipped.jsonl`."""
        write_skipped(folder / SKIPPED, [(split.table, split.source) for split in self.splits.values()])

    def save_tokenizers(self, folder: Path) -> None:
        """Write what makes model and tokenizer again, without the weights; a run keeps those it began with."""
        store_parts(self.parts.model, self.parts.tokenizer, folder)

    def sources(self) -> list[SampleSource]:
        """Parts that may listen to a run's events."""
        return [split.source for split in self.splits.values()]

    def train_feed(self, say: Say) -> HfFeed:
        """Training batches, in an order computed from the seed."""
        return self._train_feed("train", say)

    def evaluation_feed(self, split: str, say: Say) -> HfFeed:
        """Every row of a split once, in a fixed order, similar lengths together."""
        train = self.config.train
        if train.overfit is not None:
            return self._train_feed(split, say)
        return self._feed(
            split,
            **evaluation_size(train),
            evaluation=True,
            limit={"val": train.limit_val, "test": train.limit_test}.get(split, 1.0),
            notice=say,
        )

    def planned(self) -> dict[str, ScheduleSection]:
        """What the batches of an epoch are planned by and a schedule drives, by key."""
        name = "batch_size" if self.config.train.batch_tokens is None else "batch_tokens"
        size = getattr(self.config.train, name)
        return {f"train.{name}": size} if isinstance(size, ScheduleSection) else {}

    def scheduled_values(self, feed: HfFeed) -> list[ScheduledValue]:
        """What the batches of an epoch are planned by and a schedule drives."""
        apply: Callable[[Any], None] = feed.resize
        return [ScheduledValue(key, spec, apply, when="epoch", whole=True) for key, spec in self.planned().items()]

    def _train_feed(self, split: str, say: Say) -> HfFeed:
        train = self.config.train
        return self._feed(
            split,
            **training_size(train),
            shuffle=train.overfit is None,
            workers=self.config.data.workers,
            pin_memory=True,
            limit=train.limit_train if train.overfit is None else train.overfit,
            varying=bool(self.planned()),
            notice=say,
        )

    def _feed(self, split: str, **options: Any) -> HfFeed:
        length = self.task.row_length(self.config.data.block_size)
        return HfFeed(
            self.splits[split].table,
            seq2seq=self.parts.seq2seq,
            pad=self.task.pad,
            pack=length if self.config.data.packing else None,
            seed=self.config.run.seed,
            **options,
        )


def prepare(config: Config, splits: Sequence[str], say: Say, stored: Path | None = None) -> Samples:
    """Read model and tokenizer, and tokenise the given splits; `stored` is what `save_tokenizers` wrote for a run.

    Raises ConfigError where the config names no such split, DataError where its files cannot be used.
    """
    asked: Any = config
    if stored is not None and stored.is_dir():
        samples = stored_samples(config, stored)
    else:
        samples = Samples(config, load_parts(asked.model, seed=config.run.seed))
    task, data, cache = samples.task, asked.data, config.run.dir / CACHE
    if data.packing:
        task.check_packing()
    for name in splits:
        split = getattr(data, name)
        if split is None:
            raise ConfigError(f"data.{name} is not set: name a file, as in --data.{name} answers.jsonl.")
        make_folder(cache)
        source = open_samples(
            split, data.fields, source=data.source, target=data.target, cache=cache, notice=say, key=f"data.{name}"
        )
        table = prepare_rows(source, task.encoder, cache, data.policy, length=task.row_length(data.block_size))
        samples.splits[name] = SampleSplit(source, table)
    return samples


def stored_samples(config: Config, folder: Path) -> Samples:
    """A run's model, as yet without its weights, and its tokenizer, for predicting."""
    asked: Any = config
    return Samples(config, stored_parts(folder, asked.model.kind))
