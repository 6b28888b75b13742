"""Laws of words: they are those of the decoded text, with times that follow one another."""

import json

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.data.tokens.config import BpeConfig, CharConfig, UnigramConfig, WordpieceConfig
from etude.data.tokens.tokenizers import EOS, PAD, REPLACEMENT, UNK, tokenizer_from
from etude.data.tokens.training import train_tokenizer
from etude.search.ctc import Label
from etude.search.words import Clock, Word, words

TEXTS = ["the cat sat on the mat", "größer als öde Äpfel", "naïve café déjà vu", "日本 語 のテキスト", "a b c"] * 5
CONFIGS = [BpeConfig(vocab_size=280), CharConfig(), UnigramConfig(vocab_size=300), WordpieceConfig(vocab_size=280)]
SECOND = Clock(1.0)


def trained(config):
    return train_tokenizer(config, TEXTS)


def foreign():
    """WordPiece as BERT has it, whose decoder joins pieces that begin with ##."""
    vocabulary = {"[UNK]": 0, "the": 1, "cat": 2, "##s": 3, ".": 4, "don": 5, "'": 6, "t": 7, "n": 8}
    library = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106 - no password
    library.decoder = tokenizers.decoders.WordPiece(prefix="##", cleanup=True)
    return tokenizer_from(library.to_str(), name="BERT's")


def spelled(*ids, frames=1):
    return [Label(label, at * frames, at * frames + frames, 0.5) for at, label in enumerate(ids)]


def of_characters(text):
    """Labels of one frame each, and what decodes them."""
    return spelled(*map(ord, text)), lambda ids: "".join(map(chr, ids))


@st.composite
def labels_of(draw, size):
    """Labels in order of their frames, several in one at times, as a transducer may give them."""
    ids = draw(st.lists(st.integers(0, size - 1), max_size=12))
    steps = draw(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), min_size=len(ids), max_size=len(ids)))
    found, start = [], 0
    for label, (gap, frames) in zip(ids, steps, strict=True):
        start += gap
        found.append(Label(label, start, start + frames, draw(st.floats(0, 1))))
    return found


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.type)
def test_words_are_those_of_the_decoded_text_and_follow_one_another(config):
    tokenizer = trained(config)

    @given(labels_of(tokenizer.size), st.floats(1e-3, 1), st.floats(0, 1e3))
    @settings(max_examples=40, deadline=None)
    def holds(labels, seconds, offset):
        found = words(labels, tokenizer.decode, Clock(seconds, offset))

        assert [word.text for word in found] == tokenizer.decode([one.label for one in labels]).split()
        times = [time for word in found for time in (word.start, word.end)]
        assert times == sorted(times)
        assert all(0 <= word.confidence <= 1 for word in found)
        if found:
            assert times[0] >= offset + labels[0].start * seconds
            assert times[-1] <= offset + max(label.end for label in labels) * seconds

    holds()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.type)
@pytest.mark.parametrize("text", TEXTS[:5])
def test_each_word_has_the_frames_of_its_own_labels(config, text):
    tokenizer = trained(config)
    ids = tokenizer.encode(text)

    found = words(spelled(*ids, frames=2), tokenizer.decode, SECOND)

    parts = text.split()
    ends = [len(tokenizer.encode(" ".join(parts[: n + 1]))) for n in range(len(parts))]
    assert [(word.text, word.end) for word in found] == [(part, 2 * end) for part, end in zip(parts, ends, strict=True)]
    starts = [0, *ends[:-1]]
    spaces = [tokenizer.decode([ids[start]] * 2).isspace() for start in starts]  # a space with a label of its own
    assert [word.start for word in found] == [2 * (start + space) for start, space in zip(starts, spaces, strict=True)]


def test_characters_become_words_between_spaces():
    labels, decode = of_characters(" so  it is ")

    found = words(labels, decode, Clock(0.02, offset=1.0))

    assert [word.text for word in found] == ["so", "it", "is"]
    assert [word.start for word in found] == pytest.approx([1.02, 1.1, 1.16])
    assert [word.end for word in found] == pytest.approx([1.06, 1.14, 1.2])


