"""What a search stands over: a function from the last tokens to the logits of the next ones, and what it keeps.

Legend: B sentences, W beam width, V vocabulary, R rows = B x W.
"""

import math
from collections.abc import Callable
from typing import Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

from etude.data.tokens.tokenizers import BOS, EOS, PAD


class Cache(Protocol):
    """What a model keeps from step to step for the rows of a batch; the beams of a sentence stand side by side."""

    def reorder(self, rows: Tensor) -> None:
        """Let row i go on from what was row `rows[i]`; rows stay within their sentence."""

    def keep(self, sentences: Tensor) -> None:
        """Go on with these sentences alone, in this order."""


KeptCache = TypeVar("KeptCache", bound=Cache)
Encoded = TypeVar("Encoded")

Step: TypeAlias = Callable[[Tensor, KeptCache], tuple[Tensor, KeptCache]]
"""From the last tokens [R], and what came before them, to the logits [R, V] of the next ones."""


class Decoder(Protocol[Encoded, KeptCache]):
    """A model from sources to targets that is asked step by step, such as `etude.model.transformer.Transformer`."""

    def encode(self, source: Tensor, /) -> Encoded:
        """Encode sources [B, S]."""
        ...

    def start(self, memory: Encoded, /, width: int = 1) -> KeptCache:
        """Give an empty cache for `width` rows a sentence."""
        ...

    def step(self, tokens: Tensor, cache: KeptCache, /) -> tuple[Tensor, KeptCache]:
        """Give the logits [R, V] of the token after `tokens` [R]."""
        ...


Score: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From logits [R, V], and which rows are at their limit [R], to what tokens are ranked by, with -inf where one may not
follow, and what is taken off it [R]."""


def scored(logits_RV: Tensor, limit_reached_R: Tensor) -> tuple[Tensor, Tensor]:
    """Logits in float32 or better, with -inf where a token may not follow, and the log of their normaliser [R].

    The normaliser is over the whole vocabulary, so that scores are the model's own probabilities.
    """
    logits = logits_RV if logits_RV.dtype == torch.float64 else logits_RV.float()
    normaliser = logits.logsumexp(1)
    return _allowed(logits, limit_reached_R), normaliser


def as_it_is(scores_RV: Tensor, limit_reached_R: Tensor) -> tuple[Tensor, Tensor]:
    """Scores that are no logits, with -inf where a token may not follow; nothing is taken off."""
    return _allowed(scores_RV, limit_reached_R), torch.zeros_like(scores_RV[:, 0])


def _allowed(logits: Tensor, limit_reached_R: Tensor) -> Tensor:
    logits[:, [PAD, BOS]] = -math.inf
    only_eos = torch.full_like(logits[:1], -math.inf)
    only_eos[:, EOS] = 0.0
    return torch.where(limit_reached_R[:, None], logits + only_eos, logits)
