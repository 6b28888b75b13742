"""The tokenizer of a run on text, trained on the training part alone, and kept so that it need not be trained again."""

import hashlib
import itertools
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import tokenizers as library

from etude.base.errors import DataError
from etude.base.files import make_folder
from etude.base.says import Say, unheard
from etude.data.files.skipped import BadSampleError, Policy
from etude.data.files.text_source import BadDocument, TextCorpus
from etude.data.files.text_split import PARTS, WHOLE, SplitRule, divided, survey
from etude.data.store.progress import Report, unreported
from etude.data.store.text_prepared import DEFAULT_POLICY
from etude.data.tokens.config import TokenizerConfig
from etude.data.tokens.tokenizers import Tokenizer, load_tokenizer
from etude.data.tokens.training import needs_training, train_tokenizer

FORMAT = 1
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
    parts = [FORMAT, library.__version__, contents, rule, policy.skips, config.model_dump(mode="json"), SAMPLE_BYTES]
    path = cache / "tokenizers" / f"{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}.json"
    if path.exists():
        try:
            return load_tokenizer(path)
        except DataError:
            path.unlink(missing_ok=True)  # damaged: it is trained again
    size = sum(corpus.size for corpus in corpora)
    every = max(1, -(-size // SAMPLE_BYTES))
    if every > 1:
        name = corpora[0].name if len(corpora) == 1 else f"{len(corpora)} corpora"
        notice(f"The tokenizer learns from every {_ordinal(every)} piece of {name}, evenly spread.")
    pieces = _training_pieces(corpora, rule, policy, lambda done: report(done, size))
    tokenizer = train_tokenizer(config, itertools.islice(pieces, 0, None, every))
    for corpus in corpora:
        corpus.check_unchanged()
    make_folder(path.parent)
    tokenizer.save(path)
    return tokenizer


def _training_pieces(
    corpora: Sequence[TextCorpus], rule: SplitRule | None, policy: Policy, seen: Callable[[int], None]
) -> Iterator[str]:
    """Give the pieces of the documents to train on; `seen` hears how many bytes of all files have been read."""
    before = 0
    for corpus in corpora:
        for document in divided(corpus, survey(corpus, rule)):
            if isinstance(document, BadDocument):
                if not policy.skips:
                    raise BadSampleError(document.file, document.line, document.reason)
            elif document.name in {PARTS[0], WHOLE}:
                for piece in document.pieces:
                    seen(before + corpus.read)
                    yield piece
            else:
                deque(document.pieces, maxlen=0)  # what comes after it in the file is reached by reading it
        before += corpus.size
        seen(before)


def _ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")  # noqa: PLR2004 - the teens
    return f"{number}{ending}"
