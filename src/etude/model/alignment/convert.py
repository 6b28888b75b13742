"""Alignments of one topology made from those of another, and read from the classes of frames.

Topologies: *CTC*, blanks, and labels of one frame or more, of which equal ones have a blank between them; *frame
labels*, as those of a hidden Markov model, each a frame or more, with silence or without; *transducer* (RNA: Sak et al.
2017, "Recurrent Neural Aligner"), in each frame a blank or one label that takes no other frame. What each conversion
keeps of the times, it says; all keep the labels, their order and the score, and where that cannot be there is no path.

Legend: B sequences, T frames.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from etude.model.alignment.result import NOWHERE, Alignment, Span

Edge = Literal["first", "last"]


def to_transducer(alignment: Alignment, *, blank: int, at: Edge = "first") -> Alignment:
    """Each label in its first frame, or its last, and blanks in all others: that time is kept, the other is lost.

    >>> path = of_ctc(torch.tensor([[0, 3, 3, 0, 3]]), blank=0)
    >>> to_transducer(path, blank=0).classes.tolist(), to_transducer(path, blank=0, at="last").classes.tolist()
    ([[0, 3, 0, 0, 3]], [[0, 0, 3, 0, 3]])
    """
    first_BT, last_BT = _edges(alignment.indices)
    said_BT = {"first": first_BT, "last": last_BT}[at]
    return _made(alignment, alignment.scores, alignment.indices.where(said_BT, NOWHERE), blank)


def to_ctc(alignment: Alignment, *, blank: int) -> Alignment:
    """The same frames, with blanks where no label is, and one between equal labels that touch.

    That blank takes the last frame of the first label; where it has no other, the first frame of the second. Every
    other frame is kept. Where neither has two frames, there is no path.

    >>> to_ctc(of_transducer(torch.tensor([[3, 4, 4, 9]]), blank=9), blank=0).scores.tolist()
    [-inf]
    """
    spans = [_separate(one) for one in alignment.spans()]
    impossible = [any(span.start == span.end for span in one) for one in spans]
    impossible_B = torch.tensor(impossible, dtype=torch.bool, device=alignment.scores.device)
    scores_B = alignment.scores.masked_fill(impossible_B, -math.inf)
    return _made(alignment, scores_B, _without(alignment.indices, spans), blank)


def to_frames(alignment: Alignment, *, silence: int | None = None) -> Alignment:
    """Frame labels: frames of no label become `silence`, and every time is kept.

    Without such a class they become the label's before them, and those before the first label that one's: a label
    keeps its first frame, except the first one, and lasts until the next. A sequence of frames without a label then
    has no path.

    >>> path = of_transducer(torch.tensor([[0, 3, 0, 4, 0]]), blank=0)
    >>> to_frames(path).classes.tolist(), to_frames(path, silence=9).classes.tolist()
    ([[3, 3, 3, 4, 4]], [[9, 3, 9, 4, 9]])
    """
    if silence is not None:
        return _made(alignment, alignment.scores, alignment.indices, silence)
    source_BT = _last_label(alignment.indices)
    scores_B = alignment.scores.masked_fill(_unlabelled(alignment), -math.inf)
    outside_BT = alignment.classes == NOWHERE
    classes_BT = alignment.classes.gather(1, source_BT).masked_fill(outside_BT, NOWHERE)
    filled = Alignment(classes_BT, alignment.indices, scores_B)
    return _made(filled, scores_B, alignment.indices.gather(1, source_BT), NOWHERE)


def of_ctc(classes_BT: Tensor, *, blank: int) -> Alignment:
    """The alignment of a path of CTC, NOWHERE beyond its end: each run of a class is a label."""
    return _read(classes_BT, blank, _changes(classes_BT))


def of_frames(classes_BT: Tensor, *, silence: int | None = None) -> Alignment:
    """The alignment of frame labels, NOWHERE beyond their end: each run of a class is a label.

    Two equal labels that touch cannot be told apart in classes, and are read as one.
    """
    return _read(classes_BT, NOWHERE if silence is None else silence, _changes(classes_BT))


def of_transducer(classes_BT: Tensor, *, blank: int) -> Alignment:
    """The alignment of a transducer's path, NOWHERE beyond its end: each frame that has no blank is a label."""
    return _read(classes_BT, blank, torch.ones_like(classes_BT, dtype=torch.bool))


def _read(classes_BT: Tensor, between: int, begins_BT: Tensor) -> Alignment:
    """An alignment in which each label begins where it may."""
    labelled_BT = (classes_BT != between) & (classes_BT != NOWHERE)
    indices_BT = (labelled_BT & begins_BT).cumsum(1) - 1
    scores_B = torch.zeros(len(classes_BT), device=classes_BT.device)
    return Alignment(classes_BT, indices_BT.where(labelled_BT, NOWHERE), scores_B)


def _made(alignment: Alignment, scores_B: Tensor, indices_BT: Tensor, between: int) -> Alignment:
    """The same frames with fewer labels, the class `between` in those that lost theirs, and none without a path."""
    outside_BT = (alignment.classes == NOWHERE) | ~(scores_B > -math.inf)[:, None]
    classes_BT = alignment.classes.where(indices_BT != NOWHERE, between)
    return Alignment(classes_BT.masked_fill(outside_BT, NOWHERE), indices_BT.masked_fill(outside_BT, NOWHERE), scores_B)


def _changes(values_BT: Tensor) -> Tensor:
    """Which frames differ from the one before [B, T]; the first does."""
    changes_BT = torch.ones_like(values_BT, dtype=torch.bool)
    changes_BT[:, 1:] = values_BT[:, 1:] != values_BT[:, :-1]
    return changes_BT


def _edges(indices_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Which frames are the first, and the last, of their label [B, T]."""
    labelled_BT = indices_BT != NOWHERE
    return _changes(indices_BT) & labelled_BT, _changes(indices_BT.flip(1)).flip(1) & labelled_BT


def _last_label(indices_BT: Tensor) -> Tensor:
    """The last frame with a label up to each frame, and the first one before that [B, T]; any where there is none."""
    time_T = torch.arange(indices_BT.size(1), device=indices_BT.device)
    labelled_BT = indices_BT != NOWHERE
    first_B1 = (~labelled_BT).cumprod(1).sum(1, keepdim=True).clamp(max=max(0, len(time_T) - 1))
    return time_T.where(labelled_BT, first_B1).cummax(1).values


def _unlabelled(alignment: Alignment) -> Tensor:
    """Which sequences have frames, and none of a label [B]."""
    return (alignment.classes != NOWHERE).any(1) & (alignment.indices == NOWHERE).all(1)


def _separate(spans: Sequence[Span]) -> list[Span]:
    """Labels of which equal ones do not touch; one that would have no frame left has none."""
    found: list[Span] = []
    for span in spans:
        if found and found[-1].label == span.label and found[-1].end == span.start:
            before = found[-1]
            spared = before.end - before.start > 1
            found[-1] = before._replace(end=before.end - spared)
            span = span._replace(start=span.start + (not spared))  # noqa: PLW2901 - the same label
        found.append(span)
    return found


def _without(indices_BT: Tensor, spans: Sequence[Sequence[Span]]) -> Tensor:
    """The indices of frames [B, T] within these spans, NOWHERE in others."""
    kept_BT = torch.full_like(indices_BT, NOWHERE, device="cpu")
    for row, one in zip(kept_BT, spans, strict=True):
        for index, span in enumerate(one):
            row[span.start : span.end] = index
    return kept_BT.to(indices_BT.device)
