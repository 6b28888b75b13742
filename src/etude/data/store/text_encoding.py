"""Pieces of documents to ids: how one is tokenised, what bytes of text an id stands for, and how many work at it."""

import itertools
import json
import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from etude.data.store.columns import id_type
from etude.data.store.crew import Crew, Message, Order, cores
from etude.data.tokens.tokenizers import SPECIALS, UNK, OwnTokenizer, Tokenizer, load_tokenizer

LOT_BYTES = 1 << 20
LOT_PIECES = 4096
"""How much is tokenised at once, at most."""

PROCESS_BYTES = 1 << 24
"""What a process needs to be worth its start."""

WORDS = re.compile(r"[^\S\x1c-\x1f]*[\S\x1c-\x1f]+|[^\S\x1c-\x1f]+")
"""White space and what follows it. No token of a tokenizer that Etude trains reaches over the end of such a word; the
four signs are white space to Python, but not to the patterns of these tokenizers."""

KNOWN_WORDS = 1 << 17
KNOWN_CHARACTERS = 1 << 22
"""What is remembered, at most: more is forgotten as a whole before the next lot."""

BYTE = re.compile(r"<0x[0-9A-F]{2}>")

Ids = npt.NDArray[Any]


class Lot(NamedTuple):
    """Pieces in a row, as UTF-8, which of them begin a document, and what whoever made the lot wants to know."""

    texts: Sequence[bytes]
    begins: Sequence[bool]
    marks: Sequence[Any] = ()


class Encoded(NamedTuple):
    """The ids of a lot's pieces one after the other, and how many each has."""

    ids: Ids
    lengths: list[int]


