"""The data of a run, whatever its kind: what every kind can be asked for, and which kind a config means."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from etude.app.config import Config, PairsConfig, SamplesConfig, TextConfig
from etude.base.schedules.values import ScheduledValue
from etude.data.feeds.feed import Feed

Say = Callable[[str], None]
TOKENIZERS = "tokenizers"
"""The folder of a run that holds what turned text into tokens."""
CACHE = ".cache"
"""The folder beside the runs that holds prepared data."""
SKIPPED = "skipped.jsonl"


class Corpus(Protocol):
    """The splits of a run, tokenised."""

    splits: Any
    """By name."""

    @property
    def skipped(self) -> int:
        """Samples left out of all splits."""

    def told(self) -> str:
        """What a run begins with: its splits and their sizes."""

    def size(self, split: str) -> str:
        """How much a split holds, with its unit."""

    def fingerprints(self) -> dict[str, str]:
        """What tells one split's content from another's."""

    def write_skipped(self, folder: Path) -> None:
        """List every sample left out in `skipped.jsonl`."""

    def save_tokenizers(self, folder: Path) -> None:
        """Write the tokenizers, all or none; a run keeps those it began with."""

    def sources(self) -> Sequence[Any]:
        """Parts that may listen to a run's events."""

    def train_feed(self, say: Say) -> Feed:
        """Training batches, in an order computed from the seed."""

    def evaluation_feed(self, split: str, say: Say) -> Feed:
        """Every sample of a split once, in a fixed order."""

    def scheduled_values(self, feed: Any) -> Sequence[ScheduledValue]:
        """What the batches of an epoch are planned by and a schedule drives."""


def open_corpus(config: Config, splits: Sequence[str], say: Say, stored: Path | None = None) -> Corpus:
    """Open, tokenise and map splits; `stored` holds the tokenizers of a run that is there already.

    Without `stored` the tokenizers learn from the train split. A split that the config divides off the training data
    is there with it. Raises ConfigError where the config names none, DataError where its files cannot be used.
    """
    if isinstance(config, TextConfig):
        from etude.app.texts import prepare as prepare_texts

        return prepare_texts(config, splits, say, stored)
    if isinstance(config, SamplesConfig):
        from etude.app.samples import prepare as prepare_samples

        return prepare_samples(config, splits, say, stored)
    from etude.app.pairs import prepare as prepare_pairs

    assert isinstance(config, PairsConfig)
    return prepare_pairs(config, splits, say, stored)


def stored_corpus(config: Config, folder: Path) -> Corpus:
    """A run's tokenizers alone, for predicting. Raises RefusedError or StorageError where they cannot be had."""
    if isinstance(config, TextConfig):
        from etude.app.texts import Texts
        from etude.app.texts import load_tokenizer as load_one

        return Texts(config, load_one(folder))
    if isinstance(config, SamplesConfig):
        from etude.app.samples import stored_samples

        return stored_samples(config, folder)
    from etude.app.pairs import Pairs, load_tokenizers

    assert isinstance(config, PairsConfig)
    return Pairs(config, load_tokenizers(folder))
