"""Recordings that predictions are asked of: one file, those of a manifest, or one whose path each line is."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from etude.base.paths import user_path
from etude.data.audio.reading import WHOLE, BadAudioError, Cut, Listening, Wave, header_of, read_wave
from etude.data.files.lines import Flaw, is_blank
from etude.data.files.manifests import Columns, Manifest, open_manifest
from etude.tasks.recordings import RecordingsSection
from etude.tasks.task_type import Missing, Questions

MANIFESTS = (".csv", ".tsv", ".jsonl", ".ndjson")
"""What the names of files end in that list recordings."""


def is_manifest(path: Path) -> bool:
    """Whether a file lists recordings, by its name."""
    return path.suffix.lower() in MANIFESTS


@dataclass(frozen=True)
class Asked:
    """One recording that is asked of."""

    name: str
    """As it was written."""
    wave: Wave | Missing
    """At the rate of the run; or why there is none."""
    cut: Cut = WHOLE
    """The part of its file that the wave is."""
    seconds: float = 0.0

    def __str__(self) -> str:
        return self.name if self.cut == WHOLE else f"{self.name} from {self.cut.start:g} to {self.cut.end} seconds"

    @property
    def start(self) -> float:
        """Where the wave begins in its file, in seconds."""
        return self.cut.start


@dataclass(frozen=True)
class Ears:
    """Reads recordings at the rate of a run, resampled where the config says so."""

    data: RecordingsSection
    rate: int

    def questions(self, questions: Questions) -> Iterator[Asked]:
        """Give what is asked of, in order: the file that was named, what it lists, or the file of each line."""
        path = questions.path
        if path is None:
            for window in questions.lines():
                yield from map(self.file, window)
        elif is_manifest(path):
            yield from self._listed(path)
        else:
            yield self.file(str(path))

    def files(self, names: Iterable[str]) -> Iterator[Asked]:
        """Give recordings by their paths."""
        return map(self.file, names)

    def file(self, name: str) -> Asked:
        """Give a whole file."""
        if is_blank(name):
            return Asked(name, Missing("the path is empty"))
        return self._read(name, user_path(name.rstrip("\r\n")), Cut())

    def _listed(self, path: Path) -> Iterator[Asked]:
        data = self.data
        columns = Columns(data.path, data.path, data.start, data.end, data.speaker)
        manifest: Manifest = open_manifest(path, columns=columns, root=data.root, key="the input", roles=data.roles)
        for number, row in enumerate(manifest.rows(0, len(manifest))):
            if isinstance(row, Flaw):
                yield Asked(manifest.location(number), Missing(row.reason))
            else:
                yield self._read(row.text, row.path, Cut(row.start, row.end))

    def _read(self, name: str, path: Path, cut: Cut) -> Asked:
        listening: Listening = self.data.listening(self.rate)
        try:
            header_of(path)
            wave = read_wave(path, cut, listening)
        except BadAudioError as bad:
            return Asked(name, Missing(str(bad)), cut)
        return Asked(name, wave, cut, len(wave) / self.rate)
