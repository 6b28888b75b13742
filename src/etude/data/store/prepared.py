"""Pairs tokenised once, into files that are mapped into memory.

A folder of the cache holds one corpus as one pair of tokenizers sees it. It is named by the content of both, written
beside its place and renamed when it is whole, so that a reader finds all of it or nothing.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple, final

import numpy as np
import numpy.typing as npt
import tokenizers as library

from etude.base.errors import DataError, RefusedError
from etude.base.files import fsync_file, make_folder, whole_folder, write_json
from etude.base.says import Say, unheard
from etude.data.files.parallel import SIDES, BadSampleError, PairSource
from etude.data.files.skipped import Allowance, Policy
from etude.data.store.encoding import Shard, encoded, id_type
from etude.data.store.whole_folders import locked
from etude.data.tokens.tokenizers import Tokenizer

FORMAT = 1
DEFAULT_POLICY = Policy()
MANIFEST = "manifest.json"
SKIPS = "skips.jsonl"

Report = Callable[[int, int], None]
"""Called with how many samples are done, and how many there are."""


class Skip(NamedTuple):
    """A sample that was left out."""

    sample: int
    side: str
    reason: str


@final
class TokenTable:
    """The ids of prepared pairs by number, without special tokens; nothing of it is held in memory.

    Rows are the samples that can be used: `origin` says which of the source each is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        manifest = json.loads((folder / MANIFEST).read_text())
        self.fingerprint: str = manifest["key"]
        self.sides: tuple[str, ...] = SIDES
        self.samples: int = manifest["samples"]
        self._rows: int = manifest["rows"]
        self._ids = {side: _map(folder / f"{side}.ids", manifest["types"][side]) for side in SIDES}
        self._starts = {side: _map(folder / f"{side}.starts", "int64") for side in SIDES}
        self._lengths = {side: _map(folder / f"{side}.lengths", "int32") for side in SIDES}
        self._skipped = np.array([skip.sample for skip in self.skips()], dtype=np.int64)

    def __len__(self) -> int:
        return self._rows

    def __reduce__(self) -> tuple[type["TokenTable"], tuple[Path]]:
        """Let another process map the same files instead of getting a copy."""
        return TokenTable, (self.folder,)

    @property
    def skipped(self) -> int:
        """How many samples of the source were left out."""
        return len(self._skipped)

    def skips(self) -> Iterator[Skip]:
        """Give the samples that were left out, in the order of the source."""
        with (self.folder / SKIPS).open(encoding="utf-8") as file:
            for line in file:
                yield Skip(**json.loads(line))

    def lengths(self, side: str) -> npt.NDArray[np.int32]:
        """Give how many tokens each row has on `side`, special ones not counted: [rows], mapped."""
        return self._lengths[side]

    def tokens(self, side: str) -> int:
        """Give how many tokens all rows have on `side`."""
        return int(self._starts[side][-1])

    def gather(self, side: str, indices: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Give the ids of the rows `indices` one after the other [sum of lengths], and their lengths [indices]."""
        lengths = self._lengths[side][indices].astype(np.int64)
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        places = np.arange(total) + np.repeat(self._starts[side][indices] - (ends - lengths), lengths)
        return self._ids[side][places].astype(np.int64), lengths

    def origin(self, row: int) -> int:
        """Give which sample of the source a row is."""
        # Skip j (from 0) has skipped[j] - j rows before it: a row comes after every skip that has no more before it.
        before = self._skipped - np.arange(len(self._skipped))
        return row + int(np.searchsorted(before, row, side="right"))


def prepare_pairs(
    source: PairSource,
    tokenizers: Mapping[str, Tokenizer],
    cache: Path,
    policy: Policy = DEFAULT_POLICY,
    *,
    processes: int | None = None,
    report: Report = lambda _done, _total: None,
    notice: Say = unheard,
) -> TokenTable:
    """Tokenise `source` into the folder `cache`, or open what an earlier call has made of the same content.

    `tokenizers` has one for each of `SIDES`. `processes` are as many as there are cores, by default, and only for a
    corpus large enough to need them. A call that is killed leaves nothing that a later one would take for whole; of
    two calls at once one waits. Memory does not grow with the corpus. Raises BadSampleError at the first sample
    that cannot be used (a text longer than `policy.max_length` tokens is one) or, where the policy leaves them out,
    DataError once more than its `max_skipped` are; StorageError where the cache cannot be written.
    """
    key = _key(source, tokenizers, policy)
    place = cache / "tables" / key[:32]
    table = _opened(place, key)
    if table is None:
        make_folder(place.parent)
        with locked(place, notice):
            table = _opened(place, key)
            if table is None:
                if place.exists():
                    notice(f"The prepared data in {place} is damaged or foreign: it is prepared again.")
                shards = encoded(source, tokenizers, policy, processes=processes)
                _write(shards, place, key, source, tokenizers, policy, report)
                table = TokenTable(place)
    _check(table.skipped, policy, source)
    return table


def _write(
    shards: Generator[Shard, None, None],
    place: Path,
    key: str,
    source: PairSource,
    tokenizers: Mapping[str, Tokenizer],
    policy: Policy,
    report: Report,
) -> None:
    """Write a table beside its place and move it there whole. The caller holds its lock."""
    with whole_folder(place, "write the prepared data in", replace=True) as part, contextlib.ExitStack() as stack:
        writer = _Writer(part, stack)
        with contextlib.closing(shards):
            for shard in shards:
                _keep(writer, shard, source, policy)
                report(writer.samples, len(source))
        if not writer.rows:
            raise DataError(f"{source.place(0)[0]} holds no sample that can be used.")
        writer.close()
        sizes = {path.name: path.stat().st_size for path in sorted(part.iterdir())}
        types = {side: id_type(tokenizers[side]) for side in SIDES}
        facts = {"format": FORMAT, "key": key, "rows": writer.rows, "samples": writer.samples}
        write_json(part / MANIFEST, facts | {"types": types, "sizes": sizes})


def _keep(writer: "_Writer", shard: Shard, source: PairSource, policy: Policy) -> None:
    if shard.flaws and not policy.skips:
        index, flaw = shard.flaws[0]
        raise BadSampleError(*source.place(index, flaw.side), flaw.reason)
    writer.add(shard)
    _check(writer.skipped, policy, source)


def _check(skipped: int, policy: Policy, source: PairSource) -> None:
    allowed = Allowance.parse(policy.max_skipped)
    most = allowed.of(len(source))
    if skipped > most:
        raise DataError(
            f"{skipped} of {len(source)} samples in {source.place(0)[0]} cannot be used, but data.max_skipped allows "
            f'{most} ({allowed}); data.on_bad_sample = "error" shows the first.'
        )


class _Writer:
    """The files of a table that is being written; memory does not grow with them."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.rows = self.samples = self.skipped = 0
        self._names = [f"{side}.{part}" for side in SIDES for part in ("ids", "lengths", "starts")]
        self._files: dict[str, IO[bytes]] = {
            name: stack.enter_context((folder / name).open("wb")) for name in [*self._names, SKIPS]
        }
        self._folder = folder
        self._ends = dict.fromkeys(SIDES, 0)
        for side in SIDES:
            self._files[f"{side}.starts"].write(np.zeros(1, dtype=np.int64).tobytes())

    def add(self, shard: Shard) -> None:
        for side, (ids, lengths) in zip(SIDES, shard.sides, strict=True):
            ends = np.cumsum(lengths, dtype=np.int64) + self._ends[side]
            self._ends[side] += len(ids)
            self._files[f"{side}.ids"].write(ids.tobytes())
            self._files[f"{side}.lengths"].write(lengths.tobytes())
            self._files[f"{side}.starts"].write(ends.tobytes())
        for index, flaw in shard.flaws:
            line = json.dumps(Skip(index, flaw.side, flaw.reason)._asdict(), ensure_ascii=False)
            self._files[SKIPS].write(line.encode() + b"\n")
        self.rows += len(shard.sides[0][1])
        self.skipped += len(shard.flaws)
        self.samples = self.rows + self.skipped

    def close(self) -> None:
        """Make every file durable."""
        for name, file in self._files.items():
            file.close()
            fsync_file(self._folder / name)


def _opened(place: Path, key: str) -> TokenTable | None:
    """Open a table; None where there is none, or it is not whole."""
    try:
        manifest = json.loads((place / MANIFEST).read_text())
        whole = manifest["format"] == FORMAT and manifest["key"] == key and _fits(place, manifest)
        return TokenTable(place) if whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _fits(place: Path, manifest: Mapping[str, Any]) -> bool:
    sizes, rows = manifest["sizes"], manifest["rows"]
    if any((place / name).stat().st_size != size for name, size in sizes.items()):
        return False
    wide = all(sizes[f"{s}.starts"] == 8 * (rows + 1) and sizes[f"{s}.lengths"] == 4 * rows for s in SIDES)
    return wide and SKIPS in sizes and all(f"{side}.ids" in sizes for side in SIDES)


def _key(source: PairSource, tokenizers: Mapping[str, Tokenizer], policy: Policy) -> str:
    """Name what a table would hold by all that decides it."""
    if set(tokenizers) != set(SIDES):
        raise RefusedError(f"Pairs are prepared with a tokenizer for each of {SIDES}, but there are {set(tokenizers)}.")
    parts = [FORMAT, library.__version__, source.fingerprint(), policy.max_length, policy.skips]
    return hashlib.sha256(json.dumps([*parts, *(tokenizers[s].fingerprint() for s in SIDES)]).encode()).hexdigest()


def _map(path: Path, kind: str) -> npt.NDArray[Any]:
    """Map a file; one without content, which cannot be mapped, is an empty array."""
    return np.memmap(path, dtype=kind, mode="r") if path.stat().st_size else np.zeros(0, dtype=kind)
