"""Parallel text for a run: the files of each split, their tokenizers, prepared tables, and feeds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from etude.app.config import PairsConfig
from etude.app.corpus import CACHE, SKIPPED, Say
from etude.app.sizes import evaluation_size, training_size
from etude.base.errors import ConfigError, DataError, RefusedError, StorageError
from etude.base.files import make_folder, whole_folder
from etude.base.schedules import ScheduleSection, largest
from etude.base.schedules.values import ScheduledValue
from etude.data.feeds.pairs import PairFeed, pair_measures
from etude.data.files.names import Split
from etude.data.files.parallel import SIDES, PairSource, open_pairs
from etude.data.files.skipped import write_skipped
from etude.data.order.curriculum import Curriculum
from etude.data.order.plan import Measure
from etude.data.store.difficulty import difficulties
from etude.data.store.fitting import fit_tokenizers
from etude.data.store.prepared import TokenTable, prepare_pairs
from etude.data.tokens.tokenizers import Tokenizer, load_tokenizer

LIMITS = ("max_difficulty", "max_length")
"""Keys of `[data]` that leave samples out of an epoch."""


@dataclass
class SplitData:
    """One split: its texts and their tokens."""

    source: PairSource
    table: TokenTable

    def __len__(self) -> int:
        return len(self.table)

    def references(self, indices: Sequence[int]) -> list[str]:
        """The raw target texts of these rows."""
        return [self.source[self.table.origin(index)][1] for index in indices]

    def sources(self, indices: Sequence[int]) -> list[str]:
        """The raw source texts of these rows."""
        return [self.source[self.table.origin(index)][0] for index in indices]


@dataclass
class Pairs:
    """The parallel text of a run."""

    config: PairsConfig
    tokenizers: Mapping[str, Tokenizer]
    splits: dict[str, SplitData] = field(default_factory=dict)

    @property
    def shared(self) -> bool:
        """Whether one tokenizer serves both sides."""
        return self.tokenizers["source"] is self.tokenizers["target"]

    @property
    def skipped(self) -> int:
        """Samples left out of all splits."""
        return sum(split.table.skipped for split in self.splits.values())

    def told(self) -> str:
        """What a run begins with: its splits and their sizes."""
        return ", ".join(f"{name} {len(split):,}" for name, split in self.splits.items()) + " pairs"

    def size(self, split: str) -> str:
        """How much a split holds, with its unit."""
        return f"{len(self.splits[split]):,} pairs"

    def sources(self) -> list[PairSource]:
        """Parts that may listen to a run's events."""
        return [split.source for split in self.splits.values()]

    def save_tokenizers(self, folder: Path) -> None:
        """Write both sides' tokenizers, a shared one once, all or none; a run keeps those it began with."""
        save_tokenizers(self.tokenizers, folder)

    def held(self, split: str) -> SplitData:
        """What `split` is judged on: the one fixed set of `overfit`, which is of the training data, or its own."""
        if "train" in self.splits and (self.config.train.overfit is not None or split not in self.splits):
            return self.splits["train"]
        return self.splits[split]

    def train_feed(self, say: Say) -> PairFeed:
        """Training batches, in an order computed from the seed."""
        return train_feed(self.config, self.splits["train"], say)

    def evaluation_feed(self, split: str, say: Say) -> PairFeed:
        """Every pair of a split once, in a fixed order, similar lengths together."""
        return evaluation_feed(self.config, self.splits[split], split, say)

    def scheduled_values(self, feed: PairFeed) -> list[ScheduledValue]:
        """What the batches of an epoch are planned by and a schedule drives."""
        return [_planned_by(key, spec, feed) for key, spec in planned_values(self.config).items()]

    def fingerprints(self) -> dict[str, str]:
        """What tells one split's content from another's."""
        return {name: split.table.fingerprint for name, split in self.splits.items()}

    def write_skipped(self, folder: Path) -> None:
        """List every sample left out in `skipped.jsonl`."""
        write_skipped(folder / SKIPPED, [(split.table, split.source) for split in self.splits.values()])


def open_split(config: PairsConfig, name: str, say: Say) -> PairSource:
    """The texts of one split, as `[data]` names them.

    Raises ConfigError where the config names none, DataError where its files cannot be used.
    """
    split: Split | None = getattr(config.data, name)
    if split is None:
        raise ConfigError(f"data.{name} is not set: name a file, as in --data.{name} pairs.tsv.")
    cache = config.run.dir / CACHE
    make_folder(cache)
    return open_pairs(
        split,
        source=config.data.source,
        target=config.data.target,
        cache=cache,
        notice=say,
        key=f"data.{name}",
    )


def prepare(config: PairsConfig, splits: Sequence[str], say: Say, stored: Path | None = None) -> Pairs:
    """Open, tokenise and map the given splits; `stored` holds the tokenizers of a run that is there already.

    Without `stored` the tokenizers learn from the train split.
    """
    cache = config.run.dir / CACHE
    sources = {name: open_split(config, name, say) for name in splits}
    if stored is not None and stored.is_dir():
        tokenizers = load_tokenizers(stored)
    else:
        trained_on = sources.get("train") or open_split(config, "train", say)
        tokenizers = fit_tokenizers(config.tokenizer, trained_on, cache, config.data.policy)
    pairs = Pairs(config, tokenizers)
    for name, source in sources.items():
        table = prepare_pairs(source, tokenizers, cache, config.data.policy, notice=say)
        pairs.splits[name] = SplitData(source, table)
    return pairs


