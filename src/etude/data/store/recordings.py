"""Recordings with what is said in them or what they are, prepared into a table.

A row holds where its recording lies, how many samples it has and its target and, where waves are kept, the wave itself
at the rate of the run; otherwise it is read from its file whenever a batch wants it.
"""

import hashlib
import json
import math
import os
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from etude.base.errors import DataError
from etude.base.hashes import content_of
from etude.base.says import Say, unheard
from etude.data.audio.reading import BadAudioError, Cut, Header, Listening, Wave, header_of, read_wave, samples_of
from etude.data.files.lines import Flaw, shown
from etude.data.files.manifests import Manifest, Recording
from etude.data.files.skipped import Policy
from etude.data.store.columns import Column, Part, audio, number, text
from etude.data.store.crew import cores
from etude.data.store.progress import Report, unreported
from etude.data.store.table import Chunk, Table, Wanted, prepare_table

FORMAT = 2
WAVE, SAMPLES, TARGET, SPEAKER = "wave", "samples", "target", "speaker"
PATH, START, END, GROUP = "path", "start", "end", "group"
CHUNK = 64
KEPT_SECONDS = 20 * 3600.0
"""Waves are kept, unless the config says otherwise, of at most so much audio: 4.6 GB at 16 kHz."""


class Targets(Protocol):
    """What recordings are labelled with."""

    @property
    def columns(self) -> Sequence[Column]:
        """What a table holds of it."""

    def fingerprint(self) -> str:
        """Give a hash of all that decides it."""

    def encode(self, recordings: Sequence[Recording]) -> tuple[Sequence[Part], list[tuple[int, Flaw]]]:
        """Give, by column, the rows of those that are good, and which are not."""


class Wishes(NamedTuple):
    """How recordings are prepared."""

    listening: Listening
    keep: bool = True
    """Whether the table holds the waves."""
    least_samples: int = 1
    """Fewer make a bad sample: no window fits in."""
    most_seconds: float | None = None


def prepare_recordings(
    manifest: Manifest,
    targets: Targets,
    wishes: Wishes,
    cache: Path,
    policy: Policy,
    *,
    report: Report = unreported,
    notice: Say = unheard,
) -> Table:
    """Read `manifest` into the folder `cache`, or open what an earlier call has made of the same content.

    Where waves are kept every recording is decoded, so that each bad one is found now; otherwise only headers are
    read. Raises as `prepare_table` does.
    """
    files = content_of(files_of(manifest), cache / "audio", deep=wishes.keep)
    parts = [FORMAT, manifest.fingerprint(), files, wishes, policy.max_length, policy.skips, targets.fingerprint()]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    columns = [
        *([audio(WAVE)] if wishes.keep else []),
        number(SAMPLES, "int64"),
        *targets.columns,
        text(SPEAKER),
        text(PATH),
        number(START),
        number(END),
    ]
    reader = _Reader(manifest, targets, wishes)
    return prepare_table(
        "recordings",
        Wanted(key, columns, manifest, policy),
        cache,
        reader.chunks,
        report=report,
        notice=notice,
    )


class _Heard(NamedTuple):
    """A recording that can be used."""

    sample: int
    recording: Recording
    samples: int
    wave: Wave | None


