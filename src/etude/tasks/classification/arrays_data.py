"""Arrays for a run: the files of each split, prepared tables, and feeds."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from etude.base.errors import ConfigError
from etude.base.files import make_folder
from etude.base.says import Say
from etude.data.feeds.arrays import array_feed
from etude.data.feeds.recorded import FrameBatch
from etude.data.feeds.table_feed import TableFeed
from etude.data.files.arrays import ArraySource, open_arrays
from etude.data.files.records import Records
from etude.data.store.arrays import Features, prepare_arrays
from etude.data.store.targets import OneLabel
from etude.tasks.classification.arrays_config import ArrayRun
from etude.tasks.classification.arrays_processor import ArrayProcessor
from etude.tasks.classification.tabular_data import learned_targets
from etude.tasks.tables import TableData, TableSplit
from etude.tasks.task_type import Columns

ArraySplit = TableSplit[Records]
"""One split: its cells, and what was prepared of its samples."""


@dataclass
class Arrays(TableData[ArrayProcessor, ArraySplit]):
    """The arrays of a run."""

    unit = "arrays"

    config: ArrayRun
    processor: ArrayProcessor
    splits: dict[str, ArraySplit] = field(default_factory=dict)

    def told(self) -> str:
        """What a run begins with: its splits, their sizes, and the labels."""
        features, targets = self.processor.features, self.processor.targets
        return f"{super().told()} of {len(features.means):,} features, with {len(targets.names):,} {targets.unit}"

    def feed(self, split: str, *, training: bool = False, say: Say) -> TableFeed:
        """Batches of a split: each array once or, for training, in the order of the seed."""
        batching = self.batching(split, self.config.data.workers, say, training=training)
        return array_feed(self.splits[split].table, self.processor.targets, batching)

    def beside(self, split: str, batch: object) -> Columns:
        """Each sample's number in its files, and its label."""
        if not isinstance(batch, FrameBatch):
            return {}
        held, rows = self.held(split), batch.indices.numpy()
        given: dict[str, Sequence[object]] = {"sample": [held.table.origin(row) for row in rows.tolist()]}
        match self.processor.targets:
            case OneLabel(names=names) as targets:
                given["target"] = [names[number] for number in targets.of_rows(held.table, rows).tolist()]
        return given


def open_split(config: ArrayRun, name: str, say: Say) -> ArraySource:
    """The arrays of one split, as `[data]` names them.

    Raises ConfigError where the config names none, DataError where its files cannot be used.
    """
    data = config.data
    split = {"train": data.train, "val": data.val, "test": data.test}[name]
    if split is None:
        raise ConfigError(f"data.{name} is not set: name a file, as in --data.{name} arrays.npz.")
    make_folder(config.cache)
    return open_arrays(split, data.array, cache=config.cache, notice=say, key=f"data.{name}")


def prepare(config: ArrayRun, splits: Sequence[str], say: Say, processor: ArrayProcessor | None = None) -> Arrays:
    """Open and standardise splits; without a `processor` statistics and labels are those of the train split."""
    sources = {name: open_split(config, name, say) for name in splits}
    if processor is None:
        processor = _learned(config, sources.get("train") or open_split(config, "train", say), say)
    arrays = Arrays(config, processor)
    by = None if config.by is None else str(config.by)
    for name, source in sources.items():
        table = prepare_arrays(
            source, processor.features, processor.targets, config.cache, config.data.policy, by=by, notice=say
        )
        arrays.splits[name] = ArraySplit(source.records, table)
    return arrays


def _learned(config: ArrayRun, source: ArraySource, say: Say) -> ArrayProcessor:
    data = config.data
    targets = learned_targets(config.predicts, data.predicted, data.separator, source.records)
    say(targets.told())
    return ArrayProcessor(Features.learned(source), targets)
