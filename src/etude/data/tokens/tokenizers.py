"""Text to token ids and back.

Every kind is one `tokenizer.json` of the `tokenizers` library, so that what Etude trains others can load. Two things
are the same for all: the ids of the four special tokens, and that no text can spell them.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np
import numpy.typing as npt
import tokenizers

from etude.base.errors import DataError
from etude.base.paths import user_path
from etude.base.regular import read_regular

# One thread each: the library then counts in the order of the texts, and has nothing to warn of when a process that
# has used it forks. Set once, here, because changing the environment later is not safe among threads.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

PAD, UNK, BOS, EOS = 0, 1, 2, 3
SPECIALS = ("<pad>", "<unk>", "<bos>", "<eos>")
"""What the special tokens are called in a vocabulary; their index is their id."""

LARGEST = 1 << 24
"""More ids than this are a damaged file rather than a vocabulary."""
LARGEST_FILE = 1 << 30
"""Bytes."""
PANIC = "PanicException"
"""What the library raises where its own code fails."""
MOST_SAID = 300
STDERR = 2

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""What an unknown token and bytes that are no UTF-8 decode to."""

Ids = npt.NDArray[np.int64]
Content = dict[str, Any]
"""A `tokenizer.json`, as the library writes it."""


class Tokenizer(Protocol):
    """Turns text into ids and back; a value that never changes once it is made.

    Ids below 4 are special (`PAD`, `UNK`, `BOS`, `EOS`). Encoding produces none of them but `UNK`.
    """

    text: str
    """What `save` writes: a `tokenizer.json`."""

    @property
    def size(self) -> int:
        """How many ids there are, special ones included."""
        ...

    def encode(self, text: str) -> list[int]:
        """Give the ids of `text`, without special tokens at its ends."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Give the ids of each text; the same as `encode` one by one, and faster."""
        ...

    def encode_flat(self, texts: Sequence[str]) -> tuple[Ids, Ids]:
        """Give the ids of all texts one after the other [sum of lengths], and their lengths [number of texts]."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Give the text of `ids`: `PAD`, `BOS` and `EOS` vanish, `UNK` becomes the replacement character."""
        ...

    def spell(self, ids: Sequence[int]) -> list[str]:
        """Give each of `ids` by itself, for people to read: special tokens by name, as `<eos>`."""
        ...

    def save(self, path: Path) -> None:
        """Write a file that `load_tokenizer` reads back to an equal tokenizer."""
        ...

    def fingerprint(self) -> str:
        """Give the sha256 of everything that decides what `encode` and `decode` do, as 64 hex digits."""
        ...


