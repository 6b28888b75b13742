"""Labelled texts for a run: the files of each split, tokenizer and label set, prepared tables, and feeds."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from etude.base.errors import ConfigError, DataError
from etude.base.files import make_folder
from etude.base.says import Say
from etude.data.feeds.labelled import SPECIALS, LabelledBatch, labelled_feed
from etude.data.feeds.table_feed import TableFeed
from etude.data.files.names import LABELLED
from etude.data.files.parallel import PairSource, open_pairs
from etude.data.store.fitting import fit_tokenizer
from etude.data.store.labelled import LABEL, TEXT, labelled_cells, labels_of, prepare_labelled
from etude.data.store.table import Table
from etude.data.store.targets import Numbers, OneLabel, SeveralLabels, Targets
from etude.data.tokens.config import TokenizerPair
from etude.data.tokens.tokenizers import Tokenizer
from etude.model.encoder import EncoderConfig
from etude.tasks.classification.processor import LabelProcessor
from etude.tasks.classification.texts_config import ClassificationRun
from etude.tasks.tables import TableData, TableSplit
from etude.tasks.task_type import Columns
from etude.train.task import Task

LabelledSplit = TableSplit[PairSource]
"""One split: its texts and labels, and their numbers."""


ROLES = {
    "label": LABELLED,
    "labels": LABELLED._replace(names=("text", "labels"), lists=True, optional=True),
    "numbers": LABELLED._replace(names=("text", "targets")),
}
"""What the two cells of a sample are, by the kind of target."""
TEXTS_ALONE = LABELLED._replace(names=("text", "text"), numbers=False)
"""The same where several columns are predicted, which are read beside the text."""


@dataclass
class LabelledTexts(TableData[LabelProcessor, LabelledSplit]):
    """The labelled texts of a run."""

    unit = "texts"

    config: ClassificationRun
    processor: LabelProcessor
    splits: dict[str, LabelledSplit] = field(default_factory=dict)

    def told(self) -> str:
        """What a run begins with: its splits, their sizes, and the labels."""
        return f"{super().told()} with {len(self.processor.labels):,} {self.processor.targets.unit}"

    def feed(self, split: str, *, training: bool = False, say: Say) -> TableFeed:
        """Batches of a split: each text once, similar lengths together or, for training, in the order of the seed."""
        held = self.splits[split]
        batching = self.batching(split, self.config.data.workers, say, training=training)
        return labelled_feed(held.table, batching, held.source.location, self.processor.targets)

    def attend(self, task: Task, *, judged: str = "val") -> None:
        """Find now the text that a model has no position for."""
        del task, judged
        match self.config.model:
            case EncoderConfig(positions="learned", max_positions=most):
                for split in self.splits.values():
                    _check_lengths(split, most)

    def beside(self, split: str, batch: object) -> Columns:
        """Each sample's number in its files, its text, and its label."""
        if not isinstance(batch, LabelledBatch):
            return {}
        held = self.held(split)
        numbers = [held.table.origin(row) for row in batch.indices.tolist()]
        pairs = [held.source[number] for number in numbers]
        given: dict[str, Sequence[object]] = {"sample": numbers, "source": [pair.source for pair in pairs]}
        match self.processor.targets:
            case OneLabel():
                return {**given, "target": [pair.target.strip() for pair in pairs]}
        return given


def _check_lengths(split: LabelledSplit, positions: int) -> None:
    lengths = split.table.lengths(TEXT)
    row = int(lengths.argmax())
    if lengths[row] + SPECIALS > positions:
        raise DataError(
            f"{split.source.location(split.table.origin(row))} has {int(lengths[row]) + SPECIALS} tokens, the end "
            f"included, more than model.max_positions = {positions}: raise it, lower data.max_length, or take "
            'model.positions = "rotary".'
        )


def open_split(config: ClassificationRun, name: str, say: Say) -> PairSource:
    """The texts and labels of one split, as `[data]` names them.

    Raises ConfigError where the config names none, DataError where its files cannot be used.
    """
    data = config.data
    split = {"train": data.train, "val": data.val, "test": data.test}[name]
    if split is None:
        raise ConfigError(f"data.{name} is not set: name a file, as in --data.{name} labelled.tsv.")
    cache = config.cache
    make_folder(cache)
    return open_pairs(
        split,
        source=data.text,
        target=data.target,
        form=data.form,
        cache=cache,
        notice=say,
        key=f"data.{name}",
        roles=TEXTS_ALONE if data.further else ROLES[config.predicts],
    )


def prepare(
    config: ClassificationRun, splits: Sequence[str], say: Say, processor: LabelProcessor | None = None
) -> LabelledTexts:
    """Open, tokenise and map splits; without a `processor` tokenizer and label set are those of the train split."""
    sources = {name: open_split(config, name, say) for name in splits}
    if processor is None:
        processor = _learned(config, sources.get("train") or open_split(config, "train", say), say)
    texts = LabelledTexts(config, processor)
    for name, source in sources.items():
        table = _prepared(config, source, processor.tokenizer, processor.targets, say)
        texts.splits[name] = LabelledSplit(source, table)
    return texts


def _learned(config: ClassificationRun, source: PairSource, say: Say) -> LabelProcessor:
    assert not isinstance(config.tokenizer, TokenizerPair)  # as was checked
    tokenizer = fit_tokenizer(config.tokenizer, source, config.cache, config.data.policy, notice=say)
    return LabelProcessor(tokenizer, _targets(config, source, tokenizer, say))


def _targets(config: ClassificationRun, source: PairSource, tokenizer: Tokenizer, say: Say) -> Targets:
    """What the texts of the training data are labelled with."""
    data, file = config.data, source.place(0)[0]
    names = [str(name) for name in data.predicted]
    cells = labelled_cells(source, data.further)
    match config.predicts:
        case "labels":
            return SeveralLabels.learned(names, "" if data.further else data.separator, cells, file)
        case "numbers":
            return Numbers.learned(names, cells, file)
    labels = tuple(labels_of(source))
    table = _prepared(config, source, tokenizer, OneLabel(str(data.label), labels, (0,) * len(labels)), say)
    counts = np.bincount(table.values(LABEL, np.arange(len(table))), minlength=len(labels))
    return OneLabel(str(data.label), labels, tuple(counts.tolist()))


def _prepared(config: ClassificationRun, source: PairSource, tokenizer: Tokenizer, targets: Targets, say: Say) -> Table:
    data = config.data
    return prepare_labelled(
        source, tokenizer, targets, config.cache, data.policy, by=config.by, further=data.further, notice=say
    )
