"""Transcripts as tokens: what the texts of recordings become, and the tokenizer that learns from them."""

from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np
import tokenizers as library

from etude.base.says import Say, unheard
from etude.data.files.header import SIDES
from etude.data.files.lines import Flaw
from etude.data.files.manifests import Manifest, Recording
from etude.data.files.skipped import Policy
from etude.data.store.columns import Part, text, tokens
from etude.data.store.fitting import fit_tokenizer
from etude.data.store.recordings import GROUP, TARGET
from etude.data.tokens.config import TokenizerConfig
from etude.data.tokens.tokenizers import Tokenizer


@final
class Transcripts:
    """Tokens of transcripts, which may be empty; more than `most` make a bad sample.

    With `grouped`, what stands in the last further column is kept beside them: what metrics are by.
    """

    def __init__(self, tokenizer: Tokenizer, most: int | None = None, *, grouped: bool = False) -> None:
        self._tokenizer, self._most, self._grouped = tokenizer, most, grouped
        self.columns = (tokens(TARGET, tokenizer.size), *([text(GROUP)] if grouped else []))

    def fingerprint(self) -> str:
        """Give a hash of all that decides it."""
        return f"{library.__version__} {self._tokenizer.fingerprint()}" + " grouped" * self._grouped

    def encode(self, recordings: Sequence[Recording]) -> tuple[Sequence[Part], list[tuple[int, Flaw]]]:
        """Give the tokens of those that are not too long, and which are."""
        ids, lengths = self._tokenizer.encode_flat([one.text.strip() for one in recordings])
        good = np.ones(len(lengths), dtype=np.bool_) if self._most is None else lengths <= self._most
        flaws = [
            (place, Flaw(f"the transcript has {int(lengths[place])} tokens, more than data.max_length", "target"))
            for place in np.flatnonzero(~good).tolist()
        ]
        kept = np.asarray(ids)[np.repeat(good, lengths)]
        part = Part(kept.astype(self.columns[0].dtype), lengths[good].astype(np.int32))
        if not self._grouped:
            return [part], flaws
        return [part, Part.of_texts([recordings[place].further[-1] for place in np.flatnonzero(good).tolist()])], flaws


def fit_transcripts(
    config: TokenizerConfig,
    manifest: Manifest,
    cache: Path,
    policy: Policy,
    *,
    between: str = "",
    notice: Say = unheard,
) -> Tokenizer:
    """Make a tokenizer from the transcripts of `manifest`, or load what `cache` has.

    It also knows what stands `between` transcripts that are joined.
    """
    return fit_tokenizer(config, manifest.source, cache, policy, side=SIDES[1], between=between, notice=notice)
