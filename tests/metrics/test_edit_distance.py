"""Laws of error rates: the counts are those of jiwer 4.0, and no edits are fewer."""

from functools import cache

import jiwer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.metrics.edit_distance import CharacterErrorRate, Edits, TokenErrorRate, WordErrorRate, edits

REFERENCES = ["the cat sat on the mat", "hello  world", "", "one two three four five", "a b c a b c", " it is so "]
HYPOTHESES = [
    "the cat mat sat on",
    "hello duck world",
    "put in",
    "two three for five six seven",
    "b a c b a",
    "itis so",
]
WORDS = [(4, 0, 2, 1), (2, 0, 0, 1), (0, 0, 0, 2), (3, 1, 1, 2), (3, 1, 2, 1), (1, 1, 1, 0)]
CHARACTERS = [(13, 5, 4, 0), (12, 0, 0, 4), (0, 0, 0, 6), (18, 0, 5, 10), (6, 3, 2, 0), (7, 0, 1, 0)]
"""Hits, substitutions, deletions and insertions of each line, as jiwer 4.0 counts them."""
KINDS = [(WordErrorRate, WORDS), (CharacterErrorRate, CHARACTERS)]
few = st.lists(st.sampled_from("abc"), max_size=8)
texts = st.lists(st.sampled_from(["one", "two", "to", "zwölf", "o", "日本"]), max_size=9).map(" ".join)
lines = st.lists(st.tuples(texts, texts), min_size=1, max_size=4)


def fewest(one, other):
    """The edit distance by its definition."""

    @cache
    def of(m, n):
        if not m or not n:
            return m + n
        return min(of(m - 1, n) + 1, of(m, n - 1) + 1, of(m - 1, n - 1) + (one[m - 1] != other[n - 1]))

    return of(len(one), len(other))


@pytest.mark.parametrize(("kind", "counts"), KINDS)
def test_every_kind_of_error_is_counted_as_jiwer_does(kind, counts):
    for reference, hypothesis, wanted in zip(REFERENCES, HYPOTHESES, counts, strict=True):
        metric = kind()

        metric.update([hypothesis], [reference])

        assert metric.edits == Edits(*wanted)


@pytest.mark.parametrize(("kind", "rate"), [(WordErrorRate, 16 / 22), (CharacterErrorRate, 40 / 76)])
def test_errors_are_pooled_over_the_corpus_empty_references_too(kind, rate):
    metric = kind()

    metric.update(HYPOTHESES, REFERENCES)

    assert metric.compute() == pytest.approx(rate, rel=1e-15)


@given(lines)
@settings(max_examples=100, deadline=None)
@pytest.mark.parametrize(
    ("kind", "process"), [(WordErrorRate, jiwer.process_words), (CharacterErrorRate, jiwer.process_characters)]
)
def test_any_corpus_has_the_counts_and_the_rate_of_jiwer(kind, process, pairs):
    references, hypotheses = map(list, zip(*pairs, strict=True))
    metric = kind()

    metric.update(hypotheses, references)

    wanted = process(references, hypotheses)
    assert metric.edits == Edits(wanted.hits, wanted.substitutions, wanted.deletions, wanted.insertions)
    rate = wanted.wer if kind is WordErrorRate else wanted.cer
    assert metric.compute() == pytest.approx(rate, rel=1e-12)


@given(few, few)
@settings(max_examples=150, deadline=None)
def test_no_edits_are_fewer_and_their_lengths_add_up(reference, hypothesis):
    found = edits(reference, hypothesis)

    assert found.errors == fewest(reference, hypothesis)
    assert found.reference == len(reference)
    assert found.hits + found.substitutions + found.insertions == len(hypothesis)


def test_sequences_longer_than_a_word_of_the_machine_are_counted_whole():
    reference, hypothesis = list(range(300)), [*range(5, 150), -1, *range(151, 300), *range(7)]

    assert edits(reference, hypothesis) == Edits(hits=294, substitutions=1, deletions=5, insertions=7)


@pytest.mark.parametrize(
    ("hypotheses", "references", "rate"),
    [([[]], [[1, 2]], 1.0), ([[1, 2, 3]], [[]], 3.0), ([[]], [[]], 0.0), ([[3, 2, 1, 5], [7]], [[3, 1], []], 1.5)],
)
def test_nothing_said_is_deletions_and_nothing_to_say_is_insertions(hypotheses, references, rate):
    metric = TokenErrorRate()

    metric.update(hypotheses, references)

    assert metric.compute() == rate


def test_hypotheses_without_their_references_are_refused():
    with pytest.raises(ValueError, match="2 hypotheses cannot be compared with 1 references"):
        WordErrorRate().update(["a", "b"], ["a"])
