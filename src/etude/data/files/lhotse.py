"""Cuts of Lhotse: a manifest with an object a line, `cuts.jsonl` or `cuts.jsonl.gz`, read without that library.

A cut is a part of a recording with supervisions, of which the text, the speaker and further fields are taken. What is
read is a `MonoCut` of a recording in one file with one channel. Commands are not run and addresses not fetched; what
Lhotse would compute, such as features that it stored, mixed and padded cuts, other speeds and rates, is refused.
"""

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, final

from etude.base.errors import DataError
from etude.data.files.json_lines import JSON_LINES, json_object
from etude.data.files.lines import Flaw, shown
from etude.data.files.names import TRANSCRIBED, ColumnName
from etude.data.files.pair_sources import NumberedPairs, Pair, pair_of

PACKED = ".jsonl.gz"
"""What the names of compressed cuts end in."""
FIRST = 1 << 20
"""Bytes of a first line that are looked at."""
SLACK = 0.01
"""Seconds by which times may be rounded."""


class _Cut(NamedTuple):
    path: str
    text: str
    start: float
    end: float | None
    speaker: str
    further: Mapping[str, Any]


def is_cuts(path: Path) -> bool:
    """Tell whether a file holds cuts: by its name, or by its first line."""
    if path.name.lower().endswith(PACKED):
        return path.is_file()
    return path.suffix.lower() in JSON_LINES and path.is_file() and _begins_with_cut(path)


def _begins_with_cut(path: Path) -> bool:
    with path.open("rb") as file:
        match json_object(file.readline(FIRST).decode("utf-8", "replace")):
            case {"type": kind, "supervisions": _}:
                return str(kind).endswith("Cut")
    return False


@final
class LhotseCuts(NumberedPairs):
    """The cuts of a file by number, all held in memory. Raises DataError where it cannot be read or is empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = _content(path).rstrip().split(b"\n")
        if lines == [b""]:
            raise DataError(f"{shown(path)} is empty.")
        self._sha256 = hashlib.sha256(b"\n".join(lines)).hexdigest()
        self._cuts = list(map(_read, lines))

    def __len__(self) -> int:
        return len(self._cuts)

    def rows(self, start: int, stop: int) -> Iterator[Pair | Flaw]:
        """Read the cuts from `start` to before `stop`, or why one cannot be used."""
        for one in self._cuts[start:stop]:
            yield one if isinstance(one, Flaw) else pair_of(one.path, one.text, TRANSCRIBED)

    def has_column(self, name: ColumnName) -> bool:
        """Tell whether cuts may have another field of this name: each may."""
        return isinstance(name, str)

    def column(self, name: ColumnName, start: int, stop: int) -> Iterator[object]:
        """Read start, end or speaker, or a field of the supervisions or of what is custom; "" where there is none."""
        for one in self._cuts[start:stop]:
            match one, name:
                case Flaw(), _:
                    yield one
                case _Cut(), "start" | "end" | "speaker":
                    yield one._asdict()[name]
                case _Cut(further=further), _:
                    yield further.get(str(name), "")

    def place(self, index: int, side: str = "source") -> tuple[str, int]:
        """Give the file and the line (counted from 1) of a cut."""
        del side
        return str(self._path), index + 1

    def fingerprint(self) -> str:
        """Give a sha256 of everything that decides what the cuts are."""
        return hashlib.sha256(f"lhotse 1 {self._sha256}".encode()).hexdigest()


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.name.lower().endswith(PACKED) else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{shown(path)} cannot be read: {error}.") from error


def _read(line: bytes) -> _Cut | Flaw:
    """The cut of a line, or why it cannot be used."""
    try:
        found = json_object(line.decode())
    except UnicodeDecodeError:
        return Flaw("the line is not UTF-8")
    if isinstance(found, Flaw):
        return found
    try:
        return _cut(found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return Flaw(f"the cut is not as Lhotse writes it ({type(error).__name__}: {error})")


def _cut(found: Mapping[str, Any]) -> _Cut | Flaw:
    kind, recording = found.get("type", "MonoCut"), found.get("recording")
    if kind != "MonoCut":
        return Flaw(f"it is a {shown(kind, 40)}, but only a MonoCut is read: have Lhotse write the audio")
    if recording is None:
        return Flaw("the cut has no recording: features that Lhotse has stored are not read")
    supervisions = sorted(found.get("supervisions") or [], key=_start)
    start, duration = float(found["start"]), float(found["duration"])
    why = _unusable(recording) or _reaching(supervisions, duration)
    if why:
        return Flaw(why)
    first: Mapping[str, Any] = next(iter(supervisions), {})
    return _Cut(
        path=str(recording["sources"][0]["source"]),
        text=" ".join(filter(None, map(_text, supervisions))),
        start=start,
        end=_end(start + duration, float(recording["duration"])),
        speaker=str(first.get("speaker") or ""),
        further={**_custom(found), **first, **_custom(first)},
    )


def _start(supervision: Mapping[str, Any]) -> float:
    return float(supervision["start"])


def _text(supervision: Mapping[str, Any]) -> str:
    return str(supervision.get("text") or "").strip()


def _custom(table: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields that Lhotse does not know."""
    custom: Mapping[str, Any] = table.get("custom") or {}
    return custom


def _end(end: float, duration: float) -> float | None:
    """Where a cut ends in its recording; None for the recording's own end."""
    return None if abs(end - duration) <= SLACK else end


def _unusable(recording: Mapping[str, Any]) -> str | None:
    """Why a recording is not read; None where it is."""
    sources = recording["sources"]
    if len(sources) != 1:
        return f"its recording is in {len(sources)} sources, but must be in one file"
    source = sources[0]
    if source["type"] != "file":
        told = {"command": ", which is not run", "url": ", which is not fetched"}.get(source["type"], "")
        return f'its source is of type "{shown(source["type"], 40)}"{told}: give a file'
    if len(source["channels"]) != 1:
        return f"its file has {len(source['channels'])} channels, but must have one: write each to a file of its own"
    if recording.get("transforms"):
        return (
            f"its recording is changed ({shown(json.dumps(recording['transforms']), 60)}): have Lhotse write the audio"
        )
    return None


def _reaching(supervisions: Sequence[Mapping[str, Any]], duration: float) -> str | None:
    """What is said of a supervision that a cut has a part of, whose text is not that of the part."""
    for one in supervisions:
        start = _start(one)
        end = start + float(one["duration"])
        if start < -SLACK or end > duration + SLACK:
            return (
                f'its supervision "{shown(one.get("id", ""), 40)}" is from {start:g} to {end:g} seconds, but the cut '
                f"has {duration:g}: trim cuts to supervisions"
            )
    return None