@final
class _Reader:
    """Makes rows of recordings, several at a time: decoding leaves the interpreter to others."""

    def __init__(self, manifest: Manifest, targets: Targets, wishes: Wishes) -> None:
        self._manifest, self._targets, self._wishes = manifest, targets, wishes
        self._folder = folder_of(manifest)

    def chunks(self) -> Generator[Chunk, None, None]:
        """Give all, in order."""
        with ThreadPoolExecutor(cores()) as pool:
            for start in range(0, len(self._manifest), CHUNK):
                rows = self._manifest.rows(start, min(start + CHUNK, len(self._manifest)))
                yield self._chunk(start, list(pool.map(self._heard, enumerate(rows, start))))

    def _heard(self, numbered: tuple[int, Recording | Flaw]) -> _Heard | Flaw:
        sample, row = numbered
        if isinstance(row, Flaw):
            return row
        listening, cut = self._wishes.listening, Cut(row.start, row.end)
        try:
            header = header_of(row.path)
            samples = samples_of(header, cut, listening)
            self._check_length(samples)
            wave = read_wave(row.path, cut, listening) if self._wishes.keep else None
        except BadAudioError as bad:
            return Flaw(str(bad), "source")
        return _Heard(sample, row, samples, wave)

    def _check_length(self, samples: int) -> None:
        least, most, rate = self._wishes.least_samples, self._wishes.most_seconds, self._wishes.listening.rate
        if samples < least:
            raise BadAudioError(f"it has {samples:,} samples, fewer than one window of {least:,}")
        if most is not None and samples > most * rate:
            raise BadAudioError(f"it lasts {samples / rate:.2f} seconds, more than data.max_seconds = {most:g}")

    def _chunk(self, start: int, rows: Sequence[_Heard | Flaw]) -> Chunk:
        flaws = [(sample, row) for sample, row in enumerate(rows, start) if isinstance(row, Flaw)]
        heard = [row for row in rows if not isinstance(row, Flaw)]
        parts, wrong = self._targets.encode([one.recording for one in heard])
        flaws += [(heard[place].sample, flaw) for place, flaw in wrong]
        bad = {place for place, _ in wrong}
        good = [one for place, one in enumerate(heard) if place not in bad]
        return Chunk(self._parts(good, parts), sorted(flaws, key=lambda flaw: flaw[0]))

    def _parts(self, good: Sequence[_Heard], targets: Sequence[Part]) -> list[Part]:
        recordings = [one.recording for one in good]
        ends = [math.nan if one.end is None else one.end for one in recordings]
        waves = [_laid([one.wave for one in good if one.wave is not None])] if self._wishes.keep else []
        return [
            *waves,
            Part(np.array([one.samples for one in good], dtype=np.int64)),
            *targets,
            Part.of_texts([one.speaker for one in recordings]),
            Part.of_texts([os.path.relpath(one.path, self._folder) for one in recordings]),
            Part(np.array([one.start for one in recordings], dtype=np.float64)),
            Part(np.array(ends, dtype=np.float64)),
        ]


def _laid(waves: Sequence[Wave]) -> Part:
    """Lay waves one after the other."""
    lengths = np.array([len(wave) for wave in waves], dtype=np.int32)
    return Part(np.concatenate([np.zeros(0, np.float32), *waves]), lengths)


@final
class Waves:
    """The waves of a table's rows: kept in it, or read from their files. Another process maps or reads them anew."""

    def __init__(self, table: Table, listening: Listening, folder: Path) -> None:
        self.table, self._listening, self._folder = table, listening, folder
        self._kept = WAVE in table.columns

    def of(self, rows: NDArray[np.int64]) -> list[Wave]:
        """Read the waves of some rows. Raises DataError where a file cannot be read any more."""
        if self._kept:
            return self.table.rows(WAVE, rows)
        paths = self.table.texts(PATH, rows)
        starts, ends = self.table.values(START, rows).tolist(), self.table.values(END, rows).tolist()
        return [self._read(*one) for one in zip(paths, starts, ends, strict=True)]

    def tensors(self, rows: NDArray[np.int64]) -> list[Tensor]:
        """Read them as tensors."""
        return [torch.from_numpy(np.ascontiguousarray(wave)) for wave in self.of(rows)]

    def _read(self, path: str, start: float, end: float) -> Wave:
        place = self._folder / path
        cut = Cut(start, None if math.isnan(end) else end)
        try:
            return read_wave(place, cut, self._listening)
        except BadAudioError as bad:
            raise DataError(f"{shown(path)} cannot be used any more: {bad}.") from bad


def folder_of(manifest: Manifest) -> Path:
    """Give the folder that the paths of a table are relative to: that of the manifest, which may be moved with them."""
    return Path(manifest.place(0)[0]).parent


# -- what recordings are, together -------------------------------------------------------------------------------------


def rate_of(manifest: Manifest) -> int:
    """Give the sample rate of the first recording that can be read. Raises DataError where none can."""
    first: str = ""
    for row in manifest.rows(0, len(manifest)):
        match row:
            case Recording():
                try:
                    return header_of(row.path).rate
                except BadAudioError as bad:
                    first = first or str(bad)
            case Flaw():
                first = first or row.reason
    raise DataError(f"{manifest.place(0)[0]} holds no recording that can be read; of the first: {first}.")


def seconds_of(manifest: Manifest, enough: float) -> float:
    """Add up how long recordings are by their headers, until they are more than `enough`; bad ones count nothing."""
    total = 0.0
    for row in manifest.rows(0, len(manifest)):
        match row:
            case Recording():
                total += _seconds(row)
        if total > enough:
            break
    return total


def _seconds(recording: Recording) -> float:
    try:
        header: Header = header_of(recording.path)
    except BadAudioError:
        return 0.0
    end = header.seconds if recording.end is None else recording.end
    return max(0.0, end - recording.start)


def files_of(manifest: Manifest) -> list[Path]:
    """List the files that recordings lie in."""
    return sorted({row.path for row in manifest.rows(0, len(manifest)) if isinstance(row, Recording)})
