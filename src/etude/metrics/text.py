"""Metrics of text that can be merged over batches and ranks: sacreBLEU and chrF."""

import math
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol, Self, final

from etude.base.errors import ConfigError

if TYPE_CHECKING:
    from types import ModuleType


def one_line(text: str) -> str:
    """The text without line breaks: as it is compared, and as it stands in a file of a line a text."""
    return text.replace("\r", " ").replace("\n", " ")


class Score(Protocol):
    """What sacrebleu computes."""

    score: float


class CorpusMetric(Protocol):
    """A metric of sacrebleu."""

    def corpus_score(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]], /) -> Score:
        """The score of all texts together."""
        ...

    def get_signature(self) -> object:
        """How it was computed."""
        ...


class CorpusScore:
    """A corpus metric of sacrebleu over raw, detokenised text (Post 2018).

    Texts are kept until `compute`, so the value is sacrebleu's own over all of them, in whatever order they came. Each
    is kept as one line, so that files of a line a text give the same value.
    """

    name = "corpus"

    def __init__(self) -> None:
        _need_sacrebleu()
        self._hypotheses: list[str] = []
        self._references: list[str] = []

    @cached_property
    def measure(self) -> CorpusMetric:
        """Made when the first score is asked for: sacrebleu takes its time to be imported."""
        import sacrebleu

        return self._make(sacrebleu)

    def _make(self, sacrebleu: "ModuleType") -> CorpusMetric:
        raise NotImplementedError

    def update(self, hypotheses: Sequence[str], references: Sequence[str]) -> None:
        """Take in translations and, for each, its reference."""
        if len(hypotheses) != len(references):
            raise ValueError(f"{len(hypotheses)} hypotheses cannot be compared with {len(references)} references.")
        self._hypotheses.extend(map(one_line, hypotheses))
        self._references.extend(map(one_line, references))

    def merge(self, other: Self) -> None:
        """Take in what `other` has seen."""
        self._hypotheses.extend(other._hypotheses)
        self._references.extend(other._references)

    def compute(self) -> float:
        """The score, 0 to 100; NaN where nothing was seen."""
        if not self._hypotheses:
            return math.nan
        return float(self.measure.corpus_score(self._hypotheses, [self._references]).score)

    def reset(self) -> None:
        """Forget all that was seen."""
        self._hypotheses.clear()
        self._references.clear()

    @property
    def signature(self) -> str:
        """How the score was computed, in sacrebleu's words; only after `compute` is it whole."""
        return f"{self.name}|{self.measure.get_signature()}"


@final
class Bleu(CorpusScore):
    """sacreBLEU with its defaults: four-grams, tokenizer 13a, exponential smoothing (Papineni et al. 2002)."""

    name = "BLEU"

    def _make(self, sacrebleu: "ModuleType") -> CorpusMetric:
        metric: CorpusMetric = sacrebleu.metrics.BLEU(force=True)  # force: says nothing of text that looks tokenised
        return metric


@final
class ChrF(CorpusScore):
    """chrF2 with its defaults: character six-grams, beta 2 (Popovic 2015)."""

    name = "chrF2"

    def _make(self, sacrebleu: "ModuleType") -> CorpusMetric:
        metric: CorpusMetric = sacrebleu.metrics.CHRF()
        return metric


def _need_sacrebleu() -> None:
    """Raise ConfigError where sacrebleu is missing: before the first step, not at the first validation."""
    if find_spec("sacrebleu") is None:
        raise ConfigError(
            "task.metrics needs sacrebleu, which is not installed: run pip install 'etude[translation]', "
            "or set task.metrics = []."
        )


TEXT_METRICS: dict[str, type[CorpusScore]] = {"bleu": Bleu, "chrf": ChrF}
"""What `task.metrics` may name."""
