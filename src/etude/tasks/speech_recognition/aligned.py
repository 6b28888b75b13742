"""Stored alignments of recordings: what is said where in each, as files of other programs, and pictures."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from etude.base.errors import DataError
from etude.data.feeds.recorded import RecordedSamples
from etude.data.files.lines import Flaw
from etude.data.files.manifests import Manifest, Recording
from etude.data.order.plan import Ints
from etude.data.store.alignments import AlignmentFacts, Alignments
from etude.data.store.recordings import TARGET
from etude.data.store.sequences import sequence_ids
from etude.data.tokens.tokenizers import Tokenizer
from etude.model.alignment.labelled import labelled_spans
from etude.model.losses.ctc import least_frames
from etude.search import captions
from etude.search.ctc import Label
from etude.search.words import Clock, Word, words
from etude.tasks.aligners import Stored
from etude.tasks.attention import label
from etude.tasks.pictures import Mark, spectrogram
from etude.tasks.speech_recognition.aligned_data import frames_of
from etude.tasks.speech_recognition.data import Speech


@final
@dataclass(frozen=True, eq=False)
class Sequences:
    """The recordings of a split, by row and by id."""

    manifest: Manifest
    samples: RecordedSamples
    tokenizer: Tokenizer
    ids: Sequence[str]
    frames: Ints
    """[N]: how many frames the model makes of each."""

    @classmethod
    def of(cls, speech: Speech, split: str) -> Self:
        """Those of a split that is open."""
        samples, manifest = speech.samples(split, changed=False), speech.splits[split].source
        ids = sequence_ids(samples.table, manifest)
        return cls(manifest, samples, speech.processor.tokenizer, ids, frames_of(speech.config, samples))

    @cached_property
    def rows(self) -> Mapping[str, int]:
        """The row of each id."""
        return {name: row for row, name in enumerate(self.ids)}

    @property
    def fingerprint(self) -> str:
        """A hash of all that decides what the recordings are."""
        return self.samples.table.fingerprint

    def by_length(self, rows: Sequence[int] | None = None) -> Ints:
        """Rows, all unless some are given, the shortest first."""
        chosen = np.arange(len(self.ids)) if rows is None else np.array(rows, dtype=np.int64)
        return chosen[np.argsort(self.frames[chosen], kind="stable")]

    def labels(self, rows: Ints) -> tuple[Tensor, Tensor]:
        """Labels of rows [B, L], padded at the end, and how many each has [B]."""
        ids, lengths = self.samples.table.gather(TARGET, rows)
        parts = torch.split(torch.from_numpy(ids), lengths.tolist())
        return torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True), torch.from_numpy(lengths).long()

    def features(self, row: int) -> NDArray[np.float32]:
        """What the network gets of a recording [T, F], without deltas and all but the first frame of a stack."""
        features_1TF = self.samples.batch(np.array([row])).features
        shown: NDArray[np.float32] = features_1TF[0, :, : self.samples.front_end.config.width].numpy()
        return shown

    def recording(self, row: int) -> Recording:
        """A recording as its manifest has it. Raises DataError where that has changed."""
        match next(self.manifest.rows(number := self.samples.table.origin(row), number + 1)):
            case Flaw(reason=why):
                raise DataError(f"{self.place(row)}: {why}.")
            case found:
                return found

    def place(self, row: int) -> str:
        """Where a recording stands: `train.csv, line 14`."""
        return self.manifest.location(self.samples.table.origin(row))


@final
@dataclass(frozen=True)
class Spoken:
    """What is said in a recording; times are in seconds of its file."""

    sequence: str
    path: str
    start: float
    end: float
    score: float | None
    """The log-probability of the path; None where no network was asked."""
    labels: Sequence[Mark]
    words: Sequence[Word]

    def json(self) -> str:
        """An object."""
        told = {
            "sequence": self.sequence,
            "path": self.path,
            "start": round(self.start, 3),
            "end": round(self.end, 3),
            "score": self.score,
            "words": [_timed(word.text, word.start, word.end) for word in self.words],
            "labels": [_timed(*mark) for mark in self.labels],
        }
        return json.dumps(told, ensure_ascii=False, indent=1, allow_nan=False) + "\n"

    def textgrid(self) -> str:
        """A tier of words."""
        return captions.textgrid(self.words, self.end)

    def svg(self, features_TF: NDArray[np.float32], frame_seconds: float) -> str:
        """A picture of its features and labels; times begin with the recording."""
        marks = [Mark(label(one.text), one.start - self.start, one.end - self.start) for one in self.labels]
        title = f"{self.sequence}: {' '.join(word.text for word in self.words)}"
        return spectrogram(features_TF, frame_seconds, marks, title=title)


def _timed(text: str, start: float, end: float) -> dict[str, str | float]:
    return {"text": text, "start": round(start, 3), "end": round(end, 3)}


@final
class AlignedSpeech(Stored):
    """The alignments of a split, in order."""

    def __init__(self, folder: Path, sequences: Sequences, stored: Alignments, facts: AlignmentFacts) -> None:
        self.folder = folder
        self._sequences, self._stored, self._facts = sequences, stored, facts
        scores = np.array([stored.score(one) for one in sequences.ids])
        self._rows = np.flatnonzero(scores > -math.inf).tolist()
        skips = sequences.samples.table.skips()
        self.missing: Mapping[str, str] = {
            **{sequences.manifest.location(skip.sample): skip.reason for skip in skips},
            **{sequences.place(row): self._reason(row) for row in np.flatnonzero(scores == -math.inf).tolist()},
        }

    @property
    def aligned(self) -> int:
        """How many recordings have an alignment."""
        return len(self._rows)

    def files(self, form: str) -> Iterator[tuple[str, str]]:
        """A file for each recording, called as its audio is; of CTM one for all."""
        names = Names()
        match form:
            case "ctm":
                lines = [captions.ctm(one.words, one.sequence) for one in map(self._spoken, self._rows)]
                yield f"{self.folder.name}.ctm", "".join(lines)
            case "textgrid":
                yield from ((f"{names(one)}.TextGrid", one.textgrid()) for one in map(self._spoken, self._rows))
            case _:
                yield from ((f"{names(one)}.json", one.json()) for one in map(self._spoken, self._rows))

    def pictures(self, most: int) -> Iterator[tuple[str, str]]:
        """Spectrograms of the first recordings, with their labels."""
        names, seconds = Names(), self._sequences.samples.front_end.seconds_a_frame
        for row in self._rows[:most]:
            one = self._spoken(row)
            yield f"{names(one)}.svg", one.svg(self._sequences.features(row), seconds)

    def _spoken(self, row: int) -> Spoken:
        samples, rows = self._sequences.samples, np.array([row])
        sequence, recording = self._sequences.ids[row], self._sequences.recording(row)
        start = recording.start
        clock = Clock(self._facts.frame_seconds * self._facts.subsampling, start)
        found = self._labels(row)
        return Spoken(
            sequence,
            str(recording.path),
            start,
            start + float(samples.samples(rows)[0]) / samples.front_end.rate,
            self._stored.score(sequence) if self._facts.model else None,
            [self._mark(one, clock) for one in found],
            words(found, self._sequences.tokenizer.decode, clock),
        )

    def _mark(self, one: Label, clock: Clock) -> Mark:
        return Mark(self._sequences.tokenizer.spell([one.label])[0], clock.at(one.start), clock.at(one.end))

    def _labels(self, row: int) -> list[Label]:
        """The labels of a recording with their frames; how sure they are is not stored."""
        labels_1L, _ = self._sequences.labels(np.array([row]))
        classes = self._stored[self._sequences.ids[row]].tolist()
        spans = labelled_spans(classes, labels_1L[0].tolist(), between=self._facts.blank)
        return [Label(*span, math.nan) for span in spans]

    def _reason(self, row: int) -> str:
        """Why a recording has no path."""
        labels_1L, lengths_1 = self._sequences.labels(np.array([row]))
        frames = int(self._sequences.frames[row])
        least = least_frames(labels_1L, lengths_1) if self._facts.topology == "ctc" else lengths_1
        if frames < int(least):
            return f"it has {frames} frames, but its labels need {int(least)}"
        return "no path through its frames has a probability" if self._facts.model else "it has no label"


@final
class Names:
    """Names of files for recordings: paths from one folder, as those of their audio, without its ending.

    Where two have the same, the second keeps its ending. None leads out of the folder.
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def __call__(self, one: Spoken) -> str:
        """The name of the next one."""
        head, _, tail = one.sequence.rpartition(Path(one.path).suffix or "\0")
        name = next(name for name in (f"{head}{tail}", one.sequence) if name not in self._taken)
        self._taken.add(name)
        return "/".join("_" if part in {"", ".."} else part for part in name.split("/"))
