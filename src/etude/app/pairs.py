"""Parallel text for a run: the files of each split, their tokenizers, prepared tables, and feeds."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etude.app.config import Config
from etude.base.errors import ConfigError, DataError, RefusedError, StorageError
from etude.base.files import fsync_folder, make_folder, storage
from etude.base.schedules import ScheduleSection
from etude.data.config import Split
from etude.data.fitting import fit_tokenizers
from etude.data.pairs import PairFeed
from etude.data.parallel import SIDES, PairSource, open_pairs
from etude.data.prepared import TokenTable, prepare_pairs
from etude.data.skipped import write_skipped
from etude.data.tokenizers import Tokenizer, load_tokenizer

Say = Callable[[str], None]
TOKENIZERS = "tokenizers"
CACHE = ".cache"
SKIPPED = "skipped.jsonl"


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

    def fingerprints(self) -> dict[str, str]:
        """What tells one split's content from another's."""
        return {name: split.table.fingerprint for name, split in self.splits.items()}

    def write_skipped(self, folder: Path) -> None:
        """List every sample left out in `skipped.jsonl`."""
        write_skipped(folder / SKIPPED, [(split.table, split.source) for split in self.splits.values()])


def open_split(config: Config, name: str, say: Say) -> PairSource:
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


def prepare(config: Config, splits: Sequence[str], say: Say, stored: Path | None = None) -> Pairs:
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
    pairs = Pairs(tokenizers)
    for name, source in sources.items():
        table = prepare_pairs(source, tokenizers, cache, config.data.policy, notice=say)
        pairs.splits[name] = SplitData(source, table)
    return pairs


def save_tokenizers(tokenizers: Mapping[str, Tokenizer], folder: Path) -> None:
    """Write both sides' tokenizers, a shared one once, all or none; a run keeps those it began with."""
    if folder.is_dir():
        return
    partial = folder.with_name(f".{folder.name}.partial")
    with storage("write", folder):
        if partial.exists():
            shutil.rmtree(partial)
        make_folder(partial)
        if tokenizers["source"] is tokenizers["target"]:
            tokenizers["source"].save(partial / "shared.json")
        else:
            for side in SIDES:
                tokenizers[side].save(partial / f"{side}.json")
        partial.rename(folder)
        fsync_folder(folder.parent)


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


def train_feed(config: Config, split: SplitData, say: Say) -> PairFeed:
    """Training batches, in an order computed from the seed."""
    train = config.train
    overfit = train.overfit
    return PairFeed(
        split.table,
        place=split.source.location,
        seed=config.run.seed,
        batch_size=_whole(train.batch_size) if train.batch_tokens is None else None,
        batch_tokens=_whole(train.batch_tokens) if train.batch_tokens is not None else None,
        shuffle=overfit is None,
        workers=config.data.workers,
        pin_memory=True,
        limit=train.limit_train if overfit is None else overfit,
        varying=scheduled_size(config) is not None,
        notice=say,
    )


def evaluation_feed(config: Config, split: SplitData, name: str, say: Say) -> PairFeed:
    """Every pair of a split once, in a fixed order, similar lengths together."""
    train = config.train
    if train.overfit is not None:
        return train_feed(config, split, say)
    size = train.eval_batch_size
    tokens = train.batch_tokens if size is None else None
    return PairFeed(
        split.table,
        place=split.source.location,
        seed=config.run.seed,
        batch_size=None if tokens is not None else (size or _whole(train.batch_size)),
        batch_tokens=None if tokens is None else _whole(tokens),
        evaluation=True,
        workers=0,
        limit={"val": train.limit_val, "test": train.limit_test}.get(name, 1.0),
        notice=say,
    )


def scheduled_size(config: Config) -> ScheduleSection | None:
    """The schedule of the batch size, in samples or tokens, where it is one."""
    size = config.train.batch_tokens if config.train.batch_tokens is not None else config.train.batch_size
    return size if isinstance(size, ScheduleSection) else None


def _whole(size: Any) -> int:
    """A constant size, or the smallest that a schedule reaches: its feed is resized before the first epoch."""
    if not isinstance(size, ScheduleSection):
        return int(size)
    return max(1, round(min((extreme.value for extreme in size.extremes()), default=64)))
