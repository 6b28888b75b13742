"""Text tokenised once, for all its parts, into shards that are mapped into memory.

A folder of the cache holds one corpus, divided one way, as one tokenizer sees it; it is named by the content of these,
and written whole or not at all. What it holds is a function of them, whatever the number of processes.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tokenizers as library

from etude.base.errors import DataError
from etude.base.says import Say, unheard
from etude.data.files.skipped import Allowance, BadSampleError, Policy
from etude.data.files.text_source import BadDocument, TextCorpus
from etude.data.files.text_split import Division, Part, SplitRule, divided, survey
from etude.data.store.columns import id_type
from etude.data.store.folders import FolderWriter, WrittenFile, is_whole, manifest_of, place_of, prepared
from etude.data.store.progress import Report, unreported
from etude.data.store.skips import Skip, SkipWriter
from etude.data.store.text_encoding import (
    LOT_BYTES,
    LOT_PIECES,
    Encoded,
    Ids,
    Lot,
    encoded,
    prefix_of,
    processes_for,
    token_bytes,
)
from etude.data.store.text_table import BYTES, FORMAT, TextTable, shard_name
from etude.data.tokens.tokenizers import EOS, Tokenizer

SHARD_TOKENS = 1 << 26
"""Ids of a shard: 128 or 256 MiB."""

DEFAULT_POLICY = Policy()


class Tables(NamedTuple):
    """The parts of a corpus: `train`, `val` and perhaps `test`, or `all`."""

    parts: dict[str, TextTable]
    folder: Path


def prepare_texts(
    corpus: TextCorpus,
    tokenizer: Tokenizer,
    cache: Path,
    rule: SplitRule | None = None,
    policy: Policy = DEFAULT_POLICY,
    *,
    processes: int | None = None,
    report: Report = unreported,
    notice: Say = unheard,
) -> Tables:
    """Tokenise `corpus` into the folder `cache`, or open what an earlier call has made of the same content.

    `rule` divides it into parts; without one it is the part `all`. A call that is killed leaves nothing that a later
    one would take for whole; of two calls at once one waits. Memory does not grow with the corpus. Raises
    BadSampleError at the first document that cannot be used or, where the policy leaves them out, DataError when more
    than its `max_skipped` are; DataError where a part holds nothing; StorageError where the cache cannot be written.
    """
    key = tables_key(corpus, tokenizer, rule, policy)

    def opened(place: Path) -> Tables | None:
        return _open(place) if is_whole(place, FORMAT, key) else None

    def write(place: Path) -> None:
        count = processes_for(corpus.size) if processes is None else processes
        with FolderWriter(place, FORMAT, key) as folder:
            writer = _Writer(folder, survey(corpus, rule), tokenizer, policy)
            _write(writer, corpus, tokenizer, count, report)

    tables = prepared(place_of(cache, "texts", key, FORMAT), opened, write, notice)
    _check(tables, corpus, policy)
    return tables


def tables_key(corpus: TextCorpus, tokenizer: Tokenizer, rule: SplitRule | None, policy: Policy) -> str:
    """Name what the tables hold by all that decides it; runs remember their data by it."""
    parts = [1, library.__version__, corpus.fingerprint(), tokenizer.fingerprint(), rule, policy.skips]
    return hashlib.sha256(json.dumps([*parts, SHARD_TOKENS]).encode()).hexdigest()


def _write(writer: "_Writer", corpus: TextCorpus, tokenizer: Tokenizer, processes: int, report: Report) -> None:
    with contextlib.closing(encoded(_lots(corpus, writer), tokenizer, processes)) as made:
        for lot, answer in made:
            writer.add(lot.marks, answer)
            report(corpus.read, corpus.size)
    corpus.check_unchanged()
    writer.close(corpus)
    report(corpus.size, corpus.size)


class Mark(NamedTuple):
    """What a piece belongs to."""

    part: str
    file: str
    line: int
    bytes: int
    begins: bool
    ends: bool


def _lots(corpus: TextCorpus, writer: "_Writer") -> Iterator[Lot]:
    """Give all pieces that can be used, in order, in lots; `writer` hears of documents that cannot."""
    texts: list[bytes] = []
    marks: list[Mark] = []
    size = 0
    for mark, text in _pieces(corpus, writer):
        texts.append(text)
        marks.append(mark)
        size += mark.bytes
        if size >= LOT_BYTES or len(texts) == LOT_PIECES:
            yield _lot(texts, marks)
            texts, marks, size = [], [], 0
    if texts:
        yield _lot(texts, marks)


def _lot(texts: list[bytes], marks: list[Mark]) -> Lot:
    return Lot(texts, [mark.begins for mark in marks], marks)


def _pieces(corpus: TextCorpus, writer: "_Writer") -> Iterator[tuple[Mark, bytes]]:
    for document in divided(corpus, writer.division):
        if isinstance(document, BadDocument):
            writer.skip(document)
        else:
            yield from _marked(document)


def _marked(document: Part) -> Iterator[tuple[Mark, bytes]]:
    begins, name, file, line = True, document.name, document.file, document.line
    following = next(document.pieces, None)
    while following is not None:
        text = following.encode()
        following = next(document.pieces, None)
        yield Mark(name, file, line, len(text), begins, following is None), text
        begins = False


class _Writer:
    """The files of tables that are being written; memory does not grow with them."""

    def __init__(self, folder: FolderWriter, division: Division, tokenizer: Tokenizer, policy: Policy) -> None:
        self.division = division
        self._folder, self._tokenizer, self._policy = folder, tokenizer, policy
        self._documents = self._empty = 0
        sizes = token_bytes(tokenizer)
        folder.open(BYTES).write(sizes.tobytes())
        self._skips = SkipWriter(folder)
        self._parts = {name: _PartWriter(folder, name, tokenizer, sizes) for name in division.names}

    def skip(self, bad: BadDocument) -> None:
        """Leave a document out, where the policy allows that."""
        if not (self._policy.skips or bad.empty):
            raise BadSampleError(bad.file, bad.line, bad.reason)
        self._skips.add(Skip(self._skips.count, "", bad.reason, bad.file, bad.line))
        self._documents += 1
        self._empty += bad.empty
        allowed, skipped = Allowance.parse(self._policy.max_skipped), self._skips.count - self._empty
        if not allowed.share and skipped > allowed.of(skipped):
            raise _too_many(skipped, None, bad.file, self._policy)

    def add(self, marks: Sequence[Mark], answer: Encoded) -> None:
        """Write the pieces of a lot."""
        begin = 0
        for mark, length in zip(marks, answer.lengths, strict=True):
            self._parts[mark.part].add(answer.ids[begin : begin + length], mark)
            self._documents += mark.ends
            begin += length

    def close(self, corpus: TextCorpus) -> None:
        """Make every file durable; raise DataError where a part is empty, or too much was left out."""
        skipped, documents = self._skips.count, self._documents
        if not documents - skipped:
            reason = f" ({skipped} documents cannot be used)" if skipped else ""
            raise DataError(f"{corpus.name} holds no document that can be used{reason}.")
        for name, part in self._parts.items():
            if not part.facts["documents"]:
                raise DataError(f'{corpus.name} has no document for {name}: set data.split_by = "position".')
            part.close()
        if skipped - self._empty > Allowance.parse(self._policy.max_skipped).of(documents):
            raise _too_many(skipped - self._empty, documents, corpus.name, self._policy)
        self._folder.close(
            {
                "skipped": skipped,
                "empty": self._empty,
                "documents": documents,
                "vocabulary": self._tokenizer.size,
                "type": id_type(self._tokenizer.size),
                "shard": SHARD_TOKENS,
                "prefix": prefix_of(self._tokenizer),
                "parts": {name: part.facts for name, part in self._parts.items()},
            }
        )


class _PartWriter:
    """The files of one part."""

    def __init__(self, folder: FolderWriter, name: str, tokenizer: Tokenizer, sizes: Ids) -> None:
        self.facts = {"documents": 0, "tokens": 0, "bytes": 0, "counted": 0}
        self._folder, self._name, self._sizes = folder, name, sizes
        self._end = np.array([EOS], dtype=id_type(tokenizer.size))
        self._prefix = prefix_of(tokenizer)
        self._ids: WrittenFile | None = None
        self._starts = folder.open(f"{name}.starts")
        self._put(self._end)

    def add(self, ids: Ids, mark: Mark) -> None:
        """Write a piece."""
        if mark.begins:
            self._starts.write(np.int64(self.facts["tokens"]).tobytes())
        self._put(ids)
        counted = int(self._sizes[ids].sum()) if len(ids) else 0
        self.facts["counted"] += counted - (self._prefix if mark.begins else 0)
        self.facts["bytes"] += mark.bytes
        if mark.ends:
            self._put(self._end)
            self.facts["documents"] += 1

    def close(self) -> None:
        """Write what comes last."""
        self._starts.write(np.int64(self.facts["tokens"]).tobytes())

    def _put(self, ids: Ids) -> None:
        while len(ids):
            shard, place = divmod(self.facts["tokens"], SHARD_TOKENS)
            if self._ids is None or place == 0:
                self._ids = self._next(shard)
            here = ids[: SHARD_TOKENS - place]
            self._ids.write(here.tobytes())
            self.facts["tokens"] += len(here)
            ids = ids[len(here) :]

    def _next(self, shard: int) -> WrittenFile:
        if self._ids is not None:
            self._ids.close()
        return self._folder.open(shard_name(self._name, shard))


def _open(place: Path) -> Tables:
    return Tables({name: TextTable(place, name) for name in manifest_of(place)["parts"]}, place)


def _check(tables: Tables, corpus: TextCorpus, policy: Policy) -> None:
    """Refuse more skips than are allowed now, which may be fewer than when the tables were made."""
    manifest = manifest_of(tables.folder)
    skipped, documents = manifest["skipped"] - manifest.get("empty", 0), manifest["documents"]
    if skipped > Allowance.parse(policy.max_skipped).of(documents):
        raise _too_many(skipped, documents, corpus.name, policy)


def _too_many(skipped: int, documents: int | None, name: str, policy: Policy) -> DataError:
    of = "" if documents is None else f" of {documents}"
    return DataError(
        f"{skipped}{of} documents in {name} cannot be used, but data.max_skipped allows {policy.max_skipped}; "
        'data.on_bad_sample = "error" shows the first.'
    )