def test_gaps_and_confidences_are_those_of_the_labels():
    labels = [Label(1, 3, 5, 0.9), Label(2, 9, 10, 0.6), Label(0, 12, 13, 0.1), Label(1, 13, 14, 0.3)]

    found = words(labels, lambda ids: "".join(" ab"[label] for label in ids), SECOND)

    assert found == [Word("ab", 3.0, 10.0, pytest.approx(0.75)), Word("a", 13.0, 14.0, pytest.approx(0.3))]


def test_a_character_of_several_bytes_begins_with_its_first_one():
    table = [b" x", b"\xe2", b"\x82", b"\xac", b" y"]

    found = words(
        spelled(0, 4, 1, 2, 3, 0), lambda ids: b"".join(table[i] for i in ids).decode(errors="replace"), SECOND
    )

    assert [(word.text, word.start, word.end) for word in found] == [("x", 0, 1), ("y€", 1, 5), ("x", 5, 6)]


def test_bytes_that_are_no_character_and_unknown_labels_stay_where_they_are():
    table = [b"x", b"\xe2", b" y"]

    found = words(spelled(1, 0, 1, 2, 1), lambda ids: b"".join(table[i] for i in ids).decode(errors="replace"), SECOND)

    assert [(word.text, word.start, word.end) for word in found] == [
        (f"{REPLACEMENT}x{REPLACEMENT}", 0, 3),
        (f"y{REPLACEMENT}", 3, 5),
    ]


def test_labels_that_spell_nothing_are_of_no_word():
    tokenizer = trained(CharConfig())
    ids = [PAD, *tokenizer.encode("a b"), EOS]

    found = words(spelled(*ids), tokenizer.decode, SECOND)
    unknown = words(spelled(UNK, PAD), tokenizer.decode, SECOND)

    assert [(word.text, word.start, word.end) for word in found] == [("a", 1, 2), ("b", 3, 4)]
    assert [(word.text, word.start, word.end) for word in unknown] == [(REPLACEMENT, 0, 1)]


def test_pieces_that_a_decoder_joins_are_one_word():
    tokenizer = foreign()
    ids = [label + 4 for label in (1, 2, 3, 4, 5, 6, 7)]

    found = words(spelled(*ids), tokenizer.decode, SECOND)

    assert [word.text for word in found] == tokenizer.decode(ids).split()
    assert [(word.text, word.start, word.end) for word in found[:2]] == [("the", 0, 1), ("cats.", 1, 4)]


def test_a_label_that_spells_several_words_gives_each_its_share():
    found = words(
        [Label(0, 4, 10, 0.5), Label(1, 10, 11, 1.0)], lambda ids: "".join(["of a c", "d"][i] for i in ids), SECOND
    )

    assert [(word.text, word.start, word.end) for word in found] == [("of", 4, 7), ("a", 7, 8.5), ("cd", 8.5, 11)]
    assert [word.confidence for word in found] == [0.5, 0.5, 0.75]


def test_a_decoder_that_looks_far_back_is_still_believed():
    def decode(ids):
        """Labels from last to first: none reads as it does alone."""
        return "".join(map(chr, reversed(ids)))

    labels, _ = of_characters("tac eht")

    assert [word.text for word in words(labels, decode, SECOND)] == ["the", "cat"]


def test_of_two_words_in_one_frame_the_first_ends_where_the_second_begins():
    labels = [Label(0, 2, 3, 1.0), Label(1, 2, 3, 1.0), Label(0, 5, 9, 1.0), Label(1, 6, 7, 1.0)]

    found = words(labels, lambda ids: "".join([" a", " b"][i] for i in ids), SECOND)

    assert [(word.text, word.start, word.end) for word in found] == [("a", 2, 2), ("b", 2, 3), ("a", 5, 6), ("b", 6, 7)]


def test_nothing_said_is_no_word():
    assert words([], lambda ids: json.dumps(ids)[1:-1], SECOND) == []
    assert words(spelled(0, 0), lambda ids: " " * len(ids), SECOND) == []


@pytest.mark.parametrize("wrong", [(0.0,), (-1.0,), (float("nan"),), (float("inf"),), (1.0, float("nan"))])
def test_frames_that_last_no_time_are_refused(wrong):
    with pytest.raises(ValueError, match="must last a positive time"):
        Clock(*wrong)