class PieceTokenizer:
    """Tokenises pieces such that together they give what their document would.

    Etude's subword tokenizers put a space before a text; that is done where a document begins and nowhere else. What
    they make of a word does not depend on the words around it, so each is tokenised once and then remembered, which is
    several times as quick. Other tokenizers are given whole pieces. Memory: `KNOWN_WORDS` words, and a lot.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._first = tokenizer
        self._further = _without_prefix(tokenizer)
        self._type = np.dtype(id_type(tokenizer.size))
        self._known: dict[str, bytes] = {}
        self._characters = 0
        self._by_words = isinstance(tokenizer, OwnTokenizer)

    def __call__(self, lot: Lot) -> Encoded:
        """Give the ids of a lot."""
        texts = [text.decode() for text in lot.texts]
        if not self._by_words:
            parts = self._ids(self._first, texts)
        else:
            parts = self._from_words([WORDS.findall(text) for text in texts], lot.begins)
        ids = np.frombuffer(b"".join(parts), dtype=self._type)
        return Encoded(ids, [len(part) // self._type.itemsize for part in parts])

    def _from_words(self, texts: list[list[str]], begins: Sequence[bool]) -> list[bytes]:
        openings = self._openings(texts, begins)
        self._learn(texts)
        known = self._known
        return [
            b"".join([opening, *map(known.__getitem__, words)]) for opening, words in zip(openings, texts, strict=True)
        ]

    def _openings(self, texts: list[list[str]], begins: Sequence[bool]) -> list[bytes]:
        """Take the first word from each text that begins a document, and give its ids; nothing of the other texts."""
        words = [text.pop(0) if begin else "" for text, begin in zip(texts, begins, strict=True)]
        ids = iter(self._ids(self._first, list(filter(None, words))))
        return [next(ids) if word else b"" for word in words]

    def _learn(self, texts: list[list[str]]) -> None:
        """Tokenise the words that are not known yet."""
        if len(self._known) > KNOWN_WORDS or self._characters > KNOWN_CHARACTERS:
            self._known, self._characters = {}, 0
        new = [word for word in dict.fromkeys(itertools.chain(*texts)) if word not in self._known]
        self._known.update(zip(new, self._ids(self._further, new), strict=True))
        self._characters += sum(map(len, new))

    def _ids(self, tokenizer: Tokenizer, texts: list[str]) -> list[bytes]:
        rows = tokenizer.encode_batch(texts) if texts else []
        return [np.array(row, dtype=self._type).tobytes() for row in rows]


def _without_prefix(tokenizer: Tokenizer) -> Tokenizer:
    if not prefix_of(tokenizer):
        return tokenizer
    content = _content(tokenizer)
    steps = content["normalizer"]["normalizers"]
    content["normalizer"]["normalizers"] = [step for step in steps if step["type"] != "Prepend"]
    return OwnTokenizer(json.dumps(content))


def prefix_of(tokenizer: Tokenizer) -> int:
    """Give how many bytes the ids of a document stand for before its text: the space that was put there."""
    if not isinstance(tokenizer, OwnTokenizer):
        return 0
    normalizer = _content(tokenizer).get("normalizer") or {}
    return int(any(step["type"] == "Prepend" for step in normalizer.get("normalizers", ())))


def token_bytes(tokenizer: Tokenizer) -> npt.NDArray[np.float64]:
    """Give how many bytes of UTF-8 each id stands for, as its vocabulary spells it; special ones for none: [size].

    An unknown token counts as one byte. What that and a changed text (lower case) make of the sum, a factor mends.
    """
    content = _content(tokenizer)
    spelled = _byte_level if "ByteLevel" in json.dumps(content.get("decoder") or {}) else _spelled
    first = 0 if isinstance(tokenizer, OwnTokenizer) else len(SPECIALS)
    sizes = np.ones(tokenizer.size)
    for token, number in _ids_of(content).items():
        sizes[first + number] = spelled(token)
    sizes[: len(SPECIALS)] = 0
    sizes[UNK] = 1
    return sizes


def _ids_of(content: dict[str, Any]) -> dict[str, int]:
    """Give the id of every token of a vocabulary."""
    match content.get("model", {}).get("vocab", {}):
        case dict() as vocabulary:
            ids = dict(vocabulary)
        case vocabulary:
            ids = {token: number for number, (token, _) in enumerate(vocabulary)}
    return ids | {token["content"]: token["id"] for token in content.get("added_tokens") or ()}


def _byte_level(token: str) -> int:
    return len(token)


def _spelled(token: str) -> int:
    """Count the bytes of a token, in the writing of SentencePiece (a low line for a space) and WordPiece."""
    return 1 if BYTE.fullmatch(token) else len(token.replace("\u2581", " ").removeprefix("##").encode())


def _content(tokenizer: Tokenizer) -> dict[str, Any]:
    return dict(json.loads(tokenizer.text))


def processes_for(size: int) -> int:
    """Choose how many processes tokenise `size` bytes."""
    return min(cores(), size // PROCESS_BYTES)


def encoded(lots: Iterable[Lot], tokenizer: Tokenizer, processes: int) -> Generator[tuple[Lot, Encoded], None, None]:
    """Give each lot with its ids, in order; the same with any number of processes, of which 0 and 1 are this one."""
    if processes <= 1:
        encode = PieceTokenizer(tokenizer)
        for lot in lots:
            yield lot, encode(lot)
        return
    with TemporaryDirectory(prefix="etude-") as folder:
        path = Path(folder, "tokenizer.json")
        tokenizer.save(path)
        order = Order("etude.data.store.text_encoding:TextWork", {"tokenizer": str(path)}, "tokenised the data")
        with closing(Crew(order, processes)) as crew:
            for lot, answer in crew.answers(lots, _packed):
                for message in answer:
                    ids = np.frombuffer(message.parts[0], dtype=id_type(tokenizer.size))
                    yield lot, Encoded(ids, message.facts["lengths"])


class TextWork:
    """Tokenises pieces of text in a worker, which is sent them: so any kind of file can be tokenised in parallel."""

    def __init__(self, tokenizer: str) -> None:
        self._encode = PieceTokenizer(load_tokenizer(Path(tokenizer)))

    def __call__(self, task: Message) -> Iterator[Message]:
        """Answer a lot."""
        made = self._encode(Lot(task.parts, task.facts["begins"]))
        yield Message({"lengths": made.lengths}, [made.ids.tobytes()])


def _packed(lot: Lot) -> Message:
    return Message({"begins": list(lot.begins)}, lot.texts)
