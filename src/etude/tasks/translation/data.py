"""Parallel text for a run: the files of each split, their tokenizers, prepared tables, and feeds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any

import numpy as np

from etude.base.errors import ConfigError, DataError
from etude.base.files import make_folder
from etude.base.says import Say
from etude.base.schedules import ScheduleSection
from etude.base.schedules.values import ScheduledValue
from etude.data.feeds.batches import PairBatch
from etude.data.feeds.pairs import pair_feed, pair_measures
from etude.data.feeds.table_feed import TableFeed
from etude.data.files.parallel import SIDES, PairSource, open_pairs
from etude.data.order.curriculum import Curriculum
from etude.data.order.plan import Measure
from etude.data.store.difficulty import difficulties
from etude.data.store.fitting import fit_tokenizers
from etude.data.store.pairs import prepare_pairs
from etude.model.transformer import TransformerConfig
from etude.tasks import batches
from etude.tasks.tables import TableData, TableSplit
from etude.tasks.task_type import Columns
from etude.tasks.translation.config import TranslationRun
from etude.tasks.translation.processor import PairProcessor
from etude.tasks.translation.task import TranslationTask
from etude.train.task import Task

LIMITS = ("max_difficulty", "max_length")
"""Keys of `[data]` that leave samples out of an epoch."""


class PairSplit(TableSplit[PairSource]):
    """One split: its texts and their tokens."""

    def references(self, indices: Sequence[int]) -> list[str]:
        """The raw target texts of these rows."""
        return [self.source[self.table.origin(index)][1] for index in indices]

    def sources(self, indices: Sequence[int]) -> list[str]:
        """The raw source texts of these rows."""
        return [self.source[self.table.origin(index)][0] for index in indices]


@dataclass
class Pairs(TableData[PairProcessor, PairSplit]):
    """The parallel text of a run."""

    unit = "pairs"

    config: TranslationRun
    processor: PairProcessor
    splits: dict[str, PairSplit] = field(default_factory=dict)

    # -- batches -------------------------------------------------------------------------------------------------------

    def feed(self, split: str, *, training: bool = False, say: Say) -> TableFeed:
        """Batches of a split: each pair once, similar lengths together or, for training, in the order of the seed."""
        trains = training or self.config.train.overfit is not None
        return self._train_feed(split, say) if trains else self._evaluation_feed(split, say)

    def _train_feed(self, name: str, say: Say) -> TableFeed:
        config, split = self.config, self.splits[name]
        varying = bool(self._planned()) or self._cut_by_difficulty()
        return pair_feed(
            split.table,
            batches.training(config, config.data.workers, say, varying=varying),
            place=split.source.location,
            curriculum=None if config.train.overfit is not None else self._curriculum(split),
            longest=config.data.longest,
        )

    def _evaluation_feed(self, name: str, say: Say) -> TableFeed:
        split = self.splits[name]
        return pair_feed(split.table, batches.evaluating(self.config, name, say), place=split.source.location)

    def scheduled_values(self, feed: TableFeed) -> list[ScheduledValue]:
        """What the batches of an epoch are planned by and a schedule drives."""
        return [self._scheduled(feed, key, spec) for key, spec in self._planned().items()]

    @staticmethod
    def _scheduled(feed: TableFeed, key: str, spec: ScheduleSection) -> ScheduledValue:
        name = key.rpartition(".")[2]
        apply: Callable[[Any], None] = partial(feed.restrict, name) if name in LIMITS else feed.resize
        return ScheduledValue(key, spec, apply, when="epoch", whole=name != "max_difficulty")

    def _planned(self) -> dict[str, ScheduleSection]:
        """What the batches of an epoch are planned by and a schedule drives, by key."""
        train, data = self.config.train, self.config.data
        found = batches.size_schedule(train)
        if train.overfit is None:
            found |= batches.scheduled({"data.max_difficulty": data.max_difficulty, "data.max_length": data.max_length})
        return found

    def _cut_by_difficulty(self) -> bool:
        """Whether batches by tokens follow the order of difficulty, which makes their number another every epoch."""
        data = self.config.data
        by_tokens = self.config.train.batch_tokens is not None
        return by_tokens and data.difficulty is not None and data.order != "shuffled"

    def _curriculum(self, split: PairSplit) -> Curriculum | None:
        """Which pairs an epoch takes, and in which order; None where it is all of them, shuffled."""
        data = self.config.data
        moving = batches.scheduled({"max_difficulty": data.max_difficulty, "max_length": data.max_length})
        # Also where nothing goes by difficulty yet: a wrong column is found at once.
        measures, ease = self._measures(split)
        # What a schedule drives begins as wide as it comes; a constant length has left its samples out already.
        first = {} if data.max_difficulty is None else {"max_difficulty": data.max_difficulty}
        first |= {name: inf if name == "max_difficulty" else data.longest or inf for name in moving}
        if not first and data.order == "shuffled":
            return None
        return Curriculum(
            len(split.table),
            seed=self.config.run.drawn_from,
            measures=measures,
            limits=first,
            ease=ease,
            kind=data.order,
            easy_epochs=data.easy_first_epochs,
            varying=bool(moving),
        )

    def _measures(self, split: PairSplit) -> tuple[dict[str, Measure], Measure]:
        """What limits are compared with, by name; and what says which pairs are easy."""
        longer, ease = pair_measures(split.table)
        column = self.config.data.difficulty
        if column is None:
            return {"max_length": longer}, ease
        numbers = difficulties(split.source, column, split.table, self.config.cache)
        difficulty: Measure = numbers.view(np.ndarray).__getitem__
        return {"max_length": longer, "max_difficulty": difficulty}, difficulty

    # -- what stands beside them ---------------------------------------------------------------------------------------

    def attend(self, task: Task, *, judged: str = "val") -> None:
        """Let evaluation compare with the raw texts, and find now the sample that a model has no position for."""
        match self.config.model:
            case TransformerConfig() as model:
                self._check_lengths(model)
        match task:
            case TranslationTask():
                self._give_references(task, judged)

    def _give_references(self, task: TranslationTask, judged: str) -> None:
        for name, split in {"val": judged, "test": "test"}.items():
            if "train" in self.splits or split in self.splits:
                task.use_references(name, self._held(split).references)

    def beside(self, split: str, batch: object) -> Columns:
        """Each sample's number in its files, and its raw texts."""
        if not isinstance(batch, PairBatch):
            return {}
        held, rows = self._held(split), batch.indices.tolist()
        return {
            "sample": [int(held.table.origin(row)) for row in rows],
            "source": held.sources(rows),
            "target": held.references(rows),
        }

    def _held(self, split: str) -> PairSplit:
        """What `split` is judged on: the one fixed set of `overfit`, which is of the training data, or its own."""
        if "train" in self.splits and (self.config.train.overfit is not None or split not in self.splits):
            return self.splits["train"]
        return self.splits[split]

    def _check_lengths(self, model: TransformerConfig) -> None:
        """Find now the sample that would have no position when its batch comes."""
        trained = self.config.data.longest
        for name, split in self.splits.items() if model.positions == "learned" else ():
            if name != "train" or trained is None or trained >= model.max_positions:
                for side in SIDES:
                    _check_side(split, side, model.max_positions)


