"""What frame-wise losses are told: the class of each encoded frame, of the alignment of its recording.

Shapes: N recordings, B samples, T encoded frames of the longest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from etude.data.feeds.recorded import Finish, FrameBatch, RecordedSamples, SpeechBatch, with_transcripts
from etude.data.order.joined import Joined
from etude.data.order.plan import Ints
from etude.data.store.alignments import NOWHERE, Alignments, Classes

Change = Callable[[int, Classes], Classes]
"""From a row and its classes to other ones."""


def _as_it_is(_row: int, classes: Classes) -> Classes:
    return classes


@final
@dataclass(frozen=True)
class FrameTargets:
    """The classes of all frames of a table's rows, held in memory: 4 bytes for each encoded frame."""

    classes: NDArray[np.int32]
    """Those of all rows one after the other; NOWHERE in those of a row without an alignment."""
    ends: Ints
    """[N]: where each row's end in them."""

    @classmethod
    def of(cls, alignments: Alignments, sequences: Sequence[str], frames: Ints, change: Change = _as_it_is) -> Self:
        """Read those of rows, by their ids and their numbers of frames [N]; alignments must have been joined to them.

        They are read in the order in which they are stored; `change` may make others of those of a row, as many.
        """
        ends = np.cumsum(frames)
        classes = np.full(int(frames.sum()), NOWHERE, dtype=np.int32)
        rows = {name: row for row, name in enumerate(sequences) if name in alignments}
        for name in filter(rows.__contains__, alignments):
            row = rows[name]
            classes[ends[row] - frames[row] : ends[row]] = change(row, alignments[name])
        return cls(classes, ends)

    def padded(self, rows: Ints) -> Tensor:
        """Give the classes of some rows [B, T] int64, NOWHERE beyond the end of each."""
        starts = np.where(rows > 0, self.ends[rows - 1], 0)
        parts = [
            torch.from_numpy(self.classes[start:end].astype(np.int64))
            for start, end in zip(starts.tolist(), self.ends[rows].tolist(), strict=True)
        ]
        if not parts:
            return torch.empty(0, 0, dtype=torch.int64)
        return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=NOWHERE)


@final
@dataclass(frozen=True)
class WithFrames(Finish):
    """Adds the labels of what is said in each recording, and the class of each of its encoded frames."""

    targets: FrameTargets

    def __call__(self, frames: FrameBatch, samples: RecordedSamples, joined: Joined) -> SpeechBatch:
        """Give the batch; no recordings may be joined."""
        return replace(with_transcripts(frames, samples, joined), frame_targets=self.targets.padded(joined.parts))
