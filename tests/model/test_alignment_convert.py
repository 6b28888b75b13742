"""Laws of conversions: labels and their order are kept, and of times what each topology can hold."""

import math
from itertools import groupby, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.model.alignment.convert import of_ctc, of_frames, of_transducer, to_ctc, to_frames, to_transducer
from etude.model.alignment.hmm import hmm_alignment
from etude.model.alignment.result import NOWHERE, Span

BLANK, SILENCE = 0, 7
classes = st.lists(st.lists(st.integers(0, 2), max_size=7), min_size=1, max_size=3)


def padded(rows):
    longest = max(map(len, rows))
    return torch.tensor([row + [NOWHERE] * (longest - len(row)) for row in rows], dtype=torch.int64)


def labels(alignment):
    return [[span.label for span in spans] for spans in alignment.spans()]


def starts(alignment):
    return [[span.start for span in spans] for spans in alignment.spans()]


def same(one, other):
    return torch.equal(one.classes, other.classes) and torch.equal(one.indices, other.indices)


@given(classes)
@settings(max_examples=100, deadline=None)
def test_classes_read_as_each_topology_has_them(rows):
    ctc, transducer = of_ctc(padded(rows), blank=BLANK), of_transducer(padded(rows), blank=BLANK)

    assert labels(ctc) == [[label for label, _ in groupby(row) if label != BLANK] for row in rows]
    assert labels(transducer) == [[label for label in row if label != BLANK] for row in rows]
    assert same(ctc, of_frames(padded(rows), silence=BLANK))
    assert labels(of_frames(padded(rows))) == [[label for label, _ in groupby(row)] for row in rows]
    assert torch.equal(ctc.classes, padded(rows))


@given(classes)
@settings(max_examples=100, deadline=None)
def test_ctc_becomes_frame_labels_with_silence_and_comes_back_as_it_was(rows):
    ctc = of_ctc(padded(rows), blank=BLANK)

    frames = to_frames(ctc, silence=SILENCE)

    assert frames.spans() == ctc.spans()
    assert not (frames.classes == BLANK).any()
    assert same(to_ctc(frames, blank=BLANK), ctc)


@given(classes)
@settings(max_examples=100, deadline=None)
def test_frame_labels_without_silence_keep_each_start_and_last_until_the_next(rows):
    ctc = of_ctc(padded(rows), blank=BLANK)

    frames = to_frames(ctc)

    assert labels(frames) == labels(ctc)
    for row, own, spans in zip(rows, ctc.spans(), frames.spans(), strict=True):
        if own:
            assert [span.start for span in spans] == [0, *(span.start for span in own[1:])]
            assert [span.end for span in spans] == [*(span.start for span in own[1:]), len(row)]


@given(classes)
@settings(max_examples=100, deadline=None)
@pytest.mark.parametrize(("at", "edge"), [("first", 1), ("last", 2)])
def test_a_transducers_label_is_in_the_first_or_last_frame_of_its_own(at, edge, rows):
    ctc = of_ctc(padded(rows), blank=BLANK)

    path = to_transducer(ctc, blank=BLANK, at=at)

    assert labels(path) == labels(ctc)
    assert starts(path) == [[span[edge] - (edge == 2) for span in spans] for spans in ctc.spans()]
    assert all(span.end - span.start == 1 for spans in path.spans() for span in spans)
    assert same(of_transducer(path.classes, blank=BLANK), path)


@given(classes)
@settings(max_examples=100, deadline=None)
def test_a_transducers_path_comes_back_from_frame_labels_as_it_was(rows):
    path = of_transducer(padded(rows), blank=BLANK)

    with_silence = to_transducer(to_frames(path, silence=SILENCE), blank=BLANK)
    without = to_transducer(to_frames(path), blank=BLANK)

    assert same(with_silence, path)
    assert labels(without) == labels(path)
    assert [one[1:] for one in starts(without)] == [one[1:] for one in starts(path)]


