"""Tokenizers from data: how each kind is trained.

The kinds `bpe`, `unigram` and `wordpiece` work on the bytes of UTF-8, so every string has an encoding and comes back
from it unchanged; `word` and `char` know what they have seen; `byte` needs no training.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, assert_never

import tokenizers
from tokenizers import decoders as library_decoders
from tokenizers import models, normalizers, pre_tokenizers, trainers

from etude.base.errors import DataError, EtudeError
from etude.data.tokens.config import (
    BpeConfig,
    ByteConfig,
    CharConfig,
    FileConfig,
    TokenizerConfig,
    Trained,
    UnigramConfig,
    WordConfig,
    WordpieceConfig,
)
from etude.data.tokens.tokenizers import SPECIALS, OwnTokenizer, Tokenizer, byte_alphabet, load_tokenizer

SUBWORDS = r" ?[\p{L}\p{M}]{1,64}| ?\p{N}| ?[^\s\p{L}\p{M}\p{N}]{1,16}|\s{1,16}(?!\S)|\s"
"""What subwords never cross: a run of letters, one digit, a run of signs, a run of spaces; a space goes with what
follows it. Single digits let a model read numbers it has never seen. The bounds keep every piece short, so that one
endless word costs no more than many; and as no piece mixes letters with signs, none can ever spell `<pad>`."""

UNSEEN_SPREAD = 0.03
"""The library adds 0.0001 to the lowest score for each of at most 256 bytes that the training has not kept."""

WORDS = r" ?\w+| ?[^\w\s]|\s"
"""What a word is: a run of letters, digits and marks, or one sign; a space goes with what follows it."""


def needs_training(config: TokenizerConfig) -> bool:
    """Tell whether the data decides the tokenizer."""
    return not isinstance(config, ByteConfig | FileConfig)


def train_tokenizer(config: TokenizerConfig, texts: Iterable[str]) -> Tokenizer:
    """Make the tokenizer that `config` describes from `texts`, which are read once, in order.

    The same config and texts give the same tokenizer, whatever the number of cores. Memory grows with the distinct
    words, not with the texts. Raises DataError where the texts hold nothing to learn from.
    """
    if isinstance(config, FileConfig):
        return load_tokenizer(config.path)
    library, trainer = _untrained(config)
    if trainer is None:
        return OwnTokenizer(library.to_str())
    remaining = iter(texts)
    first = next(filter(str.strip, remaining), None)
    if first is None:
        raise DataError(f"A {config.type} tokenizer cannot be trained: there is no text.")
    try:
        library.train_from_iterator(_pieces_of(chain([first], remaining)), trainer=trainer)
    except EtudeError:
        raise  # what the texts had to say
    except Exception as error:  # the library raises plain Exception
        raise DataError(f"A {config.type} tokenizer cannot be trained on this text: {error}.") from error
    content = json.loads(library.to_str())
    content["added_tokens"] = []  # in the vocabulary they stay; as added tokens text could spell them
    if isinstance(config, UnigramConfig):
        _settle(content)
    return OwnTokenizer(json.dumps(content))


def _untrained(config: TokenizerConfig) -> tuple[Any, Any]:
    """Give the library's tokenizer before training, and the trainer (None where nothing is learned)."""
    trainer: Any
    match config:
        case BpeConfig():
            trainer = trainers.BpeTrainer(
                vocab_size=config.vocab_size,
                min_frequency=config.min_frequency,
                special_tokens=list(SPECIALS),
                initial_alphabet=byte_alphabet(),
                show_progress=False,
            )
            return _subwords(models.BPE(), config), trainer
        case WordpieceConfig():
            model = models.WordPiece({}, unk_token=SPECIALS[1], continuing_subword_prefix="")
            model.max_input_chars_per_word = 1000
            trainer = trainers.WordPieceTrainer(
                vocab_size=config.vocab_size,
                min_frequency=config.min_frequency,
                special_tokens=list(SPECIALS),
                initial_alphabet=byte_alphabet(),
                continuing_subword_prefix="",
                show_progress=False,
            )
            return _subwords(model, config), trainer
        case UnigramConfig():
            trainer = trainers.UnigramTrainer(
                vocab_size=config.vocab_size,
                special_tokens=list(SPECIALS),
                initial_alphabet=byte_alphabet(),
                unk_token=SPECIALS[1],
                show_progress=False,
            )
            return _subwords(models.Unigram(), config), trainer
        case WordConfig() | CharConfig():
            trainer = trainers.WordLevelTrainer(
                vocab_size=config.vocab_size,
                min_frequency=config.min_frequency,
                special_tokens=list(SPECIALS),
                show_progress=False,
            )
            return _known(config), trainer
        case ByteConfig():
            return _bytes(config), None
        case FileConfig():
            raise AssertionError
        case _:
            assert_never(config)


def _subwords(model: Any, config: Trained) -> Any:
    library = tokenizers.Tokenizer(model)
    library.normalizer = _normalizer(config, prefix=True)
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(SUBWORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    library.decoder = library_decoders.Sequence([library_decoders.ByteLevel(), library_decoders.Strip(" ", 1, 0)])
    return library


def _known(config: WordConfig | CharConfig) -> Any:
    library = tokenizers.Tokenizer(models.WordLevel({}, unk_token=SPECIALS[1]))
    words = isinstance(config, WordConfig)
    library.normalizer = _normalizer(config, prefix=words)
    pattern = WORDS if words else r"(?m)."  # in this dialect (?m) lets the dot match a line's end
    library.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    parts = [library_decoders.Fuse(), *([library_decoders.Strip(" ", 1, 0)] if words else [])]
    library.decoder = library_decoders.Sequence(parts)
    return library


def _bytes(config: ByteConfig) -> Any:
    vocabulary = {token: i for i, token in enumerate([*SPECIALS, *byte_alphabet()])}
    library = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIALS[1]))
    library.normalizer = _normalizer(config, prefix=False)
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            pre_tokenizers.Split(tokenizers.Regex(r"(?m)."), "isolated"),
        ]
    )
    library.decoder = library_decoders.ByteLevel()
    return library


def _normalizer(config: Trained, *, prefix: bool) -> Any:
    """Give what is done to text first; `prefix` puts a space before it, so that a word is one at a start too."""
    steps: list[Any] = []
    if config.normalize:
        steps.append(normalizers.NFC() if config.normalize == "nfc" else normalizers.NFKC())
    if config.lowercase:
        steps.append(normalizers.Lowercase())
    if prefix:
        steps.append(normalizers.Prepend(" "))
    return normalizers.Sequence(steps)


def _settle(content: dict[str, Any]) -> None:
    """Take out of a trained unigram model what the order of the library's hash maps has left in it.

    That order differs in every process. It shows in the last bits of scores, which are rounded here; and in the
    scores of bytes that training has not kept, which the library spreads over `UNSEEN_SPREAD` above the lowest score,
    and which all get the lowest score here. Tokens are put in the order of their scores.
    """
    vocabulary = content["model"]["vocab"]
    first = len(SPECIALS)
    lowest = min(score for _, score in vocabulary[first:])
    learned = [
        (token, round(lowest if len(token) == 1 and score < lowest + UNSEEN_SPREAD else score, 6))
        for token, score in vocabulary[first:]
    ]
    learned.sort(key=lambda entry: (-entry[1], entry[0]))
    content["model"]["vocab"] = [*vocabulary[:first], *map(list, learned)]


def _pieces_of(texts: Iterable[str], size: int = 1000) -> Iterator[list[str]]:
    """Hand texts to the library in groups: one call each is slow."""
    group: list[str] = []
    for text in texts:
        group.append(text)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
