"""Samples for a run of the hf task: the rows of each split, made by the model's own tokenizer, and feeds."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from etude.base.errors import ConfigError
from etude.base.files import make_folder
from etude.base.says import Say
from etude.data.feeds.table_feed import TableFeed
from etude.tasks.hf.build import build_task
from etude.tasks.hf.config import HfRun
from etude.tasks.hf.feed import hf_feed
from etude.tasks.hf.folder import HfParts, load_parts
from etude.tasks.hf.rows import prepare_rows
from etude.tasks.hf.samples import SampleSource, open_samples
from etude.tasks.hf.task import HfTask
from etude.tasks.tables import TableData, TableSplit

SampleSplit = TableSplit[SampleSource]
"""One split: its samples and their rows."""


@dataclass
class Samples(TableData[HfParts, SampleSplit]):
    """The splits of a run of the hf task."""

    unit = "rows"

    config: HfRun
    processor: HfParts
    task: HfTask
    """Its tokenizer and template decide what the rows are."""
    splits: dict[str, SampleSplit] = field(default_factory=dict)

    def feed(self, split: str, *, training: bool = False, say: Say) -> TableFeed:
        """Batches of a split: every row once, similar lengths together or, for training, in the order of the seed."""
        data = self.config.data
        return hf_feed(
            self.splits[split].table,
            self.batching(split, data.workers, say, training=training),
            seq2seq=self.processor.seq2seq,
            pad=self.task.pad,
            pack=self.task.row_length(data.block_size) if data.packing else None,
        )


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
