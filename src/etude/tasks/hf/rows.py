"""Samples tokenised once for a `transformers` model, into files that are mapped into memory.

A folder of the cache holds one split as one tokenizer sees it. It is named by the content of both, written beside its
place and renamed when it is whole.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from etude.base.errors import ConfigError, DataError
from etude.base.files import fsync_file, make_folder, whole_folder, write_json
from etude.base.says import Say, unheard
from etude.data.files.lines import Flaw
from etude.data.files.pair_sources import BadSampleError
from etude.data.files.skipped import Allowance, Policy
from etude.data.store.whole_folders import locked
from etude.tasks.hf.chat import Encoder, Row
from etude.tasks.hf.samples import Asked, Sample, SampleSource, Text

FORMAT = 1
MANIFEST, SKIPS = "manifest.json", "skips.jsonl"
FILES = {
    "ids": np.int32,
    "counted": np.bool_,
    "starts": np.int64,
    "sources": np.int32,
    "source_starts": np.int64,
    "bytes": np.float64,
}
"""The arrays of a table, and the type of each."""

Ints = NDArray[np.int64]


class Skip(NamedTuple):
    """A sample that was left out."""

    sample: int
    side: str
    reason: str


@final
class RowTable:
    """Rows by number; nothing of them is held in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        manifest = json.loads((folder / MANIFEST).read_text())
        self.fingerprint: str = manifest["key"]
        self.targets: int = manifest["targets"]
        """Ids of all rows whose prediction a loss counts."""
        self._arrays = {name: _map(folder / f"{name}.bin", kind) for name, kind in FILES.items()}

    def __len__(self) -> int:
        return len(self._arrays["bytes"])

    def __reduce__(self) -> tuple[type["RowTable"], tuple[Path]]:
        """Let another process map the same files instead of getting a copy."""
        return RowTable, (self.folder,)

    def lengths(self) -> tuple[Ints, Ints]:
        """Give how many source ids and how many ids each row has: [rows] each."""
        return np.diff(self._arrays["source_starts"]), np.diff(self._arrays["starts"])

    def row(self, index: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], float]:
        """Give ids, which of them count, source ids, and bytes of a row."""
        begin, end = self._arrays["starts"][index : index + 2]
        first, last = self._arrays["source_starts"][index : index + 2]
        a = self._arrays
        return a["ids"][begin:end], a["counted"][begin:end], a["sources"][first:last], float(a["bytes"][index])

    @property
    def skipped(self) -> int:
        """How many samples were left out."""
        return sum(1 for _ in self.skips())

    def skips(self) -> Iterator[Skip]:
        """Give the samples that were left out, in the order of the source."""
        with (self.folder / SKIPS).open(encoding="utf-8") as file:
            for line in file:
                yield Skip(**json.loads(line))


def prepare_rows(
    source: SampleSource,
    encoder: Encoder,
    cache: Path,
    policy: Policy,
    *,
    length: int,
    notice: Say = unheard,
) -> RowTable:
    """Tokenise `source` into the folder `cache`, or open what an earlier call has made of the same content.

    Texts longer than `length` are cut; of prompts and conversations, one above `policy.max_length` tokens or the
    model's positions is a bad sample. A call that is killed leaves nothing that a later one would take for whole.
    Raises BadSampleError at the first sample that cannot be used or, where the policy leaves them out, DataError once
    more than its `max_skipped` are.
    """
    key = _key(source, encoder, policy, length)
    place = cache / "hf" / key[:32]
    make_folder(place.parent)
    with locked(place, notice):
        table = _opened(place, key)
        if table is None:
            _write(source, encoder, place, key, policy, length)
            table = RowTable(place)
    notice(f"{len(source):,} samples are {len(table):,} rows with {table.targets:,} targets.")
    return table


def _write(source: SampleSource, encoder: Encoder, place: Path, key: str, policy: Policy, length: int) -> None:
    with whole_folder(place, "write the prepared data in", replace=True) as part, contextlib.ExitStack() as stack:
        writer = _Writer(part, stack)
        for number, sample in enumerate(source.samples()):
            for row in [sample] if isinstance(sample, Flaw) else _rows(sample, encoder, policy.max_length, length):
                if isinstance(row, Flaw):
                    if not policy.skips:
                        raise BadSampleError(*source.place(number, row.side), row.reason)
                    writer.skip(number, row)
                    _check(writer.skipped, policy, source)
                else:
                    writer.add(row)
        if not writer.rows:
            raise DataError(f"{source.place(0)[0]} holds no sample that can be used.")
        writer.close()
        sizes = {path.name: path.stat().st_size for path in sorted(part.iterdir())}
        write_json(part / MANIFEST, {"format": FORMAT, "key": key, "targets": writer.targets, "sizes": sizes})


