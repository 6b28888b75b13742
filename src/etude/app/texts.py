"""Text for a run: the files of each split, the tokenizer, prepared shards, and feeds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from etude.app.config import TextConfig
from etude.app.corpus import CACHE, SKIPPED, Say
from etude.app.sizes import evaluation_size, training_size
from etude.base.errors import ConfigError, DataError, RefusedError, StorageError
from etude.base.files import make_folder, whole_folder
from etude.base.schedules import ScheduleSection
from etude.base.schedules.values import ScheduledValue
from etude.data.feeds.text_feed import TextFeed, Weighed
from etude.data.files.skipped import write_skipped
from etude.data.files.text_source import TextCorpus, open_texts
from etude.data.files.text_split import PARTS, WHOLE
from etude.data.store.progress import SpokenProgress
from etude.data.store.text_fitting import fit_text_tokenizer
from etude.data.store.text_prepared import prepare_texts
from etude.data.store.text_table import TextTable
from etude.data.text_config import WeighedText
from etude.data.tokens.tokenizers import Tokenizer
from etude.data.tokens.tokenizers import load_tokenizer as load_file

SHARED = "shared.json"
MILLION = 1e6


@dataclass
class TextSplit:
    """One split: the prepared text of each of its sources."""

    tables: list[TextTable]

    def __len__(self) -> int:
        return sum(map(len, self.tables))

    @property
    def fingerprint(self) -> str:
        """What tells its content from another's."""
        return "+".join(table.fingerprint for table in self.tables)

    @property
    def tokens(self) -> int:
        """Targets of a pass."""
        return sum(table.targets for table in self.tables)


@dataclass
class Texts:
    """The text of a run."""

    config: TextConfig
    tokenizer: Tokenizer
    splits: dict[str, TextSplit] = field(default_factory=dict)

    @property
    def skipped(self) -> int:
        """Documents left out of all corpora; a corpus that is divided counts once."""
        folders = {table.folder: table.skipped for split in self.splits.values() for table in split.tables}
        return sum(folders.values())

    def told(self) -> str:
        """What a run begins with: its splits and their sizes."""
        return ", ".join(f"{name} {self.size(name)}" for name in self.splits)

    def size(self, split: str) -> str:
        """How much a split holds, with its unit."""
        held = self.splits[split]
        tokens = f"{held.tokens / MILLION:,.2f} M" if held.tokens >= MILLION / 10 else f"{held.tokens:,}"
        return f"{len(held):,} documents ({tokens} tokens)"

    def sources(self) -> list[TextTable]:
        """Parts that may listen to a run's events."""
        return [table for split in self.splits.values() for table in split.tables]

    def fingerprints(self) -> dict[str, str]:
        """What tells one split's content from another's."""
        return {name: split.fingerprint for name, split in self.splits.items()}

    def write_skipped(self, folder: Path) -> None:
        """List every document left out in `skipped.jsonl`."""
        tables = {table.folder: table for split in self.splits.values() for table in split.tables}
        write_skipped(folder / SKIPPED, [(table, table) for table in tables.values()])

    def save_tokenizers(self, folder: Path) -> None:
        """Write the tokenizer; a run keeps the one it began with."""
        if folder.is_dir():
            return
        with whole_folder(folder, "write", replace=True) as part:
            self.tokenizer.save(part / SHARED)

    def train_feed(self, say: Say) -> TextFeed:
        """Training batches, in an order computed from the seed."""
        return self._train_feed("train", say)

    def _train_feed(self, split: str, say: Say) -> TextFeed:
        config, train = self.config, self.config.train
        tables = self.splits[split].tables
        weights = [_constant(weight, 1.0) for _, weight in entries(config)]
        overfit = train.overfit
        return TextFeed(
            tables[0] if len(tables) == 1 else [Weighed(*one) for one in zip(tables, weights, strict=True)],
            seed=config.run.seed,
            **self._shape(),
            **training_size(train),
            order="contiguous" if config.contiguous else "shuffled",
            shuffle=overfit is None,
            workers=config.data.workers,
            pin_memory=True,
            limit=train.limit_train if overfit is None else overfit,
            varying=any(key.startswith("train.") for key in self.planned()),
            varying_block=isinstance(config.data.block_size, ScheduleSection),
            notice=say,
        )

    def evaluation_feed(self, split: str, say: Say) -> TextFeed:
        """Every target of a split once, in a fixed order."""
        config, train = self.config, self.config.train
        if train.overfit is not None:
            return self._train_feed(split, say)
        limit = {"val": train.limit_val, "test": train.limit_test}.get(split, 1.0)
        # A state that is carried goes through a split as it lies; other models may take its rows in any company.
        tables = self.splits[split].tables
        return TextFeed(
            tables[0] if len(tables) == 1 else [Weighed(table, 1.0) for table in tables],
            seed=config.run.seed,
            **self._shape(),
            **evaluation_size(train),
            order="contiguous" if config.contiguous else "shuffled",
            evaluation=True,
            limit=limit,
            notice=say,
        )

    def _shape(self) -> dict[str, Any]:
        longest = self.config.longest_block
        return {"block_size": longest or 1, "packing": self.config.data.packing}

    def planned(self) -> dict[str, ScheduleSection]:
        """What the batches of an epoch are planned by and a schedule drives, by key."""
        train, data = self.config.train, self.config.data
        size = "batch_tokens" if train.batch_tokens is not None else "batch_size"
        found: dict[str, Any] = {f"train.{size}": getattr(train, size), "data.block_size": data.block_size}
        if train.overfit is None:
            found |= {f"data.train.{number}.weight": weight for number, (_, weight) in enumerate(entries(self.config))}
        return {key: value for key, value in found.items() if isinstance(value, ScheduleSection)}

    def scheduled_values(self, feed: TextFeed) -> list[ScheduledValue]:
        """What the batches of an epoch are planned by and a schedule drives."""
        return [_planned_by(key, spec, feed) for key, spec in self.planned().items()]