@final
class OwnTokenizer:
    """A tokenizer that Etude trained: special tokens are ids 0 to 3 of its vocabulary, which no text can spell.

    `text` is the content of its `tokenizer.json`; it is kept and saved as it is, so that a fingerprint does not depend
    on the version of the library that loaded it.
    """

    def __init__(self, text: str) -> None:
        content = json.loads(text)
        self.text = _canonical(content)
        self._library = tokenizers.Tokenizer.from_str(self.text)
        self._pieces = _pieces(content)
        self._strips = _strips(content)

    @property
    def size(self) -> int:
        """How many ids there are, special ones included."""
        return len(self._pieces)

    def encode(self, text: str) -> list[int]:
        """Give the ids of `text`, without special tokens at its ends."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Give the ids of each text; the same as `encode` one by one, and faster."""
        return _encoded(self._library, texts)

    def encode_flat(self, texts: Sequence[str]) -> tuple[Ids, Ids]:
        """Give the ids of all texts one after the other, and their lengths."""
        return _flat(self.encode_batch(texts))

    def decode(self, ids: Sequence[int]) -> str:
        """Give the text of `ids`; the inverse of `encode` where the text holds no unknown token."""
        pieces = self._pieces
        known = len(pieces)
        text = b"".join([pieces[i] if 0 <= i < known else pieces[UNK] for i in map(int, ids)]).decode(
            "utf-8", errors="replace"
        )
        return text.removeprefix(" ") if self._strips else text

    def spell(self, ids: Sequence[int]) -> list[str]:
        r"""Give each of `ids` by itself: special tokens by name, bytes that are no whole character as `\xc3`."""
        names = dict(enumerate(SPECIALS))
        return [names.get(i) or self._pieces[i].decode("utf-8", errors="backslashreplace") for i in map(int, ids)]

    def save(self, path: Path) -> None:
        """Write a `tokenizer.json` that `load_tokenizer` and the `tokenizers` library read."""
        from etude.base.files import write_text

        write_text(path, self.text)

    def fingerprint(self) -> str:
        """Give the sha256 of the file that `save` writes."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@final
class ForeignTokenizer:
    """A `tokenizer.json` made elsewhere: its ids follow Etude's four special ones, so its id 0 is our 4.

    Its own special tokens stay in the vocabulary; text that spells one is tokenised like any other text.
    """

    def __init__(self, text: str) -> None:
        content = json.loads(text)
        content["truncation"] = content["padding"] = None
        self.text = _canonical(content)
        self._library = tokenizers.Tokenizer.from_str(self.text)
        self._library.encode_special_tokens = True
        self._size = len(SPECIALS) + 1 + max(self._library.get_vocab(with_added_tokens=True).values(), default=-1)
        if self._size > LARGEST:
            raise ValueError(f"its largest id is {self._size - len(SPECIALS) - 1}")

    @property
    def size(self) -> int:
        """How many ids there are, special ones included."""
        return self._size

    def encode(self, text: str) -> list[int]:
        """Give the ids of `text`, without special tokens at its ends."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Give the ids of each text; the same as `encode` one by one, and faster."""
        first = len(SPECIALS)
        return [[i + first for i in ids] for ids in _encoded(self._library, texts)]

    def encode_flat(self, texts: Sequence[str]) -> tuple[Ids, Ids]:
        """Give the ids of all texts one after the other, and their lengths."""
        return _flat(self.encode_batch(texts))

    def decode(self, ids: Sequence[int]) -> str:
        """Give the text of `ids` as the file's own decoder does; Etude's special tokens vanish."""
        first = len(SPECIALS)
        own = [int(i) - first for i in ids if first <= int(i) < self._size]
        with _library("The tokenizer cannot decode these ids"):
            return str(self._library.decode(own, skip_special_tokens=True))

    def spell(self, ids: Sequence[int]) -> list[str]:
        """Give each of `ids` as its vocabulary spells it; an id that this leaves out is `<unk>`."""
        names = dict(enumerate(SPECIALS))
        first = len(SPECIALS)
        return [names.get(i) or self._library.id_to_token(i - first) or SPECIALS[UNK] for i in map(int, ids)]

    def save(self, path: Path) -> None:
        """Write a `tokenizer.json` that `load_tokenizer` and the `tokenizers` library read."""
        from etude.base.files import write_text

        write_text(path, self.text)

    def fingerprint(self) -> str:
        """Give the sha256 of the file that `save` writes."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def load_tokenizer(path: Path | str) -> Tokenizer:
    """Read a `tokenizer.json`, whether Etude or the `tokenizers` library wrote it.

    Raises DataError, naming the file, where there is none or it is not a tokenizer.
    """
    path = user_path(path)
    if path.suffix == ".model":
        raise DataError(
            f"{path} is a SentencePiece model, which Etude cannot read yet; "
            "convert it to a tokenizer.json with the tokenizers library."
        )
    try:
        text = read_regular(path, LARGEST_FILE).decode("utf-8")
    except OSError as error:
        raise DataError(f"The tokenizer {path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a tokenizer.json: it is not UTF-8 text.") from error
    return tokenizer_from(text, name=str(path))


def tokenizer_from(text: str, *, name: str) -> Tokenizer:
    """Make the tokenizer that the content of a `tokenizer.json` describes; errors call it `name`."""
    with _library(f"{name} is not a tokenizer.json that the tokenizers library reads"), _hushed():
        content = json.loads(text)
        return OwnTokenizer(text) if _is_own(content) else ForeignTokenizer(text)


def _encoded(library: tokenizers.Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    with _library("The tokenizer cannot encode this text"):
        encodings = library.encode_batch_fast(list(map(_sound, texts)), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]


@contextmanager
def _hushed() -> Iterator[None]:
    """Let nothing be written to stderr, where compiled code that fails writes what is no sentence."""
    try:
        kept = os.dup(STDERR)
    except OSError:  # it is closed
        yield
        return
    try:
        with Path(os.devnull).open("wb") as null:
            os.dup2(null.fileno(), STDERR)
        yield
    finally:
        os.dup2(kept, STDERR)
        os.close(kept)


def is_failure(error: BaseException) -> bool:
    """Whether an error tells that code failed: an Exception, or a panic of compiled code, which is none."""
    return isinstance(error, Exception) or type(error).__name__ == PANIC


@contextmanager
def _library(what: str) -> Iterator[None]:
    """Say in a DataError that begins with `what` why the library cannot do what the block asks of it.

    It raises plain Exception for whatever it cannot read, and what is no Exception at all where its own code fails, as
    for a regular expression that it cannot compile.
    """
    try:
        yield
    except BaseException as error:
        if not is_failure(error):
            raise
        raise DataError(f"{what}: {' '.join(str(error).split())[:MOST_SAID]}.") from error


def _is_own(content: Content) -> bool:
    match content["model"]["vocab"]:
        case list() as scored:  # unigram: [token, score] in order
            named = [token for token, _ in scored[: len(SPECIALS)]] == list(SPECIALS)
        case vocabulary:
            named = [vocabulary.get(token) for token in SPECIALS] == [PAD, UNK, BOS, EOS]
    return named and not content.get("added_tokens")


def _vocabulary(content: Content) -> list[str]:
    """Give the tokens in the order of their ids."""
    match content["model"]["vocab"]:
        case list() as scored:
            return [token for token, _ in scored]
        case vocabulary:
            tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    if [vocabulary[token] for token in tokens] != list(range(len(tokens))):
        raise ValueError("the ids of its vocabulary have gaps")
    return tokens


def _decoders(content: Content) -> list[str]:
    decoder = content.get("decoder") or {}
    return [part["type"] for part in decoder.get("decoders", [decoder]) if "type" in part]


def _strips(content: Content) -> bool:
    """Tell whether encoding puts a space before the text, so that decoding takes one away."""
    return "Strip" in _decoders(content)


def _pieces(content: Content) -> list[bytes]:
    """Give the bytes of each id."""
    pieces = _bytes_of(_vocabulary(content), by_level="ByteLevel" in _decoders(content))
    space = " " if _strips(content) else ""
    for special, shown in ((PAD, ""), (UNK, space + REPLACEMENT), (BOS, ""), (EOS, "")):
        pieces[special] = shown.encode()
    return pieces


def _bytes_of(vocabulary: list[str], *, by_level: bool) -> list[bytes]:
    """Give the bytes that tokens are spelled with."""
    if not by_level:
        return [token.encode() for token in vocabulary]
    value = {character: byte for byte, character in enumerate(byte_alphabet())}
    return [bytes(value.get(c, 0) for c in token) for token in vocabulary]


def byte_alphabet() -> list[str]:
    """Give the printable character that stands for each of the 256 bytes in a byte-level vocabulary.

    Printable bytes of Latin-1 stand for themselves, the others for U+0100 onwards; the table is GPT-2's
    (Radford et al. 2019, `bytes_to_unicode`), which the `tokenizers` library calls ByteLevel.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    hidden = iter(range(0x100, 0x200))
    visible = set(printable)
    return [chr(byte) if byte in visible else chr(next(hidden)) for byte in range(256)]


def _flat(batch: list[list[int]]) -> tuple[Ids, Ids]:
    lengths = np.fromiter(map(len, batch), dtype=np.int64, count=len(batch))
    ids = np.fromiter((i for row in batch for i in row), dtype=np.int64, count=int(lengths.sum()))
    return ids, lengths


def _sound(text: str) -> str:
    """Give text that UTF-8 can hold: a lone surrogate, which only JSON escapes can make, is replaced."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _canonical(content: Content) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"), sort_keys=False) + "\n"
