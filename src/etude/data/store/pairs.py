"""Pairs of texts, tokenised once into a table with a column of tokens for each side."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import tokenizers as library

from etude.base.errors import RefusedError
from etude.base.says import Say, unheard
from etude.data.files.parallel import SIDES, PairSource
from etude.data.files.skipped import Policy
from etude.data.store.pair_encoding import encoded, pair_columns
from etude.data.store.progress import Report, unreported
from etude.data.store.table import Table, Wanted, prepare_table
from etude.data.tokens.tokenizers import Tokenizer

DEFAULT_POLICY = Policy()


def prepare_pairs(
    source: PairSource,
    tokenizers: Mapping[str, Tokenizer],
    cache: Path,
    policy: Policy = DEFAULT_POLICY,
    *,
    processes: int | None = None,
    report: Report = unreported,
    notice: Say = unheard,
) -> Table:
    """Tokenise `source` into the folder `cache`, or open what an earlier call has made of the same content.

    `tokenizers` has one for each of `SIDES`. `processes` are as many as there are cores, by default, and only for a
    corpus large enough to need them. A call that is killed leaves nothing that a later one would take for whole; of
    two calls at once one waits. Memory does not grow with the corpus. Raises BadSampleError at the first sample
    that cannot be used (a text longer than `policy.max_length` tokens is one) or, where the policy leaves them out,
    DataError once more than its `max_skipped` are; StorageError where the cache cannot be written.
    """
    key = _key(source, tokenizers, policy)
    return prepare_table(
        "tables",
        Wanted(key, pair_columns(tokenizers), source, policy),
        cache,
        lambda: encoded(source, tokenizers, policy, processes=processes),
        report=report,
        notice=notice,
    )


def _key(source: PairSource, tokenizers: Mapping[str, Tokenizer], policy: Policy) -> str:
    """Name what a table would hold by all that decides it; runs remember their data by it."""
    if set(tokenizers) != set(SIDES):
        raise RefusedError(f"Pairs are prepared with a tokenizer for each of {SIDES}, but there are {set(tokenizers)}.")
    parts = [1, library.__version__, source.fingerprint(), policy.max_length, policy.skips]
    return hashlib.sha256(json.dumps([*parts, *(tokenizers[s].fingerprint() for s in SIDES)]).encode()).hexdigest()
