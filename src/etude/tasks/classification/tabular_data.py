"""Tables for a run: the files of each split, what their columns hold, prepared tables, and feeds."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from etude.base.errors import ConfigError, DataError
from etude.base.files import make_folder
from etude.base.says import Say
from etude.data.feeds.table_feed import TableFeed
from etude.data.feeds.tabular import TabularBatch, tabular_feed
from etude.data.files.lines import Flaw
from etude.data.files.records import Records, Row, generated_records, open_records
from etude.data.store.tabular import learned_inputs, prepare_tabular, told_of_gaps
from etude.data.store.targets import Numbers, OneLabel, SeveralLabels, Targets
from etude.tasks.classification.tabular_config import TabularRun, several
from etude.tasks.classification.tabular_processor import TabularProcessor
from etude.tasks.tables import TableData, TableSplit
from etude.tasks.task_type import Columns

RowSplit = TableSplit[Records]
"""One split: its rows, and what was prepared of them."""


@dataclass
class Rows(TableData[TabularProcessor, RowSplit]):
    """The tables of a run."""

    unit = "rows"

    config: TabularRun
    processor: TabularProcessor
    splits: dict[str, RowSplit] = field(default_factory=dict)

    def told(self) -> str:
        """What a run begins with: its splits, their sizes, the columns and the labels."""
        inputs, targets = self.processor.inputs, self.processor.targets
        columns = f"{len(inputs.numbers)} numbers and {len(inputs.categories)} categories"
        return f"{super().told()} of {columns}, with {len(targets.names):,} {targets.unit}"

    def feed(self, split: str, *, training: bool = False, say: Say) -> TableFeed:
        """Batches of a split: each row once, or, for training, in the order of the seed."""
        batching = self.batching(split, self.config.data.workers, say, training=training)
        return tabular_feed(self.splits[split].table, self.processor.targets, batching)

    def beside(self, split: str, batch: object) -> Columns:
        """Each sample's number in its files."""
        if not isinstance(batch, TabularBatch):
            return {}
        held = self.held(split)
        given: dict[str, Sequence[object]] = {"sample": [held.table.origin(row) for row in batch.indices.tolist()]}
        match self.processor.targets:
            case OneLabel(names=names):
                given["target"] = [names[number] for number in batch.targets.tolist()]
        return given


def open_split(config: TabularRun, name: str, say: Say) -> Records:
    """The rows of one split, as `[data]` names them.

    Raises ConfigError where the config names none, DataError where its files cannot be used.
    """
    data = config.data
    split = {"train": data.train, "val": data.val, "test": data.test}[name]
    if split is None:
        raise ConfigError(f"data.{name} is not set: name a file, as in --data.{name} table.csv.")
    make_folder(config.cache)
    key = f"data.{name}"
    if isinstance(split, str):
        return generated_records(split, key, config.cache, say)
    return open_records(split, quotes=data.quotes, cache=config.cache, notice=say, key=key)


def prepare(config: TabularRun, splits: Sequence[str], say: Say, processor: TabularProcessor | None = None) -> Rows:
    """Open and encode splits; without a `processor` columns are learned from the train split, and told."""
    sources = {name: open_split(config, name, say) for name in splits}
    if processor is None:
        processor = _learned(config, sources.get("train") or open_split(config, "train", say), say)
    rows = Rows(config, processor)
    by = None if config.by is None else str(config.by)
    for name, source in sources.items():
        policy = config.data.policy
        table = prepare_tabular(source, processor.inputs, processor.targets, config.cache, policy, by=by, notice=say)
        rows.splits[name] = RowSplit(source, table)
        for gap in told_of_gaps(table, processor.inputs) if name != "train" else ():
            say(f"data.{name}: {gap}.")
    return rows


def _learned(config: TabularRun, source: Records, say: Say) -> TabularProcessor:
    data = config.data
    targets = learned_targets(config.predicts, data.predicted, data.separator, source)
    taken = {source.column(name, "data.label") for name in targets.columns}
    others = [name for place, name in enumerate(source.names) if place not in taken]
    given = several(config.data.inputs) or tuple(others)
    twice = next((name for name in given if source.column(name, "data.inputs") in taken), None)
    if twice is not None:
        raise DataError(f'data.inputs names "{twice}", which is what is predicted.')
    inputs = learned_inputs(source, given, config.data.categories, say)
    for line in (*inputs.told(), targets.told()):
        say(line)
    return TabularProcessor(inputs, targets)


def learned_targets(predicts: str, names: Sequence[str], separator: str, source: Records) -> Targets:
    """What the rows of the training data are labelled with, in the columns of these names."""
    key = {"label": "data.label", "labels": "data.labels", "numbers": "data.targets"}[predicts]
    file = source.place(0)[0]
    places = [source.column(name, key) for name in names]
    cells = ([row[place] for place in places] for row in _readable(source))
    match predicts:
        case "labels":
            return SeveralLabels.learned(names, separator if len(names) == 1 else "", cells, file)
        case "numbers":
            return Numbers.learned(names, cells, file)
    return OneLabel.learned(names[0], (row[0] for row in cells), file)


def _readable(source: Records) -> Sequence[Row]:
    return [row for row in source.rows(0, len(source)) if not isinstance(row, Flaw)]
