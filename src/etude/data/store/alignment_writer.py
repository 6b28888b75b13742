"""Writes alignments in shards: one that is interrupted goes on where it was, shard by shard."""

import hashlib
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from etude.base.errors import DataError
from etude.base.files import json_bytes, make_folder, remove, storage, write_bytes
from etude.base.hashes import Facts, first_damaged, sealed_or_empty, write_sealed
from etude.base.says import Say, unheard
from etude.data.store.alignments import FORMAT, AlignmentFacts, parquet, shards_of
from etude.data.store.folders import MANIFEST, locked

GROUP_ROWS = 64
"""Sequences that are read at once when one of them is."""
PATTERN = "shard-*.parquet"


class Aligned(NamedTuple):
    """The alignment of one sequence."""

    sequence: str
    """Its id."""
    classes: Sequence[int]
    """The class of each frame; none where there is no path."""
    score: float
    """The log-probability of the path, -inf where there is none; 0 where no model was asked."""


Align = Callable[[Sequence[str]], Iterable[Aligned]]
"""From the ids of a shard's sequences to their alignments, in order."""


def write_alignments(
    folder: Path, facts: AlignmentFacts, shards: Sequence[Sequence[str]], align: Align, *, say: Say = unheard
) -> None:
    """Have every shard of sequences aligned and written to `folder`, except those that are there already.

    A shard is kept where it is bit for bit as it was written, of the same facts and the same sequences; whatever else
    is there of alignments is replaced. A call that is killed leaves the shards that it has finished, and the next one
    goes on. Of two calls at once one waits. Raises DataError where a sequence comes twice, or `align` gives others than
    it was asked for or what is no alignment.
    """
    parquet()  # before anything is aligned
    _check_distinct(shards)
    make_folder(folder)
    with locked(folder, say):
        written = _kept(folder, facts, shards)
        if written:
            say(f"{len(written)} of {len(shards)} shards of alignments are there already.")
        _remove_others(folder, written)
        _write_manifest(folder, facts, len(shards), written)
        for number, sequences in enumerate(shards):
            if _name(number) not in written:
                written[_name(number)] = _write_shard(folder / _name(number), sequences, align)
                _write_manifest(folder, facts, len(shards), written)


def _name(number: int) -> str:
    return f"shard-{number:05d}.parquet"


def _check_distinct(shards: Sequence[Sequence[str]]) -> None:
    seen: set[str] = set()
    for sequence in (one for shard in shards for one in shard):
        if sequence in seen:
            raise DataError(
                f'Two sequences have the id "{sequence}": alignments are found by it, so it must be one\'s.'
            )
        seen.add(sequence)


def _key(sequences: Sequence[str]) -> str:
    """A hash of which sequences a shard has, in order."""
    return hashlib.sha256(json_bytes(list(sequences))).hexdigest()


def _kept(folder: Path, facts: AlignmentFacts, shards: Sequence[Sequence[str]]) -> dict[str, Any]:
    """What the manifest says of the shards that are there, are whole and need not be written again."""
    manifest = sealed_or_empty(folder / MANIFEST)
    if (manifest.get("format"), manifest.get("facts")) != (FORMAT, asdict(facts)):
        return {}
    whole = {name for name, one in shards_of(manifest).items() if first_damaged(folder, {name: one}) is None}
    keys = {_name(number): _key(sequences) for number, sequences in enumerate(shards)}
    entries: Mapping[str, Any] = manifest["shards"]
    return {name: entries[name] for name in sorted(whole) if entries[name]["key"] == keys.get(name)}


def _remove_others(folder: Path, written: Mapping[str, object]) -> None:
    with storage("clear", folder):
        for path in sorted(folder.glob(PATTERN)):
            if path.name not in written:
                remove(path)


def _write_manifest(folder: Path, facts: AlignmentFacts, planned: int, written: Mapping[str, Any]) -> None:
    sequences = sum(one["sequences"] for one in written.values())
    counts = {"planned": planned, "sequences": sequences, "complete": len(written) == planned}
    head = {"format": FORMAT, "facts": asdict(facts), **counts}
    write_sealed(folder / MANIFEST, {**head, "shards": dict(sorted(written.items()))})


def _write_shard(path: Path, sequences: Sequence[str], align: Align) -> dict[str, int | str]:
    """Write one shard; what the manifest says of it."""
    rows = list(align(sequences))
    given = [row.sequence for row in rows]
    if given != list(sequences):
        raise DataError(
            f"{path.name} must have the alignments of {list(sequences)[:3]}..., but those of {given[:3]}..."
        )
    content = _bytes_of(rows)
    write_bytes(path, content)
    facts = Facts(len(content), hashlib.sha256(content).hexdigest())
    return {**facts._asdict(), "sequences": len(rows), "key": _key(sequences)}


def _bytes_of(rows: Sequence[Aligned]) -> bytes:
    """Rows as a file of Parquet."""
    library = parquet()
    import pyarrow as pa

    columns = {
        "id": pa.array([row.sequence for row in rows], pa.string()),
        "classes": pa.array([_classes(row) for row in rows], pa.list_(pa.int32())),
        "score": pa.array([float(row.score) for row in rows], pa.float64()),
    }
    file = io.BytesIO()
    library.write_table(pa.table(columns), file, row_group_size=GROUP_ROWS)
    return file.getvalue()


def _classes(row: Aligned) -> np.ndarray[Any, np.dtype[np.int32]]:
    """The classes of a row. Raises DataError where they, or the score, are none."""
    classes = np.asarray(row.classes, dtype=np.int32).reshape(-1)
    if math.isnan(row.score) or (classes < 0).any():
        raise DataError(f'The alignment of "{row.sequence}" has a frame without a class, or a score that is no number.')
    return classes
