"""Laws of search in pieces: whatever the pieces, what is found is what the whole gives, and nothing grows with it."""

import gc
import math
import types

import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.base.errors import DataError
from etude.data.tokens.config import BpeConfig, CharConfig, UnigramConfig, WordpieceConfig
from etude.data.tokens.tokenizers import tokenizer_from
from etude.data.tokens.training import train_tokenizer
from etude.model.frames.transducer import TransducerConfig, TransducerHead
from etude.model.initialisers import initialise
from etude.search import ctc, transducer
from etude.search.ctc import Label
from etude.search.streaming import LONGEST, CtcStream, TransducerStream, WordStream
from etude.search.words import Clock, words

TEXTS = ["the cat sat on the mat", "größer als öde Äpfel", "naïve café déjà vu", "日本 語 のテキスト", "a b c"] * 5
CONFIGS = [BpeConfig(vocab_size=280), CharConfig(), UnigramConfig(vocab_size=300), WordpieceConfig(vocab_size=280)]
WIDTH = 4
sizes = st.lists(st.integers(0, 5), max_size=30)


def in_pieces(stream, frames, pieces):
    found, first = [], 0
    for size in [*pieces, frames.size(1)]:
        found += stream.push(frames[:, first : first + size])
        first += size
    return [*found, *stream.end()]


