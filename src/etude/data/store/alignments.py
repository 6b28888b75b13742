"""Stored alignments: the class of each frame of every sequence, in shards of Parquet with a manifest.

The manifest says what the alignments are of, and holds the hashes of the shards and its own. Each row is a sequence:
its id, the classes of its frames, and the score of the path, which is -inf where there is none. The files are written
by `alignment_writer`; here they are checked, joined with sequences by id, and read by row.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from etude.base.errors import ConfigError, DataError
from etude.base.hashes import Facts, first_damaged
from etude.base.says import Say, unheard
from etude.data.store.folders import manifest_of

FORMAT = "alignments 1"
TOPOLOGIES = ("ctc", "hmm", "transducer")
NOWHERE = -1
"""The class of a frame beyond a sequence's end, and of every frame of one without an alignment."""
KEPT_GROUPS = 32
"""Groups of rows that are held in memory."""
NAMED = 5
"""How many sequences a message names."""

Classes = NDArray[np.int32]


@final
@dataclass(frozen=True)
class AlignmentFacts:
    """What alignments are of: who uses them must mean the same."""

    topology: str
    """One of `TOPOLOGIES`: "ctc", "hmm" (frame labels) or "transducer" (a blank or one label in each frame)."""
    blank: int | None
    """The class of the blank, or of silence; None where there is none."""
    labels: str
    """The hash of the set of labels."""
    frame_seconds: float
    """From one frame of the features to the next."""
    subsampling: int
    """How many frames of features become one of the alignment."""
    model: str = ""
    """The hash of the model that aligned; empty where none did, and where any will do."""
    data: str = ""
    """The hash of what was aligned; empty where it is not known, and where any will do."""

    def __post_init__(self) -> None:
        if self.topology not in TOPOLOGIES:
            raise ConfigError(f'The topology of an alignment must be one of {TOPOLOGIES}, but is "{self.topology}".')

    def differences(self, written: Mapping[str, object]) -> list[str]:
        """Where what a manifest says is not what is asked for here."""
        asked = {name: value for name, value in asdict(self).items() if value or name not in {"model", "data"}}
        return [
            f"{name} is {written.get(name)!r}, but must be {value!r}"
            for name, value in asked.items()
            if name not in written or written[name] != value
        ]


class _Group(NamedTuple):
    """A group of rows of a shard, and the number of its first row among all."""

    first: int
    path: Path
    number: int


@final
class Alignments:
    """Alignments by the ids of their sequences; rows are read when they are asked for, some groups at a time."""

    def __init__(self, groups: Sequence[_Group], rows: Mapping[str, int], scores: NDArray[np.float64]) -> None:
        self.missing: Mapping[str, str] = {}
        """Why a sequence that was asked for has no alignment, by its id."""
        self._groups, self._rows, self._scores = groups, rows, scores
        self._firsts = [group.first for group in groups]
        self._kept: OrderedDict[int, list[Classes]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, sequence: str) -> bool:
        return sequence in self._rows and sequence not in self.missing

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __getitem__(self, sequence: str) -> Classes:
        """The classes of a sequence's frames [T], none where it has no path. Raises DataError where it is missing."""
        row = self._row(sequence)
        place = bisect_right(self._firsts, row) - 1
        return self._group(place)[row - self._firsts[place]]

    def score(self, sequence: str) -> float:
        """The score of a sequence's path. Raises DataError where it is missing."""
        return float(self._scores[self._row(sequence)])

    def padded(self, sequences: Sequence[str], frames: int) -> NDArray[np.int64]:
        """The classes of several [B, frames]: NOWHERE beyond each one's end, and in all frames of missing ones."""
        found = np.full((len(sequences), frames), NOWHERE, dtype=np.int64)
        for row, sequence in zip(found, sequences, strict=True):
            if sequence not in self.missing:
                classes = self[sequence]
                _check_length(sequence, len(classes), frames)
                row[: len(classes)] = classes
        return found

    def join(self, frames: Mapping[str, int], max_missing: int, say: Say) -> None:
        """Find which of these sequences, of so many frames each, have no alignment of that length.

        Raises DataError where they are more than `max_missing`, and else tells of them.
        """
        lengths = dict(self._lengths(frames))
        self.missing = {name: reason for name, wanted in frames.items() if (reason := _flaw(wanted, lengths.get(name)))}
        if self.missing:
            listed = "; ".join(f'"{name}" {reason}' for name, reason in islice(self.missing.items(), NAMED))
            more = ", ..." if len(self.missing) > NAMED else ""
            told = f"{len(self.missing):,} of {len(frames):,} sequences have no alignment that fits: {listed}{more}"
            if len(self.missing) > max_missing:
                raise DataError(f"{told}. max_missing allows {max_missing}: align again, or allow more.")
            say(f"{told}; they are left out.")

    def _lengths(self, wanted: Mapping[str, int]) -> Iterator[tuple[str, int]]:
        """How many frames each of these that is here has, read group by group; NOWHERE where it has no path."""
        for name, row in sorted(((name, row) for name, row in self._rows.items() if name in wanted), key=_second):
            yield name, len(self[name]) if self._scores[row] > -np.inf else NOWHERE

    def _row(self, sequence: str) -> int:
        reason = self.missing.get(sequence)
        if reason is None and sequence in self._rows:
            return self._rows[sequence]
        raise DataError(f'There is no alignment of the sequence "{sequence}": it {reason or "is missing"}.')

    def _group(self, place: int) -> list[Classes]:
        if place not in self._kept:
            self._kept[place] = _read_classes(self._groups[place])
            if len(self._kept) > KEPT_GROUPS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(place)
        return self._kept[place]