def _check_side(split: PairSplit, side: str, positions: int) -> None:
    lengths = split.table.lengths(side)
    row = int(lengths.argmax())
    if lengths[row] + 1 > positions:  # with the sign of its end, or of its beginning
        place = split.source.location(split.table.origin(row))
        raise DataError(
            f"{place} has {int(lengths[row]) + 1} tokens on the {side} side, special tokens included, more "
            f"than model.max_positions = {positions}: raise it, lower data.max_length, or take "
            'model.positions = "rotary".'
        )


def open_split(config: TranslationRun, name: str, say: Say) -> PairSource:
    """The texts of one split, as `[data]` names them.

    Raises ConfigError where the config names none, DataError where its files cannot be used.
    """
    data = config.data
    split = {"train": data.train, "val": data.val, "test": data.test}[name]
    if split is None:
        raise ConfigError(f"data.{name} is not set: name a file, as in --data.{name} pairs.tsv.")
    cache = config.cache
    make_folder(cache)
    return open_pairs(
        split, source=data.source, target=data.target, form=data.form, cache=cache, notice=say, key=f"data.{name}"
    )


def prepare(config: TranslationRun, splits: Sequence[str], say: Say, processor: PairProcessor | None = None) -> Pairs:
    """Open, tokenise and map the given splits; without a `processor` the tokenizers learn from the train split."""
    cache = config.cache
    sources = {name: open_split(config, name, say) for name in splits}
    if processor is None:
        trained_on = sources.get("train") or open_split(config, "train", say)
        processor = PairProcessor(**fit_tokenizers(config.tokenizer, trained_on, cache, config.data.policy, notice=say))
    pairs = Pairs(config, processor)
    for name, source in sources.items():
        table = prepare_pairs(source, processor.tokenizers, cache, config.data.policy, notice=say)
        pairs.splits[name] = PairSplit(source, table)
    return pairs
