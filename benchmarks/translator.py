"""Etude's translator on the pairs of the hand-written loop: same vocabulary, sizes, rates, and optimizer."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from handwritten_translation import Corpus, Recipe
from numpy.typing import NDArray

import etude
from etude.data.feeds.batching import Batching
from etude.data.feeds.pairs import pair_feed
from etude.data.feeds.table_feed import TableFeed
from etude.data.tokens.tokenizers import PAD
from etude.model.losses import CrossEntropy
from etude.model.transformer import Transformer, TransformerConfig
from etude.tasks.translation.task import TranslationTask

Ints = NDArray[np.int64]


class ListedPairs:
    """The pairs of a `Corpus` as a table of Etude's: ids without special tokens."""

    def __init__(self, corpus: Corpus) -> None:
        self._sides = {
            "source": [np.array(source[:-1], dtype=np.int64) for source, _ in corpus.pairs],
            "target": [np.array(target[1:-1], dtype=np.int64) for _, target in corpus.pairs],
        }
        self._lengths = {side: np.array([len(row) for row in rows]) for side, rows in self._sides.items()}

    def __len__(self) -> int:
        return len(self._lengths["source"])

    def lengths(self, side: str) -> Ints:
        """Tokens of every pair of a side."""
        return self._lengths[side]

    def gather(self, side: str, indices: Ints) -> tuple[Ints, Ints]:
        """The ids one after another, and how many each pair has."""
        rows = self._sides[side]
        return np.concatenate([rows[i] for i in indices.tolist()]), self._lengths[side][indices]

    def total(self, side: str) -> int:
        """Tokens of all pairs of a side."""
        return int(self._lengths[side].sum())

    def origin(self, row: int) -> int:
        """Which pair a row is."""
        return row


def feed(corpus: Corpus, recipe: Recipe) -> TableFeed:
    return pair_feed(ListedPairs(corpus), Batching(seed=recipe.seed, batch_tokens=recipe.batch_tokens))


def task(corpus: Corpus, recipe: Recipe) -> TranslationTask:
    """The model that `handwritten_translation.Translator` is."""
    config = TransformerConfig(
        d_model=recipe.width,
        heads=recipe.heads,
        encoder_layers=recipe.layers,
        decoder_layers=recipe.layers,
        feedforward=recipe.feedforward,
        dropout=recipe.dropout,
        share_embeddings=True,
        tie_output=True,
    )
    model = Transformer(config, corpus.vocabulary, corpus.vocabulary)
    loss = CrossEntropy(label_smoothing=recipe.label_smoothing, ignore_index=PAD)
    return TranslationTask(model, loss=loss)


def trainer(recipe: Recipe, **options: Any) -> etude.Trainer:
    """A trainer with the hand-written loop's optimizer and schedule, told to be quiet."""
    rate: Mapping[str, Any] = {
        "schedule": "inverse",
        "peak": recipe.learning_rate,
        "warmup": f"{recipe.warmup} steps",
    }
    silence: Callable[[str], None] = lambda _: None  # noqa: E731 - a word for what it is
    return etude.Trainer(
        optimizer={"type": "adamw", "betas": [0.9, 0.98]},
        learning_rate=rate,
        clip_grad=recipe.clip,
        log_every=f"{recipe.log_every} steps",
        device="cpu",
        say=silence,
        **options,
    )
