"""Metrics of text that can be merged over batches and ranks: sacreBLEU, chrF, perplexity, bits per byte, accuracy."""

import math
from collections.abc import Sequence
from typing import Any, Self, final

from torch import Tensor

from etude.base.errors import ConfigError

LARGEST_EXPONENT = 709.0
"""exp of more is beyond a float."""


class CorpusScore:
    """A corpus metric of sacrebleu over raw, detokenised text (Post 2018).

    Texts are kept until `compute`, so the value is sacrebleu's own over all of them, in whatever order they came.
    """

    name = "corpus"

    def __init__(self) -> None:
        self._metric = self._make(_sacrebleu())
        self._hypotheses: list[str] = []
        self._references: list[str] = []

    def _make(self, sacrebleu: Any) -> Any:
        raise NotImplementedError

    def update(self, hypotheses: Sequence[str], references: Sequence[str]) -> None:
        """Take in translations and, for each, its reference."""
        if len(hypotheses) != len(references):
            raise ValueError(f"{len(hypotheses)} hypotheses cannot be compared with {len(references)} references.")
        self._hypotheses.extend(hypotheses)
        self._references.extend(references)

    def merge(self, other: Self) -> None:
        """Take in what `other` has seen."""
        self._hypotheses.extend(other._hypotheses)
        self._references.extend(other._references)

    def compute(self) -> float:
        """The score, 0 to 100; NaN where nothing was seen."""
        if not self._hypotheses:
            return math.nan
        return float(self._metric.corpus_score(self._hypotheses, [self._references]).score)

    def reset(self) -> None:
        """Forget all that was seen."""
        self._hypotheses.clear()
        self._references.clear()

    @property
    def signature(self) -> str:
        """How the score was computed, in sacrebleu's words; only after `compute` is it whole."""
        return f"{self.name}|{self._metric.get_signature()}"


@final
class Bleu(CorpusScore):
    """sacreBLEU with its defaults: four-grams, tokenizer 13a, exponential smoothing (Papineni et al. 2002)."""

    name = "BLEU"

    def _make(self, sacrebleu: Any) -> Any:
        return sacrebleu.metrics.BLEU(force=True)  # force: says nothing of text that looks tokenised


@final
class ChrF(CorpusScore):
    """chrF2 with its defaults: character six-grams, beta 2 (Popovic 2015)."""

    name = "chrF2"

    def _make(self, sacrebleu: Any) -> Any:
        return sacrebleu.metrics.CHRF()


@final
class Perplexity:
    """exp of the mean loss in nats; sums stay on the device until `compute`."""

    def __init__(self) -> None:
        self._sum: Tensor | float = 0.0
        self._count: Tensor | float = 0

    def update(self, total: Tensor | float, count: Tensor | float) -> None:
        """Take in a loss summed over `count` targets."""
        self._sum = self._sum + (total.detach().double() if isinstance(total, Tensor) else total)
        self._count = self._count + count

    def merge(self, other: Self) -> None:
        """Take in what `other` has seen."""
        self.update(other._sum, other._count)

    def compute(self) -> float:
        """The perplexity; NaN where nothing was seen, infinite beyond the range of numbers."""
        count = float(self._count)
        if not count:
            return math.nan
        mean = float(self._sum) / count
        return math.inf if mean > LARGEST_EXPONENT else math.exp(mean)

    def reset(self) -> None:
        """Forget all that was seen."""
        self._sum, self._count = 0.0, 0


class _Ratio:
    """One sum over another; both stay on the device until `compute`."""

    def __init__(self) -> None:
        self._sum: Tensor | float = 0.0
        self._count: Tensor | float = 0.0

    def update(self, total: Tensor | float, count: Tensor | float) -> None:
        """Take in a sum, and what it is over."""
        self._sum = self._sum + (total.detach().double() if isinstance(total, Tensor) else total)
        self._count = self._count + count

    def merge(self, other: Self) -> None:
        """Take in what `other` has seen."""
        self.update(other._sum, other._count)

    def compute(self) -> float:
        """The ratio; NaN where nothing was seen."""
        count = float(self._count)
        return float(self._sum) / count if count else math.nan

    def reset(self) -> None:
        """Forget all that was seen."""
        self._sum, self._count = 0.0, 0.0


@final
class Accuracy(_Ratio):
    """The share of targets that were the likeliest token."""


@final
class BitsPerByte(_Ratio):
    """The loss of a text in bits for each of its bytes in UTF-8: comparable across tokenizers.

    `update` takes the loss summed in nats, and the bytes that its targets stand for.

    >>> metric = BitsPerByte()
    >>> metric.update(math.log(2) * 24, 8.0)
    >>> round(metric.compute(), 6)
    3.0
    """

    def compute(self) -> float:
        """Bits a byte; NaN where nothing was seen."""
        return super().compute() / math.log(2)


def _sacrebleu() -> Any:
    try:
        import sacrebleu
    except ImportError as error:
        raise ConfigError(
            "task.metrics needs sacrebleu, which is not installed: run pip install 'etude[translation]', "
            "or set task.metrics = []."
        ) from error
    return sacrebleu


TEXT_METRICS: dict[str, type[CorpusScore]] = {"bleu": Bleu, "chrf": ChrF}
"""What `task.metrics` may name."""
