"""A prepared corpus of text: one stream of ids in memory-mapped shards, and where its documents lie in it.

The stream is an end-of-document id, then each document followed by one: `EOS d1 EOS d2 EOS`. So every token of every
document, its end included, is predicted from what stands before it, and the first one of a document from `EOS`.
Since both ends of the stream are `EOS` it closes to a ring of `targets` places, in which place 0 follows the last.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt

from etude.base.errors import StorageError
from etude.data.store.columns import mapped
from etude.data.store.folders import manifest_of
from etude.data.store.skips import Skip, skips_of
from etude.data.tokens.tokenizers import EOS

FORMAT = 3
BYTES = "token_bytes.bin"
DOCUMENT_START = EOS
"""What a model reads before the first token of a document."""

Ints = npt.NDArray[np.int64]


@final
class TextTable:
    """One part of a prepared corpus; nothing of it is held in memory."""

    def __init__(self, folder: Path, part: str) -> None:
        self.folder, self.part = folder, part
        manifest = manifest_of(folder)
        facts = manifest["parts"][part]
        self.fingerprint: str = f"{manifest['key']}-{part}"
        self.vocabulary: int = manifest["vocabulary"]
        self.documents: int = facts["documents"]
        self.targets: int = facts["tokens"] - 1
        """Tokens of all documents, the end of each counted: what there is to predict."""
        self.bytes: int = facts["bytes"]
        """Bytes of UTF-8 of all documents."""
        self.skipped: int = manifest["skipped"]
        self.prefix: int = manifest["prefix"]
        """Bytes that the ids of a document stand for and its text does not hold."""
        self.factor: float = self.bytes / facts["counted"] if facts["counted"] else 1.0
        """What the sum of `token_bytes` is multiplied by to give `bytes`; 1 where every byte comes back."""
        self.token_bytes: npt.NDArray[np.float64] = np.fromfile(folder / BYTES)
        self._shard: int = manifest["shard"]
        kind, tokens = manifest["type"], facts["tokens"]
        self._shards = [mapped(folder / shard_name(part, n), kind) for n in range(-(-tokens // self._shard))]
        self.starts: Ints = mapped(folder / f"{part}.starts", "int64")
        """Where each document's first token stands in the stream, and after them its length + 1: [documents + 1]."""

    def __len__(self) -> int:
        return self.documents

    def __reduce__(self) -> tuple[type["TextTable"], tuple[Path, str]]:
        """Let another process map the same files instead of getting a copy."""
        return TextTable, (self.folder, self.part)

    def read(self, begin: int, length: int) -> npt.NDArray[Any]:
        """Give `length` ids from place `begin` of the ring on: [length]; what passes the end goes on at the begin."""
        parts: list[npt.NDArray[Any]] = []
        begin %= self.targets
        while length > 0:
            stop = min(begin + length, self.targets)
            parts.extend(self._read(begin, stop))
            length -= stop - begin
            begin = 0
        return parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    def _read(self, begin: int, end: int) -> Iterator[npt.NDArray[Any]]:
        while begin < end:
            shard, place = divmod(begin, self._shard)
            part = self._shards[shard][place : place + end - begin]
            if not len(part):
                raise StorageError(f"{self.folder / shard_name(self.part, shard)} is damaged: it is too short.")
            yield part
            begin += len(part)

    def ids(self, document: int) -> npt.NDArray[Any]:
        """Give the ids of a document, without its end."""
        begin, end = int(self.starts[document]), int(self.starts[document + 1])
        return self.read(begin, end - begin - 1)

    def skips(self) -> Iterator[Skip]:
        """Give the documents of the whole corpus that were left out, in their order."""
        return skips_of(self.folder)

    def place(self, index: int, side: str) -> tuple[str, int]:
        """Give file and line of a document that was left out."""
        del side
        found = next(skip for skip in self.skips() if skip.sample == index)
        return found.file, found.line


def shard_name(part: str, number: int) -> str:
    """Name a file of ids."""
    return f"{part}-{number:05}.ids"
