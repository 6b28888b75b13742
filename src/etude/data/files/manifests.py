"""Manifests: lists of recordings, each with what is said in it or what it is, in tables, JSON lines or Kaldi's files.

A path in one is relative to its folder, and must not lead out of it unless `data.root` names another folder.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import NamedTuple, final

from etude.base.errors import DataError
from etude.base.says import Say, unheard
from etude.data.files.json_lines import as_cell
from etude.data.files.lhotse import LhotseCuts, is_cuts
from etude.data.files.lines import Flaw, LineFile, shown
from etude.data.files.names import TRANSCRIBED, ColumnName, Roles, Split, listed
from etude.data.files.pair_sources import Concatenated, NumberedPairs, Pair, PairSource, pair_of
from etude.data.files.parallel import open_pairs
from etude.data.files.table_file import AS_WRITTEN, TableForm

SCRIPT, TEXT, SEGMENTS, SPEAKERS = "wav.scp", "text", "segments", "utt2spk"
"""What the files of a Kaldi folder are called."""


class Recording(NamedTuple):
    """One sample of a manifest."""

    path: Path
    text: str
    """Its transcript or label."""
    start: float = 0.0
    """Where it begins in the file, in seconds."""
    end: float | None = None
    """Where it ends; None is the end of the file."""
    speaker: str = ""
    further: tuple[str, ...] = ()
    """What stands in further columns that were asked for; empty where there is nothing."""


@dataclass(frozen=True)
class Columns:
    """What the columns of a manifest are called."""

    path: ColumnName = "path"
    text: ColumnName = "transcript"
    start: ColumnName = "start"
    end: ColumnName = "end"
    speaker: ColumnName = "speaker"
    further: tuple[ColumnName, ...] = ()
    """Columns that there must be, whatever they say."""


@final
class Manifest:
    """Recordings by number."""

    def __init__(self, source: PairSource, columns: Columns, root: Path | None) -> None:
        self.source = source
        self._columns = columns
        self._root = root

    def __len__(self) -> int:
        return len(self.source)

    def rows(self, start: int, stop: int) -> Iterator[Recording | Flaw]:
        """Read the recordings from `start` to before `stop`, or why one cannot be used."""
        names = self._columns
        columns = [self._column(name, start, stop) for name in (names.start, names.end, names.speaker)]
        columns += [self.source.column(name, start, stop) for name in names.further]
        pairs = self.source.rows(start, stop)
        for index, (pair, *others) in enumerate(zip(pairs, *columns, strict=False), start):
            yield pair if isinstance(pair, Flaw) else self._recording(index, pair, others)

    def column(self, name: ColumnName, start: int, stop: int) -> Iterator[object]:
        """Read another column or field of the samples from `start` to before `stop`: what is there, or a Flaw."""
        return self.source.column(name, start, stop)

    def has_column(self, name: ColumnName) -> bool:
        """Tell whether samples may have a further column of this name."""
        return self.source.has_column(name)

    def place(self, index: int, side: str = "source") -> tuple[str, int]:
        """Give the file and the line (counted from 1) of a recording."""
        return self.source.place(index, side)

    def location(self, index: int) -> str:
        """Say where a recording stands: `train.csv, line 14`."""
        return self.source.location(index)

    def fingerprint(self) -> str:
        """Give a sha256 of everything that decides what the manifest says; not of the recordings' content."""
        return self.source.fingerprint()

    def _column(self, name: ColumnName, start: int, stop: int) -> Iterator[object]:
        if self.source.has_column(name):
            return self.source.column(name, start, stop)
        return repeat("", stop - start)

    def _recording(self, index: int, pair: Pair, others: Sequence[object]) -> Recording | Flaw:
        start, end, speaker, *further = others
        first, last = _seconds("start", start), _seconds("end", end)
        path = self._inside(index, pair.source)
        for read in (path, first, last):
            if isinstance(read, Flaw):
                return read
        assert isinstance(path, Path)
        assert not isinstance(first, Flaw)
        assert not isinstance(last, Flaw)
        return Recording(path, pair.target, first or 0.0, last, _told(speaker), tuple(map(_told, further)))

    def _inside(self, index: int, written: str) -> Path | Flaw:
        """Give where a recording lies. Only what its text says is looked at: a link inside may lead anywhere."""
        folder = Path(self.place(index)[0]).parent
        root = self._root or folder
        path = Path(os.path.abspath(folder / written.strip()))  # noqa: PTH100 - resolve() follows links
        if "\0" in written:
            return Flaw("the path holds a NUL character")
        if not path.is_relative_to(os.path.abspath(root)):  # noqa: PTH100 - as above
            return Flaw(
                f'the path "{shown(written, 80)}" leads out of {shown(root)}; data.root names the folder that '
                "recordings may lie in"
            )
        return path


def _seconds(name: str, value: object) -> float | Flaw | None:
    """Read a time; None where there is none."""
    match value:
        case Flaw() | None | "":
            return None  # a field that an object lacks
        case bool():
            return Flaw(f"{name} must be a number of seconds, but is {json.dumps(value)}")
        case int() | float():
            return float(value)
    try:
        return float(str(value))
    except ValueError:
        return Flaw(f'{name} must be a number of seconds, but is "{shown(value, 40)}"')


def _told(value: object) -> str:
    return "" if isinstance(value, Flaw) or value is None else as_cell(value) or str(value).strip()


