"""The tokenizer of a run on text, trained on the training part alone, and kept so that it need not be trained again."""

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from etude.base.says import Say, unheard
from etude.data.files.skipped import BadSampleError, Policy
from etude.data.files.text_source import BadDocument, TextCorpus
from etude.data.files.text_split import PARTS, WHOLE, Part, SplitRule, divided, survey
from etude.data.store.fitting import DEFAULT_POLICY, keep, kept, kept_at
from etude.data.store.progress import Report, unreported
from etude.data.tokens.config import TokenizerConfig
from etude.data.tokens.tokenizers import Tokenizer
from etude.data.tokens.training import needs_training, train_tokenizer

SAMPLE_BYTES = 1 << 27
"""How much of a corpus a tokenizer learns from; of a larger one it takes pieces spread evenly over all of it."""


def fit_text_tokenizer(
    config: TokenizerConfig,
    corpora: TextCorpus | Sequence[TextCorpus],
    cache: Path,
    rule: SplitRule | None = None,
    policy: Policy = DEFAULT_POLICY,
    *,
    report: Report = unreported,
    notice: Say = unheard,
) -> Tokenizer:
    """Make the tokenizer that `config` describes from the training part of texts, or load what `cache` has of it.

    `rule` is how each corpus is divided, by itself. Raises BadSampleError at the first document that cannot be used,
    unless `policy` leaves it out; DataError where there is nothing to learn from.
    """
    if not needs_training(config):
        return train_tokenizer(config, ())
    corpora = [corpora] if isinstance(corpora, TextCorpus) else list(corpora)
    contents = [corpus.fingerprint() for corpus in corpora]
    path = kept_at(cache, [contents, rule, policy.skips, config.model_dump(mode="json"), SAMPLE_BYTES])
    return kept(path, notice) or keep(_trained(config, corpora, rule, policy, report, notice), path)


def _trained(
    config: TokenizerConfig,
    corpora: Sequence[TextCorpus],
    rule: SplitRule | None,
    policy: Policy,
    report: Report,
    notice: Say,
) -> Tokenizer:
    size = sum(corpus.size for corpus in corpora)
    every = max(1, -(-size // SAMPLE_BYTES))
    if every > 1:
        name = corpora[0].name if len(corpora) == 1 else f"{len(corpora)} corpora"
        notice(f"The tokenizer is trained on every {_ordinal(every)} piece of {name}, evenly spread.")
    pieces = _training_pieces(corpora, rule, policy, lambda done: report(done, size))
    tokenizer = train_tokenizer(config, itertools.islice(pieces, 0, None, every))
    for corpus in corpora:
        corpus.check_unchanged()
    return tokenizer


def _training_pieces(
    corpora: Sequence[TextCorpus], rule: SplitRule | None, policy: Policy, seen: Callable[[int], None]
) -> Iterator[str]:
    """Give the pieces of the documents to train on; `seen` hears how many bytes of all files have been read."""
    before = 0
    for corpus in corpora:
        for document in divided(corpus, survey(corpus, rule)):
            for piece in _pieces_of(document, policy):
                seen(before + corpus.read)
                yield piece
        before += corpus.size
        seen(before)


def _pieces_of(document: Part | BadDocument, policy: Policy) -> Iterator[str]:
    """Give the pieces of a document to train on, and read any other to its end: what follows it comes after that."""
    match document:
        case BadDocument(file, line, reason, empty=empty):
            if not (policy.skips or empty):
                raise BadSampleError(file, line, reason)
        case Part() if document.name in {PARTS[0], WHOLE}:
            yield from document.pieces
        case Part():
            deque(document.pieces, maxlen=0)


def _ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")  # noqa: PLR2004 - the teens
    return f"{number}{ending}"