@given(classes)
@settings(max_examples=100, deadline=None)
def test_what_becomes_ctc_reads_as_the_same_labels_or_has_no_path(rows):
    path = of_transducer(padded(rows), blank=BLANK)

    found = to_ctc(path, blank=BLANK)

    read = of_ctc(found.classes, blank=BLANK)
    for at, row in enumerate(rows):
        touch = any(a == b != BLANK for a, b in pairwise(row))
        assert float(found.scores[at]) == (-math.inf if touch else 0.0)
        assert read.spans()[at] == found.spans()[at] == ([] if touch else path.spans()[at])


@given(st.lists(st.tuples(st.integers(1, 2), st.integers(1, 3)), min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_a_blank_between_equal_labels_takes_one_frame_and_no_other_changes(runs):
    frames, indices = [], []
    for index, (label, count) in enumerate(runs):
        frames += [label] * count
        indices += [index] * count
    whole = of_frames(torch.tensor([frames]))
    alignment = type(whole)(whole.classes, torch.tensor([indices]), whole.scores)

    found = to_ctc(alignment, blank=BLANK)

    touching = sum(a[0] == b[0] for a, b in pairwise(runs))
    if torch.isinf(found.scores).item():
        assert not any(fits(choice, runs) for choice in range(2**touching))
    else:
        assert labels(of_ctc(found.classes, blank=BLANK)) == [[label for label, _ in runs]]
        assert (found.classes != whole.classes).sum() == touching


def fits(choice, runs):
    """Whether every label keeps a frame where bits choose which of two equal neighbours gives one."""
    left = [count for _, count in runs]
    for index in range(len(runs) - 1):
        if runs[index][0] == runs[index + 1][0]:
            left[index + choice % 2] -= 1
            choice //= 2
    return min(left) > 0


def test_equal_labels_of_a_hidden_markov_model_are_kept_apart():
    found = hmm_alignment(torch.zeros(1, 4, 3), torch.tensor([4]), torch.tensor([[2, 2]]), torch.tensor([2]))

    assert to_ctc(found, blank=0).spans() == [[Span(2, 0, 1), Span(2, 2, 4)]]
    assert labels(of_ctc(to_ctc(found, blank=0).classes, blank=0)) == [[2, 2]]
    assert labels(to_transducer(found, blank=0)) == [[2, 2]]


def test_a_sequence_without_a_path_has_none_after_any_conversion():
    classes = torch.full((2, 4), NOWHERE)
    classes[1] = torch.tensor([0, 0, 1, 0])
    whole = of_ctc(classes, blank=BLANK)
    without = type(whole)(whole.classes, whole.indices, torch.tensor([-math.inf, -2.5]))

    for found in (
        to_ctc(without, blank=9),
        to_frames(without),
        to_frames(without, silence=9),
        to_transducer(without, blank=9),
    ):
        assert (found.classes[0] == NOWHERE).all()
        assert found.scores.tolist() == [-math.inf, -2.5]
        assert not (found.classes[1] == 0).any()


def test_frames_without_a_label_are_silence_or_have_no_path():
    found = of_ctc(torch.tensor([[0, 0, NOWHERE], [NOWHERE] * 3]), blank=0)

    assert to_frames(found, silence=SILENCE).classes.tolist() == [[SILENCE, SILENCE, NOWHERE], [NOWHERE] * 3]
    assert to_frames(found).scores.tolist() == [-math.inf, 0.0]
    assert (to_frames(found).classes == NOWHERE).all()


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
def test_nothing_becomes_nothing(shape):
    nothing = torch.zeros(shape, dtype=torch.int64)

    for read in (of_ctc(nothing, blank=0), of_transducer(nothing, blank=0), of_frames(nothing)):
        for made in (to_ctc(read, blank=0), to_frames(read), to_frames(read, silence=1), to_transducer(read, blank=0)):
            assert (made.classes.shape, made.indices.shape, made.scores.shape) == (shape, shape, shape[:1])


def test_every_conversion_leaves_what_it_was_given_as_it_was():
    given = of_frames(torch.tensor([[1, 1, 2, NOWHERE]]))
    before = [part.clone() for part in vars(given).values()]

    to_ctc(given, blank=0), to_transducer(given, blank=0), to_frames(given)

    assert all(map(torch.equal, before, vars(given).values()))
