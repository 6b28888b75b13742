"""What a search finds, how long it may become, and by what it is ranked.

Legend: B sentences, S source time.
"""

import math
from dataclasses import dataclass
from typing import final

from torch import Tensor

from etude.data.tokens.tokenizers import PAD


@final
@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One translation in tokens."""

    tokens: tuple[int, ...]
    """Without bos and eos."""
    score: float
    """The log-probability over the length penalty: what hypotheses are ranked by."""
    log_probability: float
    """In nats, eos included."""


@final
@dataclass(frozen=True, slots=True)
class Limits:
    """How long a target may become: `ratio` x source tokens + `extra`, at most `longest`, eos not counted.

    A hypothesis that reaches the limit is ended there: eos is its only way on, at eos's own probability.
    """

    ratio: float = 2.0
    extra: int = 10
    longest: int = 1024

    def of(self, source_BS: Tensor, pad: int = PAD) -> Tensor:
        """The limit of each source [B]; its eos is not counted."""
        tokens = (source_BS != pad).sum(1) - 1
        return (tokens * self.ratio).long().add_(self.extra).clamp_(min=1, max=self.longest)


def length_penalty(length: float, alpha: float) -> float:
    """((5 + length) / 6)^alpha, eos counted (Wu et al. 2016, equation 14); alpha 0 ranks by probability alone."""
    return float(((5.0 + length) / 6.0) ** alpha)


def ended(tokens: list[int], log_probability: float, alpha: float) -> Hypothesis:
    """The hypothesis of these tokens and eos, whose log-probabilities add up to that."""
    return Hypothesis(tuple(tokens), log_probability / length_penalty(len(tokens) + 1, alpha), log_probability)


NOTHING = Hypothesis((), math.nan, math.nan)
"""What is found where weights are not finite."""
