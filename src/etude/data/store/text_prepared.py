"""Text tokenised once, for all its parts, into shards that are mapped into memory.

A folder of the cache holds one corpus, divided one way, as one tokenizer sees it; it is named by the content of these,
and written whole or not at all. What it holds is a function of them, whatever the number of processes.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import tokenizers as library

from etude.base.errors import DataError
from etude.base.files import fsync_file, make_folder, whole_folder, write_json
from etude.base.says import Say, unheard
from etude.data.files.pair_sources import BadSampleError
from etude.data.files.skipped import Allowance, Policy
from etude.data.files.text_source import BadDocument, TextCorpus
from etude.data.files.text_split import Division, Part, SplitRule, divided, survey
from etude.data.store.encoding import id_type
from etude.data.store.text_encoding import (
    GROUP_BYTES,
    GROUP_PIECES,
    Encoded,
    Group,
    Ids,
    encoded,
    prefix_of,
    processes_for,
    token_bytes,
)
from etude.data.store.text_table import BYTES, FORMAT, MANIFEST, SKIPS, TextTable, fits, shard_name
from etude.data.store.whole_folders import locked
from etude.data.tokens.tokenizers import EOS, Tokenizer

SHARD_TOKENS = 1 << 26
"""Ids of a shard: 128 or 256 MiB."""

DEFAULT_POLICY = Policy()

Report = Callable[[int, int], None]
"""Called with how many bytes of the files are done, and how many there are; and in the end with all of them."""


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
    report: Report = lambda _done, _total: None,
    notice: Say = unheard,
) -> Tables:
    """Tokenise `corpus` into the folder `cache`, or open what an earlier call has made of the same content.

    `rule` divides it into parts; without one it is the part `all`. A call that is killed leaves nothing that a later
    one would take for whole; of two calls at once one waits. Memory does not grow with the corpus. Raises
    BadSampleError at the first document that cannot be used or, where the policy leaves them out, DataError when more
    than its `max_skipped` are; DataError where a part holds nothing; StorageError where the cache cannot be written.
    """
    key = tables_key(corpus, tokenizer, rule, policy)
    place = cache / "texts" / key[:32]
    tables = _opened(place, key)
    if tables is None:
        make_folder(place.parent)
        with locked(place, notice):
            tables = _opened(place, key)
            if tables is None:
                if place.exists():
                    notice(f"The prepared data in {place} is damaged or foreign: it is prepared again.")
                with whole_folder(place, "write the prepared data in", replace=True) as part:
                    count = processes_for(corpus.size) if processes is None else processes
                    _write(part, key, corpus, tokenizer, survey(corpus, rule), policy, count, report)
                tables = _open(place)
    _check(tables, corpus, policy)
    return tables


def tables_key(corpus: TextCorpus, tokenizer: Tokenizer, rule: SplitRule | None, policy: Policy) -> str:
    """Name what the tables hold by all that decides it."""
    parts = [FORMAT, library.__version__, corpus.fingerprint(), tokenizer.fingerprint(), rule, policy.skips]
    return hashlib.sha256(json.dumps([*parts, SHARD_TOKENS]).encode()).hexdigest()


def _write(
    folder: Path,
    key: str,
    corpus: TextCorpus,
    tokenizer: Tokenizer,
    division: Division,
    policy: Policy,
    processes: int,
    report: Report,
) -> None:
    with contextlib.ExitStack() as stack:
        writer = _Writer(folder, division, tokenizer, stack)
        groups = _groups(corpus, division, partial(writer.skip, policy=policy))
        made = encoded(groups, tokenizer, processes)
        stack.callback(made.close)
        for group, answer in made:
            writer.add(group.marks, answer)
            report(corpus.read, corpus.size)
        corpus.check_unchanged()
        writer.close(corpus, policy)
    facts = {"format": FORMAT, "key": key, "skipped": writer.skipped, "documents": writer.documents}
    facts |= {"vocabulary": tokenizer.size, "type": id_type(tokenizer), "shard": SHARD_TOKENS}
    facts |= {"prefix": prefix_of(tokenizer), "parts": {name: part.facts for name, part in writer.parts.items()}}
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    write_json(folder / MANIFEST, facts | {"sizes": sizes})
    report(corpus.size, corpus.size)


class Mark(NamedTuple):
    """What a piece belongs to."""

    part: str
    file: str
    line: int
    bytes: int
    begins: bool
    ends: bool


def _groups(corpus: TextCorpus, division: Division, skip: Callable[[BadDocument], None]) -> Iterator[Group]:
    """Give all pieces that can be used, in order, in groups."""
    texts: list[bytes] = []
    marks: list[Mark] = []
    size = 0
    for mark, text in _pieces(corpus, division, skip):
        texts.append(text)
        marks.append(mark)
        size += mark.bytes
        if size >= GROUP_BYTES or len(texts) == GROUP_PIECES:
            yield _group(texts, marks)
            texts, marks, size = [], [], 0
    if texts:
        yield _group(texts, marks)


def _group(texts: list[bytes], marks: list[Mark]) -> Group:
    return Group(texts, [mark.begins for mark in marks], marks)


def _pieces(
    corpus: TextCorpus, division: Division, skip: Callable[[BadDocument], None]
) -> Iterator[tuple[Mark, bytes]]:
    for document in divided(corpus, division):
        if isinstance(document, BadDocument):
            skip(document)
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

    def __init__(self, folder: Path, division: Division, tokenizer: Tokenizer, stack: contextlib.ExitStack) -> None:
        self.skipped = self.documents = 0
        self._folder = folder
        sizes = token_bytes(tokenizer)
        (folder / BYTES).write_bytes(sizes.tobytes())
        self._skips = stack.enter_context((folder / SKIPS).open("wb"))
        self.parts = {name: _PartWriter(folder, name, tokenizer, sizes, stack) for name in division.names}

    def skip(self, bad: BadDocument, policy: Policy) -> None:
        """Leave a document out, where the policy allows that."""
        if not policy.skips:
            raise BadSampleError(bad.file, bad.line, bad.reason)
        allowed = Allowance.parse(policy.max_skipped)
        self.skipped += 1
        self.documents += 1
        facts = {"file": bad.file, "line": bad.line, "reason": bad.reason}
        self._skips.write(json.dumps(facts, ensure_ascii=False).encode() + b"\n")
        if not allowed.share and self.skipped > allowed.of(self.skipped):
            raise _too_many(self.skipped, None, bad.file, policy)

    def add(self, marks: Sequence[Mark], answer: Encoded) -> None:
        """Write the pieces of a group."""
        begin = 0
        for mark, length in zip(marks, answer.lengths, strict=True):
            part = self.parts[mark.part]
            part.add(answer.ids[begin : begin + length], mark)
            self.documents += mark.ends
            begin += length

    def close(self, corpus: TextCorpus, policy: Policy) -> None:
        """Make every file durable; raise DataError where a part is empty."""
        if not self.documents - self.skipped:
            reason = f" ({self.skipped} documents cannot be used)" if self.skipped else ""
            raise DataError(f"{corpus.name} holds no document that can be used{reason}.")
        for name, part in self.parts.items():
            if not part.facts["documents"]:
                raise DataError(f'{corpus.name} has no document for {name}: set data.split_by = "position".')
            part.close()
        self._skips.close()
        for path in self._folder.iterdir():
            fsync_file(path)
        if self.skipped > Allowance.parse(policy.max_skipped).of(self.documents):
            raise _too_many(self.skipped, self.documents, corpus.name, policy)


class _PartWriter:
    """The files of one part."""

    def __init__(self, folder: Path, name: str, tokenizer: Tokenizer, sizes: Ids, stack: contextlib.ExitStack) -> None:
        self.facts: dict[str, Any] = {"documents": 0, "tokens": 0, "bytes": 0, "counted": 0}
        self._folder, self._name, self._sizes, self._stack = folder, name, sizes, stack
        self._end = np.array([EOS], dtype=id_type(tokenizer))
        self._prefix = prefix_of(tokenizer)
        self._bytes_of_document = 0
        self._ids: IO[bytes] | None = None
        self._starts = stack.enter_context((folder / f"{name}.starts").open("wb"))
        self._bytes = stack.enter_context((folder / f"{name}.bytes").open("wb"))
        self._put(self._end)

    def add(self, ids: Ids, mark: Mark) -> None:
        """Write a piece."""
        if mark.begins:
            self._starts.write(np.int64(self.facts["tokens"]).tobytes())
            self._bytes_of_document = 0
        self._put(ids)
        counted = int(self._sizes[ids].sum()) if len(ids) else 0
        self.facts["counted"] += counted - (self._prefix if mark.begins else 0)
        self._bytes_of_document += mark.bytes
        if mark.ends:
            self._put(self._end)
            self.facts["documents"] += 1
            self.facts["bytes"] += self._bytes_of_document
            self._bytes.write(np.int64(self._bytes_of_document).tobytes())

    def close(self) -> None:
        """Write what comes last."""
        self._starts.write(np.int64(self.facts["tokens"]).tobytes())
        for file in (self._starts, self._bytes, self._ids):
            if file is not None:
                file.close()

    def _put(self, ids: Ids) -> None:
        while len(ids):
            shard, place = divmod(self.facts["tokens"], SHARD_TOKENS)
            if place == 0:
                if self._ids is not None:
                    self._ids.close()
                self._ids = self._stack.enter_context((self._folder / shard_name(self._name, shard)).open("wb"))
            here = ids[: SHARD_TOKENS - place]
            if self._ids is not None:
                self._ids.write(here.tobytes())
            self.facts["tokens"] += len(here)
            ids = ids[len(here) :]


def _opened(place: Path, key: str) -> Tables | None:
    """Open tables; None where there are none, or they are not whole."""
    try:
        manifest = json.loads((place / MANIFEST).read_text())
        return _open(place) if fits(place, manifest, key) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _open(place: Path) -> Tables:
    manifest = json.loads((place / MANIFEST).read_text())
    return Tables({name: TextTable(place, name) for name in manifest["parts"]}, place)


def _check(tables: Tables, corpus: TextCorpus, policy: Policy) -> None:
    """Refuse more skips than are allowed now, which may be fewer than when the tables were made."""
    manifest = json.loads((tables.folder / MANIFEST).read_text())
    skipped, documents = manifest["skipped"], manifest["documents"]
    if skipped > Allowance.parse(policy.max_skipped).of(documents):
        raise _too_many(skipped, documents, corpus.name, policy)


def _too_many(skipped: int, documents: int | None, name: str, policy: Policy) -> DataError:
    of = "" if documents is None else f" of {documents}"
    return DataError(
        f"{skipped}{of} documents in {name} cannot be used, but data.max_skipped allows {policy.max_skipped}; "
        'data.on_bad_sample = "error" shows the first.'
    )
