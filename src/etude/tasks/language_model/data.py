"""Text for a run: the files of each split, the tokenizer, prepared shards, and feeds."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from etude.base.errors import ConfigError
from etude.base.files import make_folder
from etude.base.says import Say, unheard
from etude.base.schedules import ScheduleSection
from etude.base.schedules.values import ScheduledValue
from etude.data.feeds.batching import Batching
from etude.data.feeds.text_feed import TextFeed, Weighed
from etude.data.feeds.text_masks import TextMasks
from etude.data.files.skipped import write_skipped
from etude.data.files.text_files import text_files
from etude.data.files.text_source import TextCorpus, open_texts
from etude.data.files.text_split import PARTS, WHOLE
from etude.data.store.progress import SpokenProgress
from etude.data.store.text_fitting import fit_text_tokenizer
from etude.data.store.text_prepared import prepare_texts
from etude.data.store.text_table import TextTable
from etude.data.tokens.config import TokenizerPair
from etude.data.tokens.tokenizers import Tokenizer
from etude.tasks import batches
from etude.tasks.language_model.config import TextField, TextRun, WeighedText
from etude.tasks.language_model.processor import TextProcessor
from etude.tasks.task_type import Data

MILLION = 1e6

Weight: TypeAlias = float | ScheduleSection


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
class Texts(Data[TextProcessor]):
    """The text of a run."""

    config: TextRun
    processor: TextProcessor
    splits: dict[str, TextSplit] = field(default_factory=dict)

    @property
    def skipped(self) -> int:
        """Documents left out of all corpora; a corpus that is divided counts once."""
        return sum(table.skipped for table in self._corpora())

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

    def write_skipped(self, path: Path) -> None:
        """List every document left out, with its place and the reason."""
        write_skipped(path, [(table, table) for table in self._corpora()])

    def only(self, split: str, held: str) -> None:
        """Leave but the split `held`, under the name `split`."""
        self.splits = {split: self.splits[held]}

    def _corpora(self) -> list[TextTable]:
        """One table of each corpus, which lists what was left out of all its splits."""
        return list({table.folder: table for table in self.sources()}.values())

    # -- batches -------------------------------------------------------------------------------------------------------

    def feed(self, split: str, *, training: bool = False, say: Say) -> TextFeed:
        """Batches of a split: every target once, as it lies or, for training, in the order of the seed."""
        trains = training or self.config.train.overfit is not None
        return self._train_feed(split, say) if trains else self._evaluation_feed(split, say)

    def _train_feed(self, split: str, say: Say) -> TextFeed:
        config = self.config
        weights = [_constant(weight, 1.0) for _, weight in entries(config)]
        return self._feed(
            _weighed(self.splits[split].tables, weights),
            batches.training(config, config.data.workers, say),
            varying_block="data.block_size" in self._planned(),
            anew=config.train.overfit is None,
        )

    def _evaluation_feed(self, split: str, say: Say) -> TextFeed:
        tables = self.splits[split].tables
        return self._feed(_weighed(tables, [1.0] * len(tables)), batches.evaluating(self.config, split, say))

    def _feed(
        self, tables: TextTable | list[Weighed], batching: Batching, *, varying_block: bool = False, anew: bool = False
    ) -> TextFeed:
        shares, tokens = self.config.masks, self.processor.tokenizer.size
        return TextFeed(
            tables,
            batching,
            block_size=self.config.longest_block or 1,
            packing=self.config.data.packing,
            order=self._order(),
            varying_block=varying_block,
            masks=None if shares is None else TextMasks(shares, tokens, batching.seed, anew),
        )

    def _order(self) -> Literal["contiguous", "shuffled"]:
        """A state that is carried goes through a split as it lies; other models may take its rows in any company."""
        return "contiguous" if self.config.contiguous else "shuffled"

    def scheduled_values(self, feed: TextFeed) -> list[ScheduledValue]:
        """What the batches of an epoch are planned by and a schedule drives."""
        return [_scheduled(feed, key, spec) for key, spec in self._planned().items()]

    def _planned(self) -> dict[str, ScheduleSection]:
        """What the batches of an epoch are planned by and a schedule drives, by key."""
        train, data = self.config.train, self.config.data
        found: dict[str, object] = {"data.block_size": data.block_size}
        if train.overfit is None:
            found |= {f"data.train.{number}.weight": weight for number, (_, weight) in enumerate(entries(self.config))}
        return batches.size_schedule(train) | batches.scheduled(found)


def _weighed(tables: list[TextTable], weights: Sequence[float]) -> TextTable | list[Weighed]:
    """What a feed takes: one table, or several with how much is drawn of each."""
    return tables[0] if len(tables) == 1 else [Weighed(*one) for one in zip(tables, weights, strict=True)]


def _scheduled(feed: TextFeed, key: str, spec: ScheduleSection) -> ScheduledValue:
    """One scheduled value, and how the feed takes it up."""
    name = key.rpartition(".")[2]
    if name == "weight":
        number = int(key.split(".")[2])
        return ScheduledValue(key, spec, partial(feed.reweigh, number), f"weight/{number}", when="epoch")
    apply: Callable[[Any], None] = feed.resize_block if name == "block_size" else feed.resize
    return ScheduledValue(key, spec, apply, when="epoch", whole=True)


def entries(config: TextRun) -> list[tuple[TextField | None, Weight]]:
    """What is trained on: one corpus, or the paths and weights of a mixture."""
    match config.data.train:
        case (WeighedText(), *_) as parts:
            return [(part.path, part.weight) for part in cast("tuple[WeighedText, ...]", parts)]
        case paths:
            return [(paths, 1.0)]


def prepare(config: TextRun, splits: Sequence[str], say: Say, processor: TextProcessor | None = None) -> Texts:
    """Open, tokenise and map splits; without a `processor` the tokenizer learns from the train split.

    Splits that are divided off the training text are there with it.
    """
    return _Preparation(config, splits, say).texts(processor)


class _Preparation:
    """Opens what splits need of the files of a run."""

    def __init__(self, config: TextRun, splits: Sequence[str], say: Say) -> None:
        self._config = config
        self._names = splits
        self._say = say
        self._cache = config.cache
        divided = config.data.rule is not None and any(config.data.split_of(name) is None for name in splits)
        self._trains = "train" in splits or divided
        make_folder(self._cache)

    def texts(self, processor: TextProcessor | None) -> Texts:
        """The splits, tokenised."""
        corpora = self._training_corpora() if self._trains or processor is None else []
        texts = Texts(self._config, processor or TextProcessor(self._learned(corpora)))
        tokenizer = texts.processor.tokenizer
        for corpus in corpora if self._trains else ():
            _divide(texts, self._tables(corpus, tokenizer, divides=True))
        for name in self._names:
            self._add(texts, name)
        texts.splits = {name: texts.splits[name] for name in PARTS if name in texts.splits}
        return texts

    def _training_corpora(self) -> list[TextCorpus]:
        return [self._open(paths, "data.train") for paths, _ in entries(self._config)]

    def _add(self, texts: Texts, name: str) -> None:
        """The split that has files of its own. Raises ConfigError for one that is nowhere."""
        data = self._config.data
        paths = {"train": data.train, "val": data.val, "test": data.test}[name]
        if name != "train" and paths is not None:
            corpus = self._open(paths, f"data.{name}")
            texts.splits[name] = TextSplit([*self._tables(corpus, texts.processor.tokenizer, divides=False).values()])
        elif name not in texts.splits and name != "val":
            raise ConfigError(f"data.{name} is not set: name a file or folder, as in --data.{name} texts/.")

    def _learned(self, corpora: Sequence[TextCorpus]) -> Tokenizer:
        config = self._config
        assert not isinstance(config.tokenizer, TokenizerPair)  # as was checked
        return fit_text_tokenizer(
            config.tokenizer,
            corpora,
            self._cache,
            config.data.rule,
            config.data.policy,
            report=SpokenProgress(f"Reading {corpora[0].name} for the tokenizer", self._say),
            notice=self._say,
        )

    def _tables(self, corpus: TextCorpus, tokenizer: Tokenizer, *, divides: bool) -> dict[str, TextTable]:
        data = self._config.data
        return prepare_texts(
            corpus,
            tokenizer,
            self._cache,
            data.rule if divides else None,
            data.policy,
            report=SpokenProgress(f"Tokenising {corpus.name}", self._say),
            notice=self._say,
        ).parts

    def _open(self, paths: TextField | None, key: str) -> TextCorpus:
        """The documents that a key names. Raises ConfigError where it names none."""
        if paths is None:
            raise ConfigError(f"{key} is not set: name a file or folder of text, as in --{key} texts/.")
        match paths:
            case (WeighedText(), *_):
                raise ConfigError(f"{key} must be files or folders: a mixture is for data.train.")
        data = self._config.data
        return open_texts(
            cast("Path | str | tuple[Path, ...]", paths),
            field=data.text,
            separator=data.document_separator,
            cache=self._cache,
            notice=self._say,
            key=key,
        )


def files_read(config: TextRun, split: str) -> Iterator[Path]:
    """The files of text of one split. Raises DataError where one is not there, or none is of text."""
    for path in _paths(config.data.split_of(split)):
        yield from (file.path for file in text_files([path], f"data.{split}", unheard))


def _paths(value: object) -> Iterator[Path]:
    """The files and folders that a split names; a corpus has none."""
    match value:
        case Path():
            yield value
        case WeighedText(path=inside):
            yield from _paths(inside)
        case tuple() | list():
            yield from chain.from_iterable(map(_paths, value))


def _divide(texts: Texts, tables: Mapping[str, TextTable]) -> None:
    """Add the parts of a corpus to the splits of their names."""
    for name, table in tables.items():
        texts.splits.setdefault("train" if name == WHOLE else name, TextSplit([])).tables.append(table)


def _constant(value: Weight, otherwise: float) -> float:
    """A number, or what stands for a schedule until its first epoch begins."""
    match value:
        case ScheduleSection():
            return otherwise
        case number:
            return float(number)