def open_manifest(
    split: Split,
    *,
    columns: Columns,
    root: Path | None = None,
    form: TableForm = AS_WRITTEN,
    cache: Path | None = None,
    notice: Say = unheard,
    key: str = "data.train",
    roles: Roles = TRANSCRIBED,
) -> Manifest:
    """Open what `split` names: a manifest, Lhotse's cuts, a folder of Kaldi's files, several of one kind, or a corpus.

    Raises DataError, naming the file, where one is missing, empty or of an unknown kind.
    """
    folders = [path for path in _paths(split) if path.is_dir()]
    if folders:
        return _of_folders(_paths(split), folders, root, cache, key)
    cuts = [path for path in _paths(split) if is_cuts(path)]
    if cuts:
        return _of_cuts(_paths(split), cuts, columns, root, key)
    if isinstance(split, str):
        columns = Columns(*roles.names, further=columns.further)
    source = open_pairs(
        split,
        source=columns.path,
        target=columns.text,
        form=form,
        cache=cache,
        notice=notice,
        key=key,
        roles=roles,
    )
    return Manifest(source, columns, root)


def _paths(split: Split) -> tuple[Path, ...]:
    return listed(split) if isinstance(split, Path | tuple | list) else ()


def _of_folders(
    paths: Sequence[Path], folders: Sequence[Path], root: Path | None, cache: Path | None, key: str
) -> Manifest:
    if len(folders) < len(paths):
        raise DataError(f"{key} names folders and files: give folders of Kaldi's files alone, or manifests alone.")
    parts = [KaldiFolder(folder, cache) for folder in folders]
    columns = Columns(text="text")
    return Manifest(parts[0] if len(parts) == 1 else Concatenated(parts), columns, root)


def _of_cuts(paths: Sequence[Path], cuts: Sequence[Path], columns: Columns, root: Path | None, key: str) -> Manifest:
    if len(cuts) < len(paths):
        raise DataError(f"{key} names cuts of Lhotse and other files: give cuts alone, or other manifests alone.")
    parts = [LhotseCuts(path) for path in cuts]
    return Manifest(
        parts[0] if len(parts) == 1 else Concatenated(parts), Columns(text="text", further=columns.further), root
    )


# -- Kaldi's folders ---------------------------------------------------------------------------------------------------


class _Utterance(NamedTuple):
    path: str
    text: str
    start: str
    end: str
    speaker: str


@final
class KaldiFolder(NumberedPairs):
    """The utterances of a folder with `wav.scp`, `text` and, where they are there, `segments` and `utt2spk`.

    An utterance is a line of `text`. An entry of `wav.scp` that is a command is never run: it makes bad samples.
    """

    def __init__(self, folder: Path, cache: Path | None = None) -> None:
        self._folder = folder
        files = {name: folder / name for name in (SCRIPT, TEXT, SEGMENTS, SPEAKERS)}
        for name in (SCRIPT, TEXT):
            if not files[name].is_file():
                raise DataError(
                    f"{shown(folder)} must be a folder of Kaldi's files, wav.scp and text, but has no {name}."
                )
        self._lines = {name: LineFile(path, cache) for name, path in files.items() if path.is_file()}
        recordings, speakers = self._table(SCRIPT), self._table(SPEAKERS)
        segments = self._table(SEGMENTS)
        self._utterances = [
            _utterance(name, text, recordings, segments if SEGMENTS in self._lines else None, speakers)
            for name, text in self._entries(TEXT)
        ]

    def _entries(self, name: str) -> Iterator[tuple[str, str]]:
        lines = self._lines[name]
        for number, line in enumerate(lines.decoded(0, len(lines)), 1):
            if isinstance(line, Flaw):
                raise DataError(f"{shown(lines.path)}, line {number}: {line.reason}.")
            first, _, rest = line.strip().partition(" ")
            yield first, rest.strip()

    def _table(self, name: str) -> dict[str, str]:
        return dict(self._entries(name)) if name in self._lines else {}

    def __len__(self) -> int:
        return len(self._utterances)

    def rows(self, start: int, stop: int) -> Iterator[Pair | Flaw]:
        """Read the utterances from `start` to before `stop`, or why one cannot be used."""
        for one in self._utterances[start:stop]:
            yield one if isinstance(one, Flaw) else pair_of(one.path, one.text, TRANSCRIBED)

    def has_column(self, name: ColumnName) -> bool:
        """Tell whether there is another column of this name."""
        return name in {"start", "end", "speaker"}

    def column(self, name: ColumnName, start: int, stop: int) -> Iterator[object]:
        """Read start, end or speaker of the utterances from `start` to before `stop`."""
        for one in self._utterances[start:stop]:
            yield one if isinstance(one, Flaw) else one._asdict()[str(name)]

    def place(self, index: int, side: str = "source") -> tuple[str, int]:
        """Give the file and the line (counted from 1) of an utterance."""
        del side
        return str(self._folder / TEXT), index + 1

    def fingerprint(self) -> str:
        """Give a sha256 of everything that decides what the utterances are."""
        parts = {name: lines.sha256 for name, lines in self._lines.items()}
        return hashlib.sha256(json.dumps(["kaldi", parts]).encode()).hexdigest()


def _utterance(
    name: str,
    text: str,
    recordings: Mapping[str, str],
    segments: Mapping[str, str] | None,
    speakers: Mapping[str, str],
) -> "_Utterance | Flaw":
    start = end = ""
    recording = name
    if segments is not None:
        fields = segments.get(name, "").split()
        if len(fields) != 3:  # noqa: PLR2004 - recording, start, end
            return Flaw(f'segments has no recording, start and end for "{shown(name, 80)}"')
        recording, start, end = fields
    path = recordings.get(recording)
    if path is None:
        return Flaw(f'wav.scp has no recording "{shown(recording, 80)}"')
    if path.endswith("|"):
        return Flaw(f'wav.scp has a command for "{shown(recording, 80)}", which is not run: give a file')
    end = "" if end == "-1" else end
    return _Utterance(path, text, start, end, speakers.get(name, ""))
