"""Alignments that a run is trained on: found by split, checked against its recordings and its model."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from etude.base.config.components import Imported
from etude.base.errors import ConfigError, DataError
from etude.base.files import sha256_of
from etude.base.says import Say
from etude.data.feeds.frame_targets import FrameTargets
from etude.data.feeds.recorded import RecordedSamples
from etude.data.files.manifests import Manifest
from etude.data.order.plan import Ints
from etude.data.store.alignments import AlignmentFacts, Alignments, Classes, open_alignments
from etude.data.store.folders import MANIFEST, manifest_of
from etude.data.store.recordings import TARGET
from etude.data.store.sequences import sequence_ids
from etude.model.alignment.labelled import labelled_spans
from etude.model.alignment.priors import LabelCounts
from etude.model.frames.encoders import frames_after
from etude.tasks.speech_recognition.config import FramewiseConfig, SpeechRun, aligned_loss
from etude.tasks.speech_recognition.processor import BLANK, SpeechProcessor

FRAME_LABELS = ("ctc", "hmm")
"""Topologies whose classes a frame-wise loss can be told."""
PATHS = (*FRAME_LABELS, "transducer")
"""Those that a transducer can be led along: of frame labels each label's first frame is taken."""


def store_of(loss: FramewiseConfig, split: str) -> Path | None:
    """The folder of the alignments of a split; None where there are none. That of train is always named."""
    if (loss.alignments / MANIFEST).is_file():
        return loss.alignments if split == "train" else None
    folder = loss.alignments / split
    return folder if split == "train" or (folder / MANIFEST).is_file() else None


def open_store(folder: Path, config: SpeechRun, processor: SpeechProcessor, **joined: Any) -> Alignments:
    """The alignments in a folder, which must be of this run's labels and frames; joined as `open_alignments` does.

    Raises DataError where there are none, or others.
    """
    return open_alignments(folder, facts_of(config, processor, *_topology(folder, config)), **joined)


def facts_of(
    config: SpeechRun, processor: SpeechProcessor, topology: str, blank: int | None, *, model: str = "", data: str = ""
) -> AlignmentFacts:
    """What alignments of a run's recordings are of. The model must be one whose frames are known."""
    assert not isinstance(config.model, Imported)
    return AlignmentFacts(
        topology,
        blank,
        processor.tokenizer.fingerprint(),
        processor.sound.front_end(config.data).seconds_a_frame,
        config.model.subsampling,
        model,
        data,
    )


def frames_of(config: SpeechRun, samples: RecordedSamples) -> Ints:
    """How many frames the model makes of each recording as it is [N]."""
    assert not isinstance(config.model, Imported)
    frames, _ = samples.lengths(np.arange(len(samples)))
    return np.asarray(frames_after(config.model, frames), dtype=np.int64)


def frame_targets(
    config: SpeechRun, processor: SpeechProcessor, split: str, samples: RecordedSamples, manifest: Manifest, say: Say
) -> FrameTargets | None:
    """The classes of all frames of a split, by its alignments; None where the loss asks for none, or none are there.

    Raises DataError where there must be some, or more than `loss.max_missing` recordings have none that fits.
    """
    loss = aligned_loss(config.loss)
    if loss is None:
        return None
    folder = store_of(loss, split)
    if folder is None:
        _tell_of_none(config, loss, split, say)
        return None
    names, frames = sequence_ids(samples.table, manifest), frames_of(config, samples)
    wanted: Mapping[str, int] = dict(zip(names, frames.tolist(), strict=True))
    found = open_store(folder, config, processor, frames=wanted, max_missing=loss.max_missing, say=say)
    if loss.head == "linear":
        return FrameTargets.of(found, names, frames)
    return FrameTargets.of(found, names, frames, _path_of(folder, config, samples, names))


def counted_labels(config: SpeechRun, processor: SpeechProcessor) -> LabelCounts:
    """The frames of each class in the alignments that a run was trained on. Raises DataError where there are none."""
    loss = aligned_loss(config.loss)
    assert loss is not None
    folder = store_of(loss, "train")
    assert folder is not None
    stored = open_store(folder, config, processor)
    frames = np.zeros(processor.tokenizer.size, dtype=np.int64)
    for name in stored:
        frames += np.bincount(stored[name], minlength=len(frames))
    return LabelCounts(torch.from_numpy(frames).double())


def aligned_fingerprint(config: SpeechRun, split: str, content: str) -> str:
    """What tells the content of a split and its alignments from others, by that of the split."""
    match aligned_loss(config.loss):
        case FramewiseConfig() as loss if folder := store_of(loss, split):
            _check_there(folder)
            return hashlib.sha256(f"{content} {sha256_of(folder / MANIFEST)}".encode()).hexdigest()
    return content


def _tell_of_none(config: SpeechRun, loss: FramewiseConfig, split: str, say: Say) -> None:
    """Say that the loss of a split cannot be known. Raises ConfigError where the run is judged by it."""
    told = f"loss.alignments names no alignment of data.{split}, so it has no loss"
    if split == "val" and config.train.monitor == "val/loss":
        raise ConfigError(
            f"{told}, but train.monitor is val/loss: make one with etude align RUN --split val, and give the folder "
            f'that holds both as loss.alignments, which is {loss.alignments}; or set train.monitor = "val/{_RATE}".'
        )
    say(f"{told}.")


_RATE = "word_error_rate"


def _topology(folder: Path, config: SpeechRun) -> tuple[str, int | None]:
    """That of the alignments in a folder, and its class of what is no label. Raises DataError for one of no use."""
    _check_there(folder)
    facts: Mapping[str, Any] = manifest_of(folder).get("facts", {})
    topology, blank = str(facts.get("topology")), facts.get("blank")
    loss = aligned_loss(config.loss)
    usable = PATHS if loss is not None and loss.head == "transducer" else FRAME_LABELS
    if topology not in usable or blank not in {BLANK, None}:
        raise DataError(
            f'The alignments in {folder} have topology "{topology}" and the blank {blank}, but must be of '
            f"{', '.join(usable)} with the blank {BLANK} or none: align with --topology {', '.join(usable)} or linear."
        )
    return topology, blank


def _path_of(
    folder: Path, config: SpeechRun, samples: RecordedSamples, names: Sequence[str]
) -> Callable[[int, Classes], Classes]:
    """What makes a transducer's path of the classes of a row."""
    _, blank = _topology(folder, config)

    def path(row: int, classes: Classes) -> Classes:
        labels, _ = samples.table.gather(TARGET, np.array([row]))
        try:
            spans = labelled_spans(classes.tolist(), labels.tolist(), between=blank)
        except ValueError as error:
            raise DataError(
                f'The alignment of "{names[row]}" in {folder} is not of its transcript: align again.'
            ) from error
        found = np.full_like(classes, BLANK)
        found[[span.start for span in spans]] = [span.label for span in spans]
        return found

    return path


def _check_there(folder: Path) -> None:
    if not (folder / MANIFEST).is_file():
        raise DataError(f"{folder} holds no alignments: make them with etude align, and name them in loss.alignments.")
