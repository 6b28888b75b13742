"""Beam search.

Legend: B sentences, W beam width, V vocabulary, K candidates of a beam, R rows = B x W, L target time.
"""

import math
from typing import final

import torch
from torch import Tensor

from etude.data.tokens.tokenizers import BOS, EOS
from etude.search.hypotheses import NOTHING, Hypothesis, Limits, ended
from etude.search.step import Cache, Decoder, Encoded, KeptCache, Score, Step, scored

COMPACT_BELOW = 0.75
"""Finished sentences leave the batch when fewer than this share of its rows still live."""


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


def beam(
    model: Decoder[Encoded, KeptCache],
    source_BS: Tensor,
    *,
    width: int,
    limits: Limits | None = None,
    alpha: float = 1.0,
) -> list[list[Hypothesis]]:
    """The best `width` hypotheses of each source, best first; in the sources' order.

    At each step the 2 x width best ways on are looked at: those among the first `width` that end are finished,
    the best `width` others go on. A sentence is done when `width` hypotheses have finished or the limit is
    reached. Equal scores go to the earlier beam, then to the lower id. Width 1 is `greedy`.
    """
    with torch.inference_mode():
        cache = model.start(model.encode(source_BS), width)
        return beam_by(model.step, cache, (limits or Limits()).of(source_BS), width=width, alpha=alpha)


@torch.inference_mode()
def beam_by(
    step: Step[KeptCache],
    cache: KeptCache,
    limit_B: Tensor,
    *,
    width: int,
    alpha: float = 1.0,
    score: Score = scored,
) -> list[list[Hypothesis]]:
    """The same over a step function and its cache of `width` rows a sentence; `limit_B` are the most tokens of each."""
    search = _Beam(limit_B, width, alpha, score)
    while search.sentences:
        logits, cache = step(search.last, cache)
        search.advance(logits, cache)
    return [_ranked(found, width) for found in search.finished]


@final
class _Beam:
    """The live hypotheses of a batch, and the finished ones of every sentence."""

    def __init__(self, limit_B: Tensor, width: int, alpha: float, score: Score) -> None:
        count = len(limit_B)
        self.width = width
        self.alpha = alpha
        self._scored = score
        self.finished: list[list[Hypothesis]] = [[] for _ in range(count)]
        self.sentences = list(range(count))
        """Which sentence each row of the batch belongs to."""
        self._done = [False] * count
        self._limit_B = limit_B
        self._limits: list[int] = limit_B.tolist()
        self._tokens_BWL = limit_B.new_empty(count, width, 0)
        # All beams begin alike, so only the first may be chosen from.
        self._score_BW = torch.full((count, width), -math.inf, dtype=torch.float64).to(limit_B.device)
        self._score_BW[:, 0] = 0.0

    @property
    def last(self) -> Tensor:
        """The tokens [R] to go on from."""
        if self._tokens_BWL.size(2) == 0:
            return self._tokens_BWL.new_full((len(self.sentences) * self.width,), BOS)
        return self._tokens_BWL[:, :, -1].flatten()

    def advance(self, logits_RV: Tensor, cache: Cache) -> None:
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
        logits, normaliser = self._scored(logits_RV, reached_R)
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
                self.finished[self.sentences[row]].append(ended(tokens, score, self.alpha))
        for row, sentence in enumerate(self.sentences):
            full = len(self.finished[sentence]) >= self.width
            self._done[row] = self._done[row] or full or step >= self._limits[row]

    def _compact(self, beam_BW: Tensor, cache: Cache) -> None:
        """Bring the cache to the new order; once enough sentences are done, go on without them."""
        going = [row for row, done in enumerate(self._done) if not done]
        few = len(going) < COMPACT_BELOW * len(self.sentences)
        if self.width > 1 and going:
            offsets = torch.arange(len(self.sentences), device=beam_BW.device)[:, None] * self.width
            cache.reorder((beam_BW + offsets).flatten())
        if few:
            self._keep(going, cache)

    def _keep(self, going: list[int], cache: Cache) -> None:
        """Go on with these sentences alone."""
        kept = torch.tensor(going, dtype=torch.int64, device=self._limit_B.device)
        if going:
            cache.keep(kept)
        self.sentences = [self.sentences[row] for row in going]
        self._limits = [self._limits[row] for row in going]
        self._done = [False] * len(going)
        self._limit_B, self._score_BW = self._limit_B[kept], self._score_BW[kept]
        self._tokens_BWL = self._tokens_BWL[kept]


def _ranked(found: list[Hypothesis], width: int) -> list[Hypothesis]:
    # A model whose weights are not finite finishes nothing; its translation is empty.
    return sorted(found, key=lambda one: -one.score)[:width] or [NOTHING]
