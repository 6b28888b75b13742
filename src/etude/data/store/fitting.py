"""The tokenizers of a run, trained on its training data, and kept so that the same data need not train them again."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import tokenizers as library

from etude.base.files import make_folder
from etude.base.hashes import sealed_or_empty, write_sealed
from etude.base.says import Say, unheard
from etude.data.files.lines import Flaw
from etude.data.files.parallel import SIDES, Pair, PairSource
from etude.data.files.skipped import BadSampleError, Policy
from etude.data.store.progress import Report, unreported
from etude.data.tokens.config import TokenizerConfig, TokenizerPair
from etude.data.tokens.tokenizers import Tokenizer, tokenizer_from
from etude.data.tokens.training import needs_training, train_tokenizer

FORMAT = 2
DEFAULT_POLICY = Policy()
REPORT_SAMPLES = 4096


def fit_tokenizers(
    choice: TokenizerConfig | TokenizerPair,
    source: PairSource,
    cache: Path,
    policy: Policy = DEFAULT_POLICY,
    *,
    report: Report = unreported,
    notice: Say = unheard,
) -> dict[str, Tokenizer]:
    """Make the tokenizer of each of `SIDES` from the training pairs `source`, or load what `cache` has of them.

    A shared tokenizer learns from both sides and stands for both. Raises BadSampleError at the first sample that
    cannot be used, unless `policy` leaves it out; DataError where there is nothing to learn from. `report` hears
    how many samples a training has read, and how many there are.
    """
    texts = _Texts(source, report, skip=policy.skips)
    if isinstance(choice, TokenizerPair):
        sides = {"source": choice.source, "target": choice.target}
        return {side: _fitted(config, texts, (side,), cache, notice) for side, config in sides.items()}
    return dict.fromkeys(SIDES, _fitted(choice, texts, SIDES, cache, notice))


def fit_tokenizer(
    config: TokenizerConfig,
    source: PairSource,
    cache: Path,
    policy: Policy = DEFAULT_POLICY,
    *,
    side: str = SIDES[0],
    between: str = "",
    notice: Say = unheard,
) -> Tokenizer:
    """Make a tokenizer from the texts of one side of `source` alone, or load what `cache` has of it.

    It learns too what stands `between` two texts that are joined. Raises as `fit_tokenizers` does.
    """
    texts = _Texts(source, unreported, skip=policy.skips, between=between)
    return _fitted(config, texts, (side,), cache, notice)


class _Texts:
    """The texts that a tokenizer learns from."""

    def __init__(self, source: PairSource, report: Report, *, skip: bool, between: str = "") -> None:
        self.source, self._report, self._skip, self.between = source, report, skip, between

    def of(self, sides: tuple[str, ...]) -> Iterator[str]:
        """Give the texts of `sides`, pair by pair."""
        source, places = self.source, [SIDES.index(side) for side in sides]
        for index, row in enumerate(source.rows(0, len(source))):
            if index % REPORT_SAMPLES == 0:
                self._report(index, len(source))
            match row:
                case Pair():
                    yield from (self._joined(row[place]) for place in places)
                case Flaw() if not self._skip:
                    raise BadSampleError(*source.place(index, row.side), row.reason)
        self._report(len(source), len(source))

    def _joined(self, text: str) -> str:
        return f"{text}{self.between}{text}" if self.between else text


def _fitted(config: TokenizerConfig, texts: _Texts, sides: tuple[str, ...], cache: Path, notice: Say) -> Tokenizer:
    if not needs_training(config):
        return train_tokenizer(config, ())
    parts = [texts.source.fingerprint(), sides, config.model_dump(mode="json")]
    path = kept_at(cache, [*parts, texts.between] if texts.between else parts)
    return kept(path, notice) or keep(train_tokenizer(config, texts.of(sides)), path)


def kept_at(cache: Path, parts: Sequence[object]) -> Path:
    """Name the file of a tokenizer by all that decides what it learns."""
    key = hashlib.sha256(json.dumps([FORMAT, library.__version__, *parts]).encode()).hexdigest()
    return cache / "tokenizers" / f"{key[:32]}.json"


def kept(path: Path, notice: Say) -> Tokenizer | None:
    """Load a tokenizer that was trained before; None where there is none, or it is not what was stored."""
    if not path.exists():
        return None
    match sealed_or_empty(path):
        case {"tokenizer": str(text)}:
            return tokenizer_from(text, name=str(path))
    notice(f"The tokenizer {path} is damaged: Etude trains it again.")
    return None


def keep(tokenizer: Tokenizer, path: Path) -> Tokenizer:
    """Store a tokenizer, and give it."""
    make_folder(path.parent)
    write_sealed(path, {"tokenizer": tokenizer.text})
    return tokenizer