@given(st.integers(0, 1000), st.integers(0, 40), sizes, st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_ctc_in_pieces_finds_what_it_finds_in_the_whole(seed, frames, pieces, blank):
    draw = torch.Generator().manual_seed(seed)
    logs = torch.randn(1, frames, 4, generator=draw).mul(3).log_softmax(-1)
    whole = ctc.greedy(logs, torch.tensor([frames]), blank=blank)

    found = in_pieces(CtcStream(lambda frames: frames, blank), logs, pieces)

    assert tuple(found) == whole[0].labels


@given(st.integers(0, 1000), st.integers(0, 12), sizes, st.sampled_from(["stateless", "lstm"]), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_a_transducer_in_pieces_finds_what_it_finds_in_the_whole(seed, frames, pieces, predictor, most):
    config = TransducerConfig(predictor=predictor, d_model=5, joint=6, dropout=0.0)
    head = TransducerHead(config, WIDTH, 4)
    initialise(head, seed)
    head = head.double().eval()
    encoded = torch.randn(1, frames, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).mul(4)
    (whole,) = transducer.greedy(head, encoded, torch.tensor([frames]), most=most)

    found = in_pieces(TransducerStream(head, most, torch.device("cpu")), encoded, pieces)

    assert [one[:3] for one in map(facts, found)] == [one[:3] for one in map(facts, whole.labels)]
    assert [one.confidence for one in found] == pytest.approx([one.confidence for one in whole.labels], abs=1e-12)


def facts(label):
    return label.label, label.start, label.end, label.confidence


@pytest.mark.parametrize("kind", ["ctc", "transducer"])
def test_a_frame_that_is_no_number_ends_a_stream_in_a_sentence(kind):
    head = TransducerHead(TransducerConfig(d_model=5, joint=6), WIDTH, 4).eval()
    streams = {"ctc": CtcStream(lambda logs: logs, 0), "transducer": TransducerStream(head, 5, torch.device("cpu"))}
    frames = torch.zeros(1, 3, WIDTH)
    streams[kind].push(frames)
    frames[0, 1] = math.nan

    with pytest.raises(DataError, match="no number for frame 4 of the sound"):
        streams[kind].push(frames)


# -- words -----------------------------------------------------------------------------------------------------------


@st.composite
def labels_of(draw, size):
    """Calls of labels that begin where those of earlier calls have ended; inside a call several may share a frame."""
    calls, frame = [], 0
    for several in draw(st.lists(st.lists(st.integers(0, size - 1), max_size=5), max_size=8)):
        call = []
        for label in several:
            frame += draw(st.integers(0, 2))
            call.append(Label(label, frame, frame + draw(st.integers(1, 3)), draw(st.floats(0, 1))))
        frame = max([frame, *(one.end for one in call)])
        calls.append(call)
    return calls


def joined(tokenizer, calls, *, settled=True):
    """The words in pieces, and what is written of them."""
    stream = WordStream(tokenizer.decode, Clock(0.04), settled=settled)
    found = [spoken for call in calls for spoken in stream.push(call)]
    found += stream.end()
    return [one.word for one in found], "".join(one.before + one.word.text for one in found)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.type)
def test_words_in_pieces_are_those_of_all_labels(config):
    tokenizer = train_tokenizer(config, TEXTS)

    @given(labels_of(tokenizer.size))
    @settings(max_examples=60, deadline=None)
    def holds(calls):
        labels = [label for call in calls for label in call]

        found, text = joined(tokenizer, calls)

        assert found == words(labels, tokenizer.decode, Clock(0.04))
        assert text == tokenizer.decode([one.label for one in labels]).strip()

    holds()


def test_a_decoder_that_joins_what_it_has_parted_is_waited_for():
    vocabulary = {"[UNK]": 0, "the": 1, "cat": 2, "##s": 3, ".": 4, "do": 5, "n": 6, "'": 7, "t": 8}
    library = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106 - no password
    library.decoder = tokenizers.decoders.WordPiece(prefix="##", cleanup=True)
    tokenizer = tokenizer_from(library.to_str(), name="BERT's")
    labels = [Label(4 + one, at, at + 1, 0.5) for at, one in enumerate([1, 2, 3, 5, 6, 7, 8, 4, 2, 4])]

    found, text = joined(tokenizer, [[one] for one in labels], settled=False)

    assert found == words(labels, tokenizer.decode, Clock(0.04))
    assert text == tokenizer.decode([one.label for one in labels])


def of_characters(text):
    return [Label(ord(character), at, at + 1, 0.5) for at, character in enumerate(text)]


def characters(ids):
    return "".join(map(chr, ids))


def test_a_word_is_given_when_its_space_has_come_and_not_before():
    stream = WordStream(characters, Clock(1.0))
    first, space = of_characters("ab ")[:2], of_characters("ab ")[2:]

    before, after = stream.push(first), stream.push(space)

    assert before == []
    assert [(one.before, one.word.text, one.word.end) for one in after] == [("", "ab", 2.0)]


def test_a_writing_without_spaces_comes_in_parts():
    text = "x" * (2 * LONGEST + 7)
    stream = WordStream(characters, Clock(1.0))

    found = [*stream.push(of_characters(text)), *stream.end()]

    assert [len(one.word.text) for one in found] == [LONGEST, LONGEST, 7]
    assert "".join(one.before + one.word.text for one in found) == text
    assert [(one.word.start, one.word.end) for one in found] == [(0, 100), (100, 200), (200, 207)]


def size_of(thing):
    """Objects that this one holds, directly or not, and their numbers: what grows if something is kept."""
    seen, waiting, total = set(), [thing], 0
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, (type, types.ModuleType, types.FunctionType, torch.nn.Module)):
            continue
        seen.add(id(one))
        total += one.numel() if isinstance(one, torch.Tensor) else 1
        total += len(one) if isinstance(one, str) else 0
        waiting += gc.get_referents(one)
    return total


@pytest.mark.parametrize("text", ["ab c ", "x", " "], ids=["words", "no spaces", "spaces"])
def test_what_is_kept_of_words_does_not_grow(text):
    stream = WordStream(characters, Clock(1.0))
    kept = []

    for _ in range(3):
        for at in range(1500):
            stream.push([Label(ord(text[at % len(text)]), at, at + 1, 0.5)])
        kept.append(size_of(stream.__dict__))

    assert kept[1] == kept[2]


def test_what_is_kept_of_a_label_that_never_ends_does_not_grow():
    stream = CtcStream(lambda logs: logs, 0)
    logs = torch.randn(1, 5000, 4).mul(0.01)
    logs[..., 2] += 9
    logs = logs.log_softmax(-1)

    for _ in range(3):
        assert stream.push(logs) == []

    (label,) = stream.end()
    assert (label.label, label.start, label.end) == (2, 0, 15000)
    assert label.confidence == pytest.approx(float(logs[0, :, 2].double().exp().mean()), rel=1e-6)
    assert size_of(stream.__dict__) < 100