def entries(config: TextConfig) -> list[tuple[Any, Any]]:
    """What is trained on: one corpus, or the paths and weights of a mixture."""
    train: Any = config.data.train
    if isinstance(train, tuple) and train and isinstance(train[0], WeighedText):
        return [(part.path, part.weight) for part in train]
    return [(train, 1.0)]


def prepare(config: TextConfig, splits: Sequence[str], say: Say, stored: Path | None = None) -> Texts:
    """Open, tokenise and map splits; `stored` holds the tokenizer of a run that is there already.

    Without `stored` the tokenizer learns from the train split. Splits that are divided off the training text are
    there with it.
    """
    data, cache = config.data, config.run.dir / CACHE
    make_folder(cache)
    divided = data.rule is not None and any(getattr(data, name) is None for name in splits)
    corpora: list[TextCorpus] = []
    if "train" in splits or divided or stored is None or not stored.is_dir():
        corpora = [_open(config, paths, "data.train", say) for paths, _ in entries(config)]
    if stored is not None and stored.is_dir():
        tokenizer = load_tokenizer(stored)
    else:
        report = SpokenProgress(f"Reading {corpora[0].name} for the tokenizer", say)
        tokenizer = fit_text_tokenizer(
            config.tokenizer,  # type: ignore[arg-type]  # one, as was checked
            corpora,
            cache,
            data.rule,
            data.policy,
            report=report,
            notice=say,
        )
    texts = Texts(config, tokenizer)
    if "train" in splits or divided:
        for corpus in corpora:
            parts = _tables(config, corpus, tokenizer, say, divides=True)
            for name, table in parts.items():
                texts.splits.setdefault("train" if name == WHOLE else name, TextSplit([])).tables.append(table)
    for name in splits:
        if name != "train" and (paths := getattr(data, name)) is not None:
            corpus = _open(config, paths, f"data.{name}", say)
            texts.splits[name] = TextSplit([*_tables(config, corpus, tokenizer, say, divides=False).values()])
        elif name not in texts.splits and name != "val":
            raise ConfigError(f"data.{name} is not set: name a file or folder, as in --data.{name} texts/.")
    texts.splits = {name: texts.splits[name] for name in PARTS if name in texts.splits}
    return texts


def _tables(
    config: TextConfig, corpus: TextCorpus, tokenizer: Tokenizer, say: Say, *, divides: bool
) -> dict[str, TextTable]:
    return prepare_texts(
        corpus,
        tokenizer,
        config.run.dir / CACHE,
        config.data.rule if divides else None,
        config.data.policy,
        report=SpokenProgress(f"Tokenising {corpus.name}", say),
        notice=say,
    ).parts


def _open(config: TextConfig, paths: Any, key: str, say: Say) -> TextCorpus:
    """The documents that a key names. Raises ConfigError where it names none."""
    if paths is None:
        raise ConfigError(f"{key} is not set: name a file or folder of text, as in --{key} texts/.")
    data = config.data
    if isinstance(paths, tuple) and isinstance(paths[0], WeighedText):
        raise ConfigError(f"{key} must be files or folders: a mixture is for data.train.")
    return open_texts(
        paths,
        field=data.text,
        separator=data.document_separator,
        cache=config.run.dir / CACHE,
        notice=say,
        key=key,
    )


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a run. Raises RefusedError where it is not there, StorageError where it is damaged."""
    path = folder / SHARED
    if not path.exists():
        raise RefusedError(f"{folder} does not hold the tokenizer of a run: {SHARED} is missing.")
    try:
        return load_file(path)
    except DataError as error:
        raise StorageError(f"The run's tokenizer is damaged: {error}") from error


def _planned_by(key: str, spec: ScheduleSection, feed: TextFeed) -> ScheduledValue:
    """One scheduled value, and how the feed takes it up."""
    name = key.rpartition(".")[2]
    if name == "weight":
        number = int(key.split(".")[2])
        return ScheduledValue(key, spec, partial(feed.reweigh, number), f"weight/{number}", when="epoch")
    apply: Callable[[Any], None] = feed.resize_block if name == "block_size" else feed.resize
    return ScheduledValue(key, spec, apply, when="epoch", whole=True)


def _constant(value: Any, otherwise: float) -> float:
    """A number, or what stands for a schedule until its first epoch begins."""
    return otherwise if isinstance(value, ScheduleSection) else float(value)
