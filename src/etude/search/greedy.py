"""Greedy search: the most probable token at each place.

Legend: B sentences, S source time, R rows that still go on.
"""

import torch
from torch import Tensor

from etude.data.tokens.tokenizers import BOS, EOS
from etude.search.hypotheses import NOTHING, Hypothesis, Limits, ended
from etude.search.step import Decoder, Encoded, KeptCache, Step, scored


def greedy(
    model: Decoder[Encoded, KeptCache], source_BS: Tensor, *, limits: Limits | None = None, alpha: float = 1.0
) -> list[Hypothesis]:
    """The most probable token at each place until eos, of equal ones the lowest id; in the sources' order."""
    with torch.inference_mode():
        cache = model.start(model.encode(source_BS))
        return greedy_by(model.step, cache, (limits or Limits()).of(source_BS), alpha=alpha)


@torch.inference_mode()
def greedy_by(step: Step[KeptCache], cache: KeptCache, limit_B: Tensor, *, alpha: float = 1.0) -> list[Hypothesis]:
    """The same over a step function and its cache of one row a sentence; `limit_B` are the most tokens of each."""
    hypotheses = [NOTHING] * len(limit_B)
    alive = torch.arange(len(limit_B), device=limit_B.device)
    last = torch.full_like(alive, BOS)
    score_R = torch.zeros_like(alive, dtype=torch.float64)
    taken: list[Tensor] = []
    while len(alive):
        logits, cache = step(last, cache)
        at_limit = limit_B <= len(taken)
        logits, normaliser = scored(logits, at_limit)
        value, last = logits.max(1)[0], logits.argmax(1)  # argmax promises the first of equal ones
        score_R = score_R + (value - normaliser).double()
        # At the limit nothing but eos may follow, unless the weights are not finite: then no token is the best.
        done = (last == EOS) | at_limit
        if done.any():
            rows = done.nonzero()[:, 0]
            for at, tokens, score in zip(
                alive[rows].tolist(), _texts(taken, rows), score_R[rows].tolist(), strict=True
            ):
                hypotheses[at] = ended(tokens, score, alpha)
            going = (~done).nonzero()[:, 0]
            cache.keep(going)
            alive, last, score_R, limit_B = alive[going], last[going], score_R[going], limit_B[going]
            taken = [column[going] for column in taken]
        taken.append(last)
    return hypotheses


def _texts(taken: list[Tensor], rows: Tensor) -> list[list[int]]:
    """The tokens of these rows."""
    if not taken:
        return [[] for _ in rows]
    return torch.stack(taken, 1)[rows].tolist()
