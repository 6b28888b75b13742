"""Where labels lie, from the classes of frames and the labels that they are of."""

from collections.abc import Iterator, Sequence
from itertools import groupby, takewhile

from etude.model.alignment.result import Span


def labelled_spans(classes: Sequence[int], labels: Sequence[int], *, between: int | None) -> list[Span]:
    """The frames of each label, in order, of classes that were aligned with them; `between` is of none.

    Equal labels that touch cannot be told apart in classes: their frames are divided evenly among them, the first ones
    of a remainder. Raises ValueError for classes that are not those of the labels.

    >>> labelled_spans([0, 5, 5, 5, 0, 7], [5, 5, 7], between=0)
    [Span(label=5, start=1, end=3), Span(label=5, start=3, end=4), Span(label=7, start=5, end=6)]
    """
    runs = [run for run in _runs(classes) if run.label != between]
    found: list[Span] = []
    for label, same in groupby(labels):
        count = len(list(same))
        own = _first(runs[:count], label)
        found += _divided(own, count)
        runs = runs[len(own) :]
    if runs or [span.label for span in found] != list(labels):
        raise ValueError("The classes of frames are not those of an alignment of these labels.")
    return found


def _first(runs: Sequence[Span], label: int) -> list[Span]:
    """Those that have the label, up to one that has another."""
    return list(takewhile(lambda run: run.label == label, runs))


def _runs(classes: Sequence[int]) -> Iterator[Span]:
    """Neighbouring frames of the same class."""
    start = 0
    for label, same in groupby(classes):
        end = start + len(list(same))
        yield Span(label, start, end)
        start = end


def _divided(runs: Sequence[Span], count: int) -> Iterator[Span]:
    """So many equal labels over their runs: one in each, and where they are more, the most in the longest."""
    counts = [1] * len(runs)
    for _ in range(count - len(runs) if runs else 0):
        fullest = max(range(len(runs)), key=lambda at: _length(runs[at]) / counts[at])
        counts[fullest] += 1
    for run, own in zip(runs, counts, strict=True):
        yield from _evenly(run, own)


def _evenly(run: Span, count: int) -> Iterator[Span]:
    size, more = divmod(_length(run), count)
    start = run.start
    for number in range(count):
        end = start + size + (number < more)
        yield Span(run.label, start, end)
        start = end


def _length(span: Span) -> int:
    return span.end - span.start
