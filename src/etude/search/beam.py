"""Greedy and beam search over any model that decodes step by step.

Legend: B sentences, W beam width, V vocabulary, K candidates of a beam, R rows = B x W, L target time.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol, final

import torch
from torch import Tensor

from etude.data.tokens.tokenizers import BOS, EOS, PAD

COMPACT_BELOW = 0.75
"""Finished sentences leave the batch when fewer than this share of its rows still live."""


class Decoder(Protocol):
    """What a search needs of a model; `etude.model.transformer.Transformer` has it."""

    def encode(self, source: Tensor) -> Any:
        """Encode sources [B, S]."""

    def start(self, memory: Any, width: int = 1) -> Any:
        """Give an empty cache with `reorder(rows)` and `keep(sentences)`, for `width` rows a sentence."""

    def step(self, tokens: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Give the logits [R, V] of the token after `tokens` [R]."""


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


def best_first(values_NV: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of each row, largest first, of equal ones the earlier: values and indices [N, count].

    torch.topk leaves open which of equal values it takes; only rows where that matters are sorted whole.
    """
    count = min(count, values_NV.size(1))
    more = min(count + 1, values_NV.size(1))
    values, indices = values_NV.topk(more, dim=1)
    if more > count:
        torn = (values[:, count] == values[:, count - 1]) & (values[:, count] > -math.inf)
        values, indices = values[:, :count], indices[:, :count]
        if torn.any():
            rows = torn.nonzero()[:, 0]
            whole = values_NV[rows].sort(dim=1, descending=True, stable=True)
            indices = indices.index_copy(0, rows, whole.indices[:, :count])
            values = values.index_copy(0, rows, whole.values[:, :count])
    indices, order = indices.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    return values, indices.gather(1, order)


def _scored(logits_RV: Tensor, limit_reached_R: Tensor) -> tuple[Tensor, Tensor]:
    """Logits in float32 or better, with -inf where a token may not follow, and the log of their normaliser [R].

    The normaliser is over the whole vocabulary, so that scores are the model's own probabilities.
    """
    logits = logits_RV if logits_RV.dtype == torch.float64 else logits_RV.float()
    normaliser = logits.logsumexp(1)
    logits[:, [PAD, BOS]] = -math.inf
    only_eos = torch.full_like(logits[:1], -math.inf)
    only_eos[:, EOS] = 0.0
    return torch.where(limit_reached_R[:, None], logits + only_eos, logits), normaliser


@torch.inference_mode()
def greedy(model: Decoder, source_BS: Tensor, *, limits: Limits | None = None, alpha: float = 1.0) -> list[Hypothesis]:
    """The most probable token at each place until eos, of equal ones the lowest id; in the sources' order."""
    limit_B = (limits or Limits()).of(source_BS)
    hypotheses = [_NOTHING] * len(source_BS)
    alive = torch.arange(len(source_BS), device=source_BS.device)
    cache = model.start(model.encode(source_BS))
    last = torch.full_like(alive, BOS)
    score_R = torch.zeros_like(alive, dtype=torch.float64)
    taken: list[Tensor] = []
    while len(alive):
        logits, cache = model.step(last, cache)
        at_limit = limit_B <= len(taken)
        logits, normaliser = _scored(logits, at_limit)
        value, last = logits.max(1)[0], logits.argmax(1)  # argmax promises the first of equal ones
        score_R = score_R + (value - normaliser).double()
        # At the limit nothing but eos may follow, unless the weights are not finite: then no token is the best.
        ended = (last == EOS) | at_limit
        if ended.any():
            rows = ended.nonzero()[:, 0]
            texts = torch.stack(taken, 1)[rows].tolist() if taken else [[]] * len(rows)
            for at, tokens, score in zip(alive[rows].tolist(), texts, score_R[rows].tolist(), strict=True):
                hypotheses[at] = _hypothesis(tokens, score, alpha)
            going = (~ended).nonzero()[:, 0]
            cache.keep(going)
            alive, last, score_R, limit_B = alive[going], last[going], score_R[going], limit_B[going]
            taken = [column[going] for column in taken]
        taken.append(last)
    return hypotheses


@torch.inference_mode()
def beam(
    model: Decoder, source_BS: Tensor, *, width: int, limits: Limits | None = None, alpha: float = 1.0
) -> list[list[Hypothesis]]:
    """The best `width` hypotheses of each source, best first; in the sources' order.

    At each step the 2 x width best ways on are looked at: those among the first `width` that end are finished,
    the best `width` others go on. A sentence is done when `width` hypotheses have finished or the limit is
    reached. Equal scores go to the earlier beam, then to the lower id. Width 1 is `greedy`.
    """
    search = _Beam(source_BS, width, limits or Limits(), alpha)
    cache = model.start(model.encode(source_BS), width)
    while search.sentences:
        logits, cache = model.step(search.last, cache)
        search.advance(logits, cache)
    return [_ranked(found, width) for found in search.finished]


@final
class _Beam:
    """The live hypotheses of a batch, and the finished ones of every sentence."""

    def __init__(self, source_BS: Tensor, width: int, limits: Limits, alpha: float) -> None:
        self.width = width
        self.alpha = alpha
        self.finished: list[list[Hypothesis]] = [[] for _ in range(len(source_BS))]
        self.sentences = list(range(len(source_BS)))
        """Which source each row of the batch belongs to."""
        self._done = [False] * len(source_BS)
        self._limit_B = limits.of(source_BS)
        self._limits: list[int] = self._limit_B.tolist()
        self._tokens_BWL = source_BS.new_empty(len(source_BS), width, 0)
        # All beams begin alike, so only the first may be chosen from.
        self._score_BW = torch.full((len(source_BS), width), -math.inf, dtype=torch.float64).to(source_BS.device)
        self._score_BW[:, 0] = 0.0

    @property
    def last(self) -> Tensor:
        """The tokens [R] to go on from."""
        if self._tokens_BWL.size(2) == 0:
            return self._tokens_BWL.new_full((len(self.sentences) * self.width,), BOS)
        return self._tokens_BWL[:, :, -1].flatten()

    def advance(self, logits_RV: Tensor, cache: Any) -> None:
        """Take one step: finish what ended, choose what goes on, and drop sentences that are done."""
        score_BK, beam_BK, token_BK = self._candidates(logits_RV)
        ends_BK = (token_BK == EOS) & (score_BK > -math.inf)
        self._finish(ends_BK[:, : self.width], score_BK, beam_BK)
        going_BW = ends_BK.to(torch.uint8).sort(dim=1, stable=True)[1][:, : self.width]
        self._score_BW = score_BK.gather(1, going_BW)
        beam_BW = beam_BK.gather(1, going_BW)
        tokens = self._tokens_BWL.gather(1, beam_BW[:, :, None].expand(-1, -1, self._tokens_BWL.size(2)))
        self._tokens_BWL = torch.cat((tokens, token_BK.gather(1, going_BW)[:, :, None]), dim=2)
        self._compact(beam_BW, cache)

    def _candidates(self, logits_RV: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The 2 x width best ways on of each sentence: score, beam and token [B, K]."""
        step = self._tokens_BWL.size(2)
        reached_R = (self._limit_B <= step).repeat_interleave(self.width)
        logits, normaliser = _scored(logits_RV, reached_R)
        # Ranking within a row by logits, not by sums, keeps width 1 equal to greedy through all rounding.
        value_RK, token_RK = best_first(logits, 2 * self.width)
        way_RK = (value_RK - normaliser[:, None]).double()
        ways = way_RK.size(1)
        total = (self._score_BW.view(-1, 1) + way_RK).view(len(self.sentences), -1)
        score, order = total.sort(dim=1, descending=True, stable=True)
        score, order = score[:, : 2 * self.width], order[:, : 2 * self.width]
        return score, order // ways, token_RK.view(len(self.sentences), -1).gather(1, order)

    def _finish(self, ends_BW: Tensor, score_BK: Tensor, beam_BK: Tensor) -> None:
        step = self._tokens_BWL.size(2)
        rows, ranks = ends_BW.nonzero(as_tuple=True)
        texts = self._tokens_BWL[rows, beam_BK[rows, ranks]].tolist()
        for row, tokens, score in zip(rows.tolist(), texts, score_BK[rows, ranks].tolist(), strict=True):
            if not self._done[row]:
                self.finished[self.sentences[row]].append(_hypothesis(tokens, score, self.alpha))
        for row, sentence in enumerate(self.sentences):
            full = len(self.finished[sentence]) >= self.width
            self._done[row] = self._done[row] or full or step >= self._limits[row]

    def _compact(self, beam_BW: Tensor, cache: Any) -> None:
        """Bring the cache to the new order; once enough sentences are done, go on without them."""
        going = [row for row, done in enumerate(self._done) if not done]
        few = len(going) < COMPACT_BELOW * len(self.sentences)
        if self.width > 1 and going:
            offsets = torch.arange(len(self.sentences), device=beam_BW.device)[:, None] * self.width
            cache.reorder((beam_BW + offsets).flatten())
        if not few:
            return
        kept = torch.tensor(going, dtype=torch.int64, device=beam_BW.device)
        if going:
            cache.keep(kept)
        self.sentences = [self.sentences[row] for row in going]
        self._limits = [self._limits[row] for row in going]
        self._done = [False] * len(going)
        self._limit_B, self._score_BW = self._limit_B[kept], self._score_BW[kept]
        self._tokens_BWL = self._tokens_BWL[kept]


def _hypothesis(tokens: list[int], log_probability: float, alpha: float) -> Hypothesis:
    return Hypothesis(tuple(tokens), log_probability / length_penalty(len(tokens) + 1, alpha), log_probability)


def _ranked(found: list[Hypothesis], width: int) -> list[Hypothesis]:
    # A model whose weights are not finite finishes nothing; its translation is empty.
    return sorted(found, key=lambda one: -one.score)[:width] or [_NOTHING]


_NOTHING = Hypothesis((), math.nan, math.nan)