def save_tokenizers(tokenizers: Mapping[str, Tokenizer], folder: Path) -> None:
    """Write both sides' tokenizers, a shared one once, all or none; a run keeps those it began with."""
    if folder.is_dir():
        return
    with whole_folder(folder, "write", replace=True) as part:
        if tokenizers["source"] is tokenizers["target"]:
            tokenizers["source"].save(part / "shared.json")
        else:
            for side in SIDES:
                tokenizers[side].save(part / f"{side}.json")


def load_tokenizers(folder: Path) -> dict[str, Tokenizer]:
    """What `save_tokenizers` wrote. Raises RefusedError where it is not there, StorageError where it is damaged."""
    shared = folder / "shared.json"
    if shared.exists():
        return dict.fromkeys(SIDES, _stored(shared))
    missing = [side for side in SIDES if not (folder / f"{side}.json").exists()]
    if missing:
        raise RefusedError(f"{folder} does not hold the tokenizers of a run: {missing[0]}.json is missing.")
    return {side: _stored(folder / f"{side}.json") for side in SIDES}


def _stored(path: Path) -> Tokenizer:
    try:
        return load_tokenizer(path)
    except DataError as error:
        raise StorageError(f"The run's tokenizer is damaged: {error}") from error


def train_feed(config: PairsConfig, split: SplitData, say: Say) -> PairFeed:
    """Training batches, in an order computed from the seed."""
    train = config.train
    overfit = train.overfit
    return PairFeed(
        split.table,
        place=split.source.location,
        seed=config.run.seed,
        **training_size(train),
        shuffle=overfit is None,
        workers=config.data.workers,
        pin_memory=True,
        limit=train.limit_train if overfit is None else overfit,
        varying=bool(planned_values(config)) or _cut_by_difficulty(config),
        notice=say,
        curriculum=_curriculum(config, split) if overfit is None else None,
        longest=longest_trained(config),
    )


def planned_values(config: PairsConfig) -> dict[str, ScheduleSection]:
    """What the batches of an epoch are planned by and a schedule drives, by key."""
    train, data = config.train, config.data
    size = "batch_tokens" if train.batch_tokens is not None else "batch_size"
    found = {f"train.{size}": getattr(train, size)}
    if train.overfit is None:
        found |= {f"data.{name}": getattr(data, name) for name in LIMITS}
    return {key: value for key, value in found.items() if isinstance(value, ScheduleSection)}


def _planned_by(key: str, spec: ScheduleSection, feed: PairFeed) -> ScheduledValue:
    """One of them, and how the feed takes it up."""
    name = key.rpartition(".")[2]
    apply: Callable[[Any], None] = partial(feed.restrict, name) if name in LIMITS else feed.resize
    return ScheduledValue(key, spec, apply, when="epoch", whole=name != "max_difficulty")


def _curriculum(config: PairsConfig, split: SplitData) -> Curriculum | None:
    """Which pairs an epoch takes, and in which order; None where it is all of them, shuffled."""
    data, table = config.data, split.table
    limits = {"max_difficulty": data.max_difficulty} if data.max_difficulty is not None else {}
    if isinstance(data.max_length, ScheduleSection):
        limits["max_length"] = data.max_length
    longer, ease = pair_measures(table)
    measures: dict[str, Measure] = {"max_length": longer}
    if data.difficulty is not None:  # also where nothing goes by it yet: a wrong column is found at once
        numbers = difficulties(split.source, data.difficulty, table, config.run.dir / CACHE)
        ease = measures["max_difficulty"] = numbers.view(np.ndarray).__getitem__
    if not limits and data.order == "shuffled":
        return None
    widest = {"max_length": longest_trained(config) or inf, "max_difficulty": inf}
    first = {name: widest[name] if isinstance(limit, ScheduleSection) else limit for name, limit in limits.items()}
    return Curriculum(
        len(table),
        seed=config.run.seed,
        measures=measures,
        limits=first,
        ease=ease,
        kind=data.order,
        easy_epochs=data.easy_first_epochs,
        varying=any(isinstance(limit, ScheduleSection) for limit in limits.values()),
    )


def longest_trained(config: PairsConfig) -> int | None:
    """The most tokens of either side that any epoch takes, as far as the config tells."""
    limit = config.data.max_length
    return None if limit is None else largest(limit)


def _cut_by_difficulty(config: PairsConfig) -> bool:
    """Whether batches by tokens follow the order of difficulty, which makes their number another every epoch."""
    by_tokens = config.train.batch_tokens is not None
    return by_tokens and config.data.difficulty is not None and config.data.order != "shuffled"


def evaluation_feed(config: PairsConfig, split: SplitData, name: str, say: Say) -> PairFeed:
    """Every pair of a split once, in a fixed order, similar lengths together."""
    train = config.train
    if train.overfit is not None:
        return train_feed(config, split, say)
    return PairFeed(
        split.table,
        place=split.source.location,
        seed=config.run.seed,
        **evaluation_size(train),
        evaluation=True,
        workers=0,
        limit={"val": train.limit_val, "test": train.limit_test}.get(name, 1.0),
        notice=say,
    )
