"""Laws of labels that are found again in the classes of frames."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from etude.model.alignment import Span, ctc_alignment, linear_alignment
from etude.model.alignment.hmm import hmm_alignment
from etude.model.alignment.labelled import labelled_spans

LABELS = st.lists(st.integers(1, 3), max_size=5)


def logs(frames, seed):
    return torch.randn(1, frames, 4, generator=torch.Generator().manual_seed(seed)).log_softmax(-1)


def of(labels):
    return torch.tensor([labels], dtype=torch.int64).view(1, -1), torch.tensor([len(labels)])


@given(LABELS, st.integers(0, 8), st.integers(0, 99))
def test_a_path_of_ctc_is_read_as_it_was_found(labels, more, seed):
    frames = 2 * len(labels) + more
    path = ctc_alignment(logs(frames, seed), torch.tensor([frames]), *of(labels), blank=0)

    spans = labelled_spans(path.classes[0].tolist(), labels, between=0)

    assert spans == path.spans()[0]


@given(LABELS, st.integers(0, 8), st.integers(0, 99))
def test_a_path_of_a_hidden_markov_model_is_read_but_for_where_equal_labels_touch(labels, more, seed):
    frames = len(labels) + more
    path = hmm_alignment(logs(frames, seed), torch.tensor([frames]), *of(labels), silence=0)
    found = path.spans()[0]

    spans = labelled_spans(path.classes[0].tolist(), labels, between=0)

    assert [span.label for span in spans] == labels
    for before, after, one, other in zip(spans, spans[1:], found, found[1:], strict=False):
        assert before.start < before.end <= after.start
        if before.label != after.label:
            assert (before.end, after.start) == (one.end, other.start)
    assert {t for s in spans for t in range(s.start, s.end)} == {t for s in found for t in range(s.start, s.end)}


def test_frames_of_equal_labels_that_touch_are_divided_evenly():
    path = linear_alignment(8, torch.tensor([8]), torch.tensor([[7, 7, 9, 9]]), torch.tensor([4]))

    assert labelled_spans(path.classes[0].tolist(), [7, 7, 9, 9], between=None) == path.spans()[0]


def test_of_runs_with_a_gap_the_longest_has_the_labels_that_are_more():
    found = labelled_spans([5, 0, 5, 5, 5, 5], [5, 5, 5], between=0)

    assert found == [Span(5, 0, 1), Span(5, 2, 4), Span(5, 4, 6)]


@pytest.mark.parametrize(("classes", "labels"), [([1, 2], [1]), ([1], [1, 2]), ([2, 1], [1, 2]), ([1, 0, 1], [1])])
def test_classes_of_other_labels_are_refused(classes, labels):
    with pytest.raises(ValueError, match="not those of an alignment of these labels"):
        labelled_spans(classes, labels, between=0)


def test_nothing_is_read_of_nothing():
    assert labelled_spans([], [], between=0) == labelled_spans([0, 0], [], between=0) == []
