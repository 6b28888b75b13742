"""Recordings that CTC cannot learn from, since they have fewer frames than their labels need: found before training."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from etude.base.config.components import Imported
from etude.base.says import Say
from etude.data.feeds.recorded import RecordedSamples
from etude.data.files.manifests import Manifest
from etude.data.store.recordings import TARGET
from etude.model.frames.encoders import frames_after
from etude.model.losses.ctc import least_frames
from etude.tasks.speech_recognition.build import head_names
from etude.tasks.speech_recognition.config import SpeechRun

LOOK = 4096
"""Recordings that are looked at together."""


class TooShort(NamedTuple):
    """A recording with fewer frames than it needs."""

    row: int
    frames: int
    needed: int


def say_infeasible(config: SpeechRun, samples: RecordedSamples, split: str, manifest: Manifest, say: Say) -> None:
    """Say how many recordings of a split have too few frames for their labels, and which is the first."""
    if isinstance(config.model, Imported) or "ctc" not in head_names(config.loss):
        return  # its frames are not known, or the loss does not need so many
    found = list(too_short(config, samples))
    if not found:
        return
    first = found[0]
    place = manifest.location(samples.table.origin(first.row))
    have = "has too few frames for its labels" if len(found) == 1 else "have too few frames for their labels"
    such = "" if len(found) == 1 else "the first is "
    say(
        f"{len(found):,} of {len(samples):,} {split} recordings {have}: {such}{place} ({first.frames} frames for "
        f"{first.needed} labels and blanks between equal ones). CTC learns nothing from them; less model.subsampling "
        "leaves more frames."
    )


def too_short(config: SpeechRun, samples: RecordedSamples) -> Iterator[TooShort]:
    """Give the recordings whose labels do not fit, without any change of their speed."""
    model = config.model
    assert not isinstance(model, Imported)
    for first in range(0, len(samples), LOOK):
        rows = np.arange(first, min(first + LOOK, len(samples)))
        ids, lengths = samples.table.gather(TARGET, rows)
        labels = torch.nn.utils.rnn.pad_sequence(
            list(torch.split(torch.from_numpy(ids), lengths.tolist())), batch_first=True
        )
        needed = least_frames(labels, torch.from_numpy(lengths)).numpy()
        frames = frames_after(model, samples.lengths(rows)[0])
        for place in np.flatnonzero(needed > frames).tolist():
            yield TooShort(int(rows[place]), int(frames[place]), int(needed[place]))
