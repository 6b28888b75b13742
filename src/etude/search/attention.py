"""Greedy and beam search of an attention head over frames.

Legend: B sequences, T frames, E width of the encoder.
"""

from dataclasses import dataclass
from typing import Protocol, final

import torch
from torch import Tensor

from etude.model.layers.beam_cache import Cache, Memory
from etude.search.beam import beam_by
from etude.search.greedy import greedy_by
from etude.search.hypotheses import Hypothesis
from etude.search.readable import readable


class Head(Protocol):
    """A decoder over frames, such as `etude.model.frames.attention.AttentionHead`."""

    @property
    def longest(self) -> int:
        """Most labels that it can say."""
        ...

    def encode(self, encoded_BTE: Tensor, lengths_B: Tensor, /) -> Memory:
        """Give the frames as attention sees them."""
        ...

    def start(self, memory: Memory, /, width: int = 1) -> Cache:
        """Give an empty cache for `width` rows a sequence."""
        ...

    def step(self, labels_R: Tensor, cache: Cache, /) -> tuple[Tensor, Cache]:
        """Give the logits [R, V] of the label after `labels_R`."""
        ...


@final
@dataclass(frozen=True, slots=True)
class FrameLimits:
    """How many labels may be said of a sequence: `ratio` x frames + `extra`, at most `longest`, eos not counted.

    Of a sequence without frames nothing is said.
    """

    ratio: float = 1.0
    extra: int = 1
    longest: int = 1024

    def of(self, lengths_B: Tensor, head: Head) -> Tensor:
        """The limit of each sequence [B]."""
        limit_B = (lengths_B * self.ratio).long().add_(self.extra).clamp_(min=1, max=min(self.longest, head.longest))
        return limit_B.masked_fill_(lengths_B <= 0, 0)


DEFAULT_LIMITS = FrameLimits()


@torch.inference_mode()
def greedy(
    head: Head, encoded_BTE: Tensor, lengths_B: Tensor, *, limits: FrameLimits = DEFAULT_LIMITS, alpha: float = 0.0
) -> list[Hypothesis]:
    """The most probable label at each place until eos, of equal ones the lowest id.

    A sequence with a frame that is not a number counts as one without frames.
    """
    lengths_B = readable(encoded_BTE, lengths_B)
    cache = head.start(head.encode(encoded_BTE, lengths_B))
    return greedy_by(head.step, cache, limits.of(lengths_B, head), alpha=alpha)


@torch.inference_mode()
def beam(
    head: Head,
    encoded_BTE: Tensor,
    lengths_B: Tensor,
    *,
    width: int,
    limits: FrameLimits = DEFAULT_LIMITS,
    alpha: float = 0.0,
) -> list[list[Hypothesis]]:
    """The best `width` hypotheses of each sequence, best first; the best is never below the greedy one.

    `alpha` is of the length penalty (see `etude.search.hypotheses`): 0 ranks by probability alone. Takes what
    `greedy` takes.
    """
    lengths_B = readable(encoded_BTE, lengths_B)
    memory, limit_B = head.encode(encoded_BTE, lengths_B), limits.of(lengths_B, head)
    found = beam_by(head.step, head.start(memory, width), limit_B, width=width, alpha=alpha)
    return with_greedy(found, greedy_by(head.step, head.start(memory), limit_B, alpha=alpha), width)


def with_greedy(found: list[list[Hypothesis]], greedy: list[Hypothesis], width: int) -> list[list[Hypothesis]]:
    """The best `width` of what a beam and greedy search found: a beam may lose the greedy path on the way."""
    return [_with(several, one)[:width] for several, one in zip(found, greedy, strict=True)]


def _with(found: list[Hypothesis], one: Hypothesis) -> list[Hypothesis]:
    if one.tokens in {other.tokens for other in found}:
        return found
    return sorted([*found, one], key=lambda each: -each.score)
