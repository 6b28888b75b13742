"""Greedy and prefix-beam search of CTC, over plain log-probabilities.

Legend: B sequences, T frames, L labels, V classes, W prefixes of a beam.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from etude.model.alignment.ctc import ctc_alignment
from etude.model.alignment.result import NOWHERE, Alignment, Span
from etude.model.exact import exact
from etude.model.losses.ctc import ctc_costs
from etude.search.beam import best_first
from etude.search.fusion import NO_GAINS, Fusion, Gains, Prefix, gains_of
from etude.search.readable import readable_logs


@final
@dataclass(frozen=True, slots=True)
class Label:
    """One label that was found, and the frames that are its own: from `start` up to and without `end`."""

    label: int
    start: int
    end: int
    confidence: float
    """The mean probability of the label over its frames."""


@final
@dataclass(frozen=True, slots=True)
class Transcript:
    """The labels that were found in one sequence."""

    labels: tuple[Label, ...]
    score: float
    """The log-probability of the labels in nats: of all paths that become them."""
    fused: float = 0.0
    """What a fusion adds to it; by the sum the transcripts of a beam are ranked."""

    @property
    def tokens(self) -> Prefix:
        """The labels without their frames."""
        return tuple(one.label for one in self.labels)


@torch.no_grad()
def greedy(logs_BTV: Tensor, lengths_B: Tensor, *, blank: int = 0) -> list[Transcript]:
    """The most probable class of each frame, of equal ones the lowest; then repeats are merged and blanks dropped.

    A label's frames are its run. A sequence with a frame that is not a number counts as one without frames. Raises
    ValueError where frames are not log-probabilities.
    """
    logs_BTV = exact(logs_BTV)
    lengths_B = readable_logs(logs_BTV, lengths_B)
    runs = _runs(logs_BTV, lengths_B, blank)
    return _transcripts(logs_BTV, lengths_B, runs, [_labels(spans) for spans in runs.spans()], blank)


@torch.no_grad()
def beam(
    logs_BTV: Tensor,
    lengths_B: Tensor,
    *,
    width: int,
    classes: int = 40,
    blank: int = 0,
    fusion: Fusion | None = None,
) -> list[list[Transcript]]:
    """The `width` most probable label sequences of each sequence, best first, by prefix search with a beam.

    Paths that become the same labels are summed (Graves 2006, section 3.2; Hannun et al. 2014, "First-Pass Large
    Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent DNNs"): at each frame the `width` best
    prefixes go on by the `classes` most probable classes. What is found, and what `greedy` finds, is then ranked by its
    exact log-probability and what `fusion` adds, equal ones by their labels; so without fusion the best is never below
    the greedy one. A label's frames are those of the best path. A frame costs width to width x classes steps of
    Python, with fusion always the latter. Takes what `greedy` takes.
    """
    logs_BTV = exact(logs_BTV)
    lengths_B = readable_logs(logs_BTV, lengths_B)
    firsts = _runs(logs_BTV, lengths_B, blank).spans()
    gains = [gains_of(fusion) for _ in firsts]
    texts = [
        {_labels(first), *_prefixes(logs_TV[:frames], width, classes, blank, own)}
        for logs_TV, frames, first, own in zip(logs_BTV, lengths_B.tolist(), firsts, gains, strict=True)
    ]
    scored = zip(_scored(logs_BTV, lengths_B, texts, blank), gains, strict=True)
    return [best_by(own, found)[:width] for found, own in scored]


@torch.no_grad()
def timed(logs_BTV: Tensor, lengths_B: Tensor, texts: Sequence[Prefix], *, blank: int = 0) -> list[Transcript]:
    """Given labels of each sequence, such as another search found, with their frames on CTC's best path.

    Labels that do not fit their frames are left out, with a score of -inf. Takes what `greedy` takes.
    """
    logs_BTV = exact(logs_BTV)
    lengths_B = readable_logs(logs_BTV, lengths_B)
    return [found for (found,) in _scored(logs_BTV, lengths_B, [{tuple(text)} for text in texts], blank)]


def best_by(gains: Gains, found: list[Transcript]) -> list[Transcript]:
    """The same with what fusion adds to each, best first; equal ones as they stood."""
    fused = [replace(one, fused=gains.ended(one.tokens)) for one in found]
    return sorted(fused, key=lambda one: -one.score - one.fused)


def _labels(spans: Sequence[Span]) -> Prefix:
    return tuple(span.label for span in spans)


def _runs(logs_BTV: Tensor, lengths_B: Tensor, blank: int) -> Alignment:
    """The path of the most probable classes."""
    path_BT = logs_BTV.argmax(-1)  # argmax promises the first of equal ones
    path_BT[torch.arange(path_BT.size(1), device=path_BT.device) >= lengths_B[:, None]] = blank
    is_label_BT = path_BT != blank
    begins_BT = is_label_BT.clone()
    begins_BT[:, 1:] &= path_BT[:, 1:] != path_BT[:, :-1]
    indices_BT = torch.where(is_label_BT, begins_BT.cumsum(1) - 1, NOWHERE)
    scores_B = torch.zeros_like(lengths_B, dtype=logs_BTV.dtype)
    return Alignment(path_BT, indices_BT, scores_B)


def _transcripts(
    logs_BTV: Tensor, lengths_B: Tensor, alignment: Alignment, texts: Sequence[Prefix], blank: int
) -> list[Transcript]:
    """The labels of each sequence with their frames in an alignment, and the probability of all their paths."""
    costs = ctc_costs(logs_BTV, lengths_B, *padded(texts, lengths_B.device), blank=blank).tolist()
    shares = logs_BTV.gather(2, alignment.classes.clamp(min=0)[..., None])[..., 0].exp().tolist()
    labels = map(_confident, alignment.spans(), shares)
    return [Transcript(found, -cost) for found, cost in zip(labels, costs, strict=True)]


def _confident(spans: Sequence[Span], shares: Sequence[float]) -> tuple[Label, ...]:
    """The labels with the means of these shares over their frames."""
    return tuple(Label(*span, math.fsum(shares[span.start : span.end]) / (span.end - span.start)) for span in spans)


def padded(texts: Sequence[Prefix], device: torch.device) -> tuple[Tensor, Tensor]:
    """Labels [B, L], padded with any, and how many there are of each [B]."""
    lengths = [len(text) for text in texts]
    targets_BL = torch.zeros(len(texts), max(lengths, default=0), dtype=torch.int64)
    for row, text in zip(targets_BL, texts, strict=True):
        row[: len(text)] = torch.tensor(text, dtype=torch.int64)
    return targets_BL.to(device), torch.tensor(lengths, dtype=torch.int64, device=device)


def _scored(logs_BTV: Tensor, lengths_B: Tensor, texts: list[set[Prefix]], blank: int) -> list[list[Transcript]]:
    """The label sequences of each sequence with their exact probability, in the order of their labels.

    All are aligned at once, over the classes that occur in a sequence's texts alone: the blank, then the others.
    """
    ordered = [sorted(one) for one in texts]
    tables = [[blank, *sorted({label for text in one for label in text})] for one in ordered]
    counts = torch.tensor([len(one) for one in ordered], dtype=torch.int64, device=lengths_B.device)
    logs_NTV = _columns(logs_BTV, tables).repeat_interleave(counts, 0)
    lengths_N = lengths_B.repeat_interleave(counts)
    short = [_places(text, table) for one, table in zip(ordered, tables, strict=True) for text in one]
    paths = ctc_alignment(logs_NTV, lengths_N, *padded(short, lengths_B.device))
    found = iter(_transcripts(logs_NTV, lengths_N, paths, short, 0))
    return [[_renamed(next(found), table) for _ in one] for one, table in zip(ordered, tables, strict=True)]


def _columns(logs_BTV: Tensor, tables: list[list[int]]) -> Tensor:
    """The classes of these tables, padded with the first."""
    longest = max(map(len, tables), default=1)
    padded = [table + table[:1] * (longest - len(table)) for table in tables]
    columns_BC = torch.tensor(padded, dtype=torch.int64, device=logs_BTV.device).view(-1, longest)
    return logs_BTV.gather(2, columns_BC[:, None].expand(-1, logs_BTV.size(1), -1))


def _places(text: Prefix, table: list[int]) -> Prefix:
    """The places of labels in a table."""
    return tuple(map(table.index, text))


def _renamed(found: Transcript, table: list[int]) -> Transcript:
    """The same with the labels instead of their places in a table."""
    labels = (Label(table[one.label], one.start, one.end, one.confidence) for one in found.labels)
    return Transcript(tuple(labels), found.score)


# -- prefixes ------------------------------------------------------------------------------------------------------


@final
@dataclass(slots=True)
class _Mass:
    """The log-probability of the paths that become a prefix: of those that end with a blank, and with its label."""

    blank: float = -math.inf
    label: float = -math.inf

    @property
    def total(self) -> float:
        """Of both."""
        return added(self.blank, self.label)

    def before(self, label: int, prefix: Prefix) -> float:
        """Of those that this label makes longer: after itself only those that end with a blank."""
        return self.blank if prefix[-1:] == (label,) else self.total


_NOTHING = _Mass()


def added(one: float, other: float) -> float:
    """The log of the sum of two exponentials."""
    larger, smaller = max(one, other), min(one, other)
    return larger if smaller == -math.inf else larger + math.log1p(math.exp(smaller - larger))


def _prefixes(logs_TV: Tensor, width: int, classes: int, blank: int, gains: Gains = NO_GAINS) -> list[Prefix]:
    """The most probable prefixes after the last frame, best first; none that is impossible."""
    live: dict[Prefix, _Mass] = {(): _Mass(blank=0.0)}
    likely = best_first(logs_TV, classes)[1].tolist()
    for logs, ways in zip(logs_TV.tolist(), likely, strict=True):
        stayed = _stayed(live, logs, blank)
        floor = _floor(stayed, width, gains)
        labels = [(label, logs[label]) for label in ways if label != blank]
        gains.prepare(list(live))
        for prefix, mass in live.items():
            stayed |= _longer(prefix, mass, labels, floor, live)
        live = _best(stayed, width, gains)
        gains.forget()
    return list(live)


def _floor(stayed: dict[Prefix, _Mass], width: int, gains: Gains) -> float:
    """What is below the last of a full beam cannot come into it; but what fusion adds may lift it."""
    if gains.acts or len(stayed) < width:
        return -math.inf
    return min(mass.total for mass in stayed.values())


def _stayed(live: dict[Prefix, _Mass], logs: list[float], blank: int) -> dict[Prefix, _Mass]:
    """Live prefixes after one more frame: by a blank, their last label again, or that label after a live one."""
    found = {}
    for prefix, mass in live.items():
        last = prefix[-1] if prefix else blank
        come = live.get(prefix[:-1], _NOTHING).before(last, prefix[:-1]) if prefix else -math.inf
        found[prefix] = _Mass(mass.total + logs[blank], added(mass.label, come) + logs[last])
    return found


def _longer(
    prefix: Prefix, mass: _Mass, ways: list[tuple[int, float]], floor: float, live: dict[Prefix, _Mass]
) -> dict[Prefix, _Mass]:
    """Prefixes of one label more that were not live, down to `floor`; `ways` are labels, the most probable first."""
    found = {}
    total = mass.total
    for label, log in ways:
        if total + log < floor:
            break
        longer = (*prefix, label)
        if longer not in live:
            found[longer] = _Mass(label=mass.before(label, prefix) + log)
    return found


def _best(found: dict[Prefix, _Mass], width: int, gains: Gains) -> dict[Prefix, _Mass]:
    """The most probable ones, of equal ones those with the lower labels."""
    ranked = sorted((-mass.total, prefix) for prefix, mass in found.items())
    if gains.acts:
        ranked = sorted((score - gains(prefix), prefix) for score, prefix in ranked)
    return {prefix: found[prefix] for score, prefix in ranked[:width] if score < math.inf}
