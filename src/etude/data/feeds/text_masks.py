"""Text with some of its tokens hidden, to be predicted from what stands on both sides (Devlin et al. 2019).

Shape: T places in a row.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from etude.base.randomness import uniform_each
from etude.data.tokens.tokenizers import BOS, SPECIALS

HIDDEN = BOS
"""What stands in the place of a hidden token: no text holds it."""
FIRST = len(SPECIALS)
"""The first token that is a piece of text; those before it are neither hidden nor put anywhere."""
FIXED = -1
"""The epoch of masks that stay the same."""


class Shares(NamedTuple):
    """How much of a text is predicted, and what stands there."""

    chosen: float
    """The share of tokens that are predicted, ..."""
    hidden: float
    """... of these the share in whose place stands `HIDDEN`, ..."""
    replaced: float
    """... and the share in whose place stands any token; the others stay as they are."""


class TextMasks(NamedTuple):
    """Chooses tokens of a text by (seed, epoch, place in the text) alone, whatever they are batched with."""

    shares: Shares
    tokens: int
    """How many tokens there are."""
    seed: int
    varies: bool
    """Whether epochs differ."""

    def of(
        self, ids: NDArray[np.int64], begin: int, source: int, epoch: int
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The tokens [T] as they are seen, from the place `begin` of a text on, and which of them are predicted [T].

        At least one is, where there is a piece of text.
        """
        places = np.arange(begin, begin + len(ids), dtype=np.int64)
        epoch = epoch if self.varies else FIXED

        def draw(what: str) -> NDArray[np.float64]:
            return uniform_each(places, self.seed, "masks", what, source, epoch)

        chosen = self._chosen(ids, draw("chosen"))
        how = draw("how")
        hidden = chosen & (how < self.shares.hidden)
        replaced = chosen & ~hidden & (how < self.shares.hidden + self.shares.replaced)
        others = FIRST + (draw("by") * (self.tokens - FIRST)).astype(np.int64)
        return np.where(hidden, HIDDEN, np.where(replaced, others, ids)), chosen

    def _chosen(self, ids: NDArray[np.int64], drawn: NDArray[np.float64]) -> NDArray[np.bool_]:
        drawn = np.where(ids >= FIRST, drawn, np.inf)
        chosen: NDArray[np.bool_] = drawn < self.shares.chosen
        if len(ids) and not chosen.any():
            chosen[drawn.argmin()] = np.isfinite(drawn.min())
        return chosen
