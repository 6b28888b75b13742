"""Beam search of an attention head together with CTC, a language model, or both.

Watanabe et al. 2017 ("Hybrid CTC/Attention Architecture for End-to-End Speech Recognition"): a hypothesis is ranked by
(1 - weight) times the log-probability of attention, weight times that of CTC's prefix, and what fusion adds.

Legend: B sequences, T frames, E width of the encoder, V labels, C classes of CTC, W beam width, R rows = B x W.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, final

import torch
import torch.nn.functional as F
from torch import Tensor

from etude.data.tokens.tokenizers import BOS, EOS
from etude.model.exact import exact
from etude.model.layers.beam_cache import Cache
from etude.search.attention import DEFAULT_LIMITS, FrameLimits, Head, with_greedy
from etude.search.beam import beam_by, best_first
from etude.search.ctc_prefix import PrefixScores
from etude.search.fusion import FusedGains, Fusion, Prefix
from etude.search.hypotheses import Hypothesis
from etude.search.readable import readable, readable_logs
from etude.search.step import as_it_is


@final
@dataclass(frozen=True, slots=True)
class JointOptions:
    """How a joint search goes on, and by what it ranks."""

    width: int = 8
    """Hypotheses that go on at a time."""
    weight: float = 0.3
    """Share of CTC: 0 is attention alone, 1 the prefixes of CTC alone."""
    blank: int = 0
    """CTC's class of the blank; the others are the labels by their ids."""
    fusion: Fusion | None = None
    """What is added besides."""
    classes: int = 40
    """Labels of each hypothesis that fusion is asked for: the best without it, and the end."""
    limits: FrameLimits = DEFAULT_LIMITS
    """How many labels may be said."""
    alpha: float = 0.0
    """Of the length penalty, see `etude.search.hypotheses`; 0 is none."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.weight <= 1.0:
            raise ValueError(f"The weight of CTC must be from 0 to 1, but is {self.weight}.")


@torch.inference_mode()
def beam(
    head: Head, encoded_BTE: Tensor, lengths_B: Tensor, options: JointOptions, logs_BTC: Tensor | None = None
) -> list[list[Hypothesis]]:
    """The best hypotheses of each sequence, best first, by what `options` say; `logs_BTC` are CTC's log-probabilities.

    The path of a beam of one is among them: so the best is never below it. A hypothesis' log-probability is the
    weighted sum. A sequence with a frame that is not a number counts as one without frames. Raises ValueError where
    CTC has a weight and no log-probabilities, or what are none.
    """
    lengths_B = readable(encoded_BTE, lengths_B)
    if logs_BTC is not None:
        logs_BTC = exact(logs_BTC)
        lengths_B = readable_logs(logs_BTC, lengths_B)
    elif options.weight:
        raise ValueError("A joint search needs CTC's log-probabilities where its weight is not 0, but has none.")
    memory = head.encode(encoded_BTE, lengths_B)
    limit_B = options.limits.of(lengths_B, head)
    found = []
    for width in sorted({1, options.width}, reverse=True):
        cache = _JointCache(head.start(memory, width), _parts(options, width, lengths_B, logs_BTC))
        step = _Joint(head, 1.0 - options.weight)
        found.append(beam_by(step, cache, limit_B, width=width, alpha=options.alpha, score=as_it_is))
    return with_greedy(found[0], [one[0] for one in found[-1]], options.width)


class _Part(Protocol):
    """What adds to the scores of labels, and follows the rows of a beam."""

    def add(self, scores_RV: Tensor) -> Tensor:
        """Give the scores with its own added."""
        ...

    def say(self, labels_R: Tensor) -> None:
        """Take in what each row says; before the first label, bos."""

    def reorder(self, rows: Tensor) -> None:
        """Let row i go on from what was row `rows[i]`; rows stay within their sequence."""

    def keep(self, sequences: Tensor) -> None:
        """Go on with these sequences alone."""


def _parts(options: JointOptions, width: int, lengths_B: Tensor, logs_BTC: Tensor | None) -> list[_Part]:
    parts: list[_Part] = []
    if logs_BTC is not None and options.weight:
        parts.append(_CtcPart(options, width, lengths_B, logs_BTC))
    if options.fusion is not None:
        parts.append(_FusionPart(options.fusion, width, len(lengths_B), max(options.classes, 2 * width)))
    return parts


@final
class _CtcPart:
    """The prefixes of CTC."""

    def __init__(self, options: JointOptions, width: int, lengths_B: Tensor, logs_BTC: Tensor) -> None:
        self._weight = options.weight
        # Labels that CTC has no class for are impossible to it; the end needs a column.
        logs_BTC = F.pad(logs_BTC, (0, max(0, EOS + 1 - logs_BTC.size(2))), value=-math.inf)
        self._scores = PrefixScores(logs_BTC, lengths_B, width=width, blank=options.blank, end=EOS)
        self._begun = False

    def add(self, scores_RV: Tensor) -> Tensor:
        """Weighted."""
        labels = scores_RV.size(1)
        own_RV = self._scores.longer()[:, :labels]
        own_RV = F.pad(own_RV, (0, labels - own_RV.size(1)), value=-math.inf)
        return scores_RV + self._weight * own_RV

    def say(self, labels_R: Tensor) -> None:
        """The first is bos, which is no label."""
        if self._begun:
            self._scores.say(labels_R)
        self._begun = True

    def reorder(self, rows: Tensor) -> None:
        """Within sequences."""
        self._scores.reorder(rows)

    def keep(self, sequences: Tensor) -> None:
        """Of whole sequences."""
        self._scores.keep(sequences)


@final
class _FusionPart:
    """A model of labels: what it adds to the best labels of each row; the others are left out."""

    def __init__(self, fusion: Fusion, width: int, sequences: int, classes: int) -> None:
        self._width, self._classes = width, classes
        self._gains = [FusedGains(fusion) for _ in range(sequences)]
        self._prefixes: list[Prefix] = [()] * (sequences * width)

    def add(self, scores_RV: Tensor) -> Tensor:
        """Each row asks the gains of its sequence."""
        self._prepare()
        _, labels_RK = best_first(scores_RV, self._classes)
        labels_RK = torch.cat((labels_RK, torch.full_like(labels_RK[:, :1], EOS)), 1)
        added = [self._added(row, labels) for row, labels in enumerate(labels_RK.tolist())]
        added_RK = torch.tensor(added, dtype=scores_RV.dtype, device=scores_RV.device).view(labels_RK.shape)
        return scores_RV + torch.full_like(scores_RV, -math.inf).scatter(1, labels_RK, added_RK)

    def _prepare(self) -> None:
        for number, gains in enumerate(self._gains):
            gains.forget()
            gains.prepare(sorted(set(self._prefixes[number * self._width : (number + 1) * self._width])))

    def _added(self, row: int, labels: Sequence[int]) -> list[float]:
        gains, prefix = self._gains[row // self._width], self._prefixes[row]
        before = gains(prefix)
        if before == -math.inf:
            return [before] * len(labels)
        return [gains.ended(prefix) - before if label == EOS else gains((*prefix, label)) - before for label in labels]

    def say(self, labels_R: Tensor) -> None:
        """The first is bos, which is no label."""
        pairs = zip(self._prefixes, labels_R.tolist(), strict=True)
        self._prefixes = [prefix if label == BOS else (*prefix, label) for prefix, label in pairs]

    def reorder(self, rows: Tensor) -> None:
        """Within sequences, whose gains stay."""
        self._prefixes = [self._prefixes[row] for row in rows.tolist()]

    def keep(self, sequences: Tensor) -> None:
        """With their gains."""
        kept = sequences.tolist()
        self._gains = [self._gains[number] for number in kept]
        firsts = [number * self._width for number in kept]
        self._prefixes = [prefix for first in firsts for prefix in self._prefixes[first : first + self._width]]


@final
@dataclass(slots=True)
class _JointCache:
    """What attention and all parts keep of the rows."""

    attention: Cache
    parts: list[_Part]

    def reorder(self, rows: Tensor) -> None:
        """All together."""
        self.attention.reorder(rows)
        for part in self.parts:
            part.reorder(rows)

    def keep(self, sentences: Tensor) -> None:
        """All together."""
        self.attention.keep(sentences)
        for part in self.parts:
            part.keep(sentences)


@final
@dataclass(frozen=True, slots=True)
class _Joint:
    """A step of all parts: scores [R, V] of the labels after these, which are no logits."""

    head: Head
    weight: float
    """Of attention."""

    def __call__(self, labels_R: Tensor, cache: _JointCache) -> tuple[Tensor, _JointCache]:
        """The weighted sum in float64."""
        logits_RV, cache.attention = self.head.step(labels_R, cache.attention)
        scores_RV = exact(logits_RV).log_softmax(1).double() * self.weight
        for part in cache.parts:
            part.say(labels_R)
            scores_RV = part.add(scores_RV)
        return scores_RV, cache