def _rows(sample: Sample, encoder: Encoder, limit: int | None, length: int) -> Iterator[Row | Flaw]:
    if isinstance(sample, Text):
        if encoder.seq2seq:
            raise ConfigError("A sequence-to-sequence model needs samples of prompt and answer, but these are texts.")
        yield from encoder.text(sample.text, length)
        return
    row = encoder.answer(*sample) if isinstance(sample, Asked) else encoder.chat(sample.messages)
    longest = 0 if isinstance(row, Flaw) else max(len(row.ids), len(row.source))
    if limit is not None and longest > limit:
        row = Flaw(f"the sample has {longest} tokens, more than data.max_length = {limit}")
    yield row


def _check(skipped: int, policy: Policy, source: SampleSource) -> None:
    allowed = Allowance.parse(policy.max_skipped)
    if skipped > allowed.of(len(source)):
        raise DataError(
            f"{skipped} of {len(source)} samples in {source.place(0)[0]} cannot be used, but data.max_skipped allows "
            f'{allowed.of(len(source))} ({allowed}); data.on_bad_sample = "error" shows the first.'
        )


class _Writer:
    """The files of a table that is being written; memory does not grow with them."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.rows = self.skipped = self.targets = 0
        self._folder = folder
        names = [*(f"{name}.bin" for name in FILES), SKIPS]
        self._files: dict[str, IO[bytes]] = {name: stack.enter_context((folder / name).open("wb")) for name in names}
        self._ends = {"starts": 0, "source_starts": 0}
        for name in self._ends:
            self._put(name, [0])

    def add(self, row: Row) -> None:
        """Write one row."""
        self._put("ids", row.ids)
        self._put("counted", row.counted)
        self._put("sources", row.source)
        self._put("bytes", [row.bytes])
        for name, ids in (("starts", row.ids), ("source_starts", row.source)):
            self._ends[name] += len(ids)
            self._put(name, [self._ends[name]])
        self.rows += 1
        self.targets += sum(row.counted)

    def skip(self, sample: int, flaw: Flaw) -> None:
        """Write down a sample that is left out."""
        line = json.dumps(Skip(sample, flaw.side, flaw.reason)._asdict(), ensure_ascii=False)
        self._files[SKIPS].write(line.encode() + b"\n")
        self.skipped += 1

    def close(self) -> None:
        """Make every file durable."""
        for name, file in self._files.items():
            file.close()
            fsync_file(self._folder / name)

    def _put(self, name: str, values: Sequence[Any]) -> None:
        self._files[f"{name}.bin"].write(np.asarray(values, dtype=FILES[name]).tobytes())


def _opened(place: Path, key: str) -> RowTable | None:
    """Open a table; None where there is none, or it is not whole."""
    try:
        manifest = json.loads((place / MANIFEST).read_text())
        whole = manifest["format"] == FORMAT and manifest["key"] == key
        whole = whole and all((place / name).stat().st_size == size for name, size in manifest["sizes"].items())
        return RowTable(place) if whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _key(source: SampleSource, encoder: Encoder, policy: Policy, length: int) -> str:
    """Name what a table would hold by all that decides it."""
    tokenizer = encoder.tokenizer
    import transformers

    parts = [FORMAT, transformers.__version__, source.fingerprint(), policy.max_length, policy.skips, length]
    parts += [encoder.seq2seq, encoder.longest, encoder.templated, encoder.system]
    parts += [tokenizer.backend_tokenizer.to_str(), tokenizer.chat_template, str(tokenizer.special_tokens_map)]
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def _map(path: Path, kind: Any) -> NDArray[Any]:
    """Map a file; one without content, which cannot be mapped, is an empty array."""
    return np.memmap(path, dtype=kind, mode="r") if path.stat().st_size else np.zeros(0, dtype=kind)