def open_alignments(
    folder: Path,
    expected: AlignmentFacts,
    frames: Mapping[str, int] | None = None,
    *,
    max_missing: int = 0,
    say: Say = unheard,
) -> Alignments:
    """Open the alignments in `folder`, which must be whole and what is `expected`.

    `frames` gives the sequences that they are wanted for, by id, with the length of each after subsampling; up to
    `max_missing` of them may have no alignment of that length, and are told of. Raises StorageError where the manifest
    is damaged, and DataError where the alignments are not complete, of something else, damaged, or miss sequences.
    """
    manifest = _checked(folder, expected)
    found = Alignments(*_index(folder, manifest))
    if len(found) != manifest["sequences"]:
        raise DataError(f"{folder} is damaged: it holds {len(found):,} sequences, but says {manifest['sequences']:,}.")
    if frames is not None:
        found.join(frames, max_missing, say)
    return found


def shards_of(manifest: Mapping[str, Any]) -> dict[str, Facts]:
    """What each shard that a manifest names must be."""
    return {str(name): Facts(one["size"], one["sha256"]) for name, one in manifest["shards"].items()}


def parquet() -> Any:
    """The library that reads and writes Parquet. Raises ConfigError where it is not installed."""
    try:
        from pyarrow import parquet as library
    except ImportError as error:
        raise ConfigError(
            "Alignments are stored by pyarrow, which is not installed: run pip install 'etude[outputs]'."
        ) from error
    return library


def _checked(folder: Path, expected: AlignmentFacts) -> dict[str, Any]:
    """The manifest of alignments that are complete, as expected and undamaged."""
    manifest = manifest_of(folder)
    if manifest.get("format") != FORMAT:
        raise DataError(f"{folder} holds no alignments that this version of Etude reads: align again.")
    different = expected.differences(manifest["facts"])
    if different:
        raise DataError(f"The alignments in {folder} are not what is needed: {'; '.join(different)}.")
    if not manifest["complete"]:
        done = f"{len(manifest['shards'])} of {manifest['planned']} shards"
        raise DataError(f"The alignments in {folder} are not complete: {done} are there. Align again, which goes on.")
    damaged = first_damaged(folder, shards_of(manifest))
    if damaged is not None:
        raise DataError(f"{damaged} is damaged or missing: align again, which makes that shard anew.")
    return manifest


def _index(folder: Path, manifest: Mapping[str, Any]) -> tuple[list[_Group], dict[str, int], NDArray[np.float64]]:
    """The groups of all shards, the row of each sequence, and the scores."""
    groups, names, scores = [], list[str](), [np.zeros(0)]
    for shard in sorted(manifest["shards"]):
        file = parquet().ParquetFile(folder / shard)
        for number in range(file.num_row_groups):
            groups.append(_Group(len(names), folder / shard, number))
            table = file.read_row_group(number, columns=["id", "score"])
            names += table.column("id").to_pylist()
            scores.append(table.column("score").to_numpy())
    return groups, {name: row for row, name in enumerate(names)}, np.concatenate(scores)


def _read_classes(group: _Group) -> list[Classes]:
    table = parquet().ParquetFile(group.path).read_row_group(group.number, columns=["classes"])
    lists = table.column("classes").combine_chunks()
    return np.split(lists.flatten().to_numpy().astype(np.int32), lists.offsets.to_numpy()[1:-1])


def _second(pair: tuple[str, int]) -> int:
    return pair[1]


def _flaw(wanted: int, length: int | None) -> str:
    """What is wrong with an alignment of so many frames; nothing where it is right."""
    match length:
        case None:
            return "is missing"
        case -1:
            return "has no path"
        case int() if length != wanted:
            return f"has {length} frames, but must have {wanted}"
    return ""


def _check_length(sequence: str, length: int, frames: int) -> None:
    if length > frames:
        raise DataError(f'The alignment of "{sequence}" has {length} frames, more than the {frames} of its batch.')
