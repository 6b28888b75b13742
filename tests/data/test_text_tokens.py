"""Documents in pieces, and pieces to ids: nothing shows where a document was cut."""

import json

import numpy as np
import pytest
import tokenizers
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from text_corpora import BYTES

from etude.data.files.text_pieces import pieces
from etude.data.store import text_encoding
from etude.data.store.text_encoding import Lot, PieceTokenizer, encoded, prefix_of, token_bytes
from etude.data.tokens.config import BpeConfig, ByteConfig, CharConfig, UnigramConfig, WordConfig, WordpieceConfig
from etude.data.tokens.tokenizers import tokenizer_from
from etude.data.tokens.training import train_tokenizer

ODD = " \n\t\r\x0b\x1c\x1d\x85\u00a0\u3000\u2028ab!?.\u0301é日本🎉Σς1 "
TEXT = "The quick brown fox jumps over 2 lazy dogs,\n\n  twice!\tAgain  and again. " * 20 + ODD * 9
CONFIGS = {
    "bpe": BpeConfig(vocab_size=400),
    "bpe, changed": BpeConfig(vocab_size=400, lowercase=True, normalize="nfkc"),
    "unigram": UnigramConfig(vocab_size=400),
    "wordpiece": WordpieceConfig(vocab_size=400),
    "word": WordConfig(),
    "word, changed": WordConfig(lowercase=True, normalize="nfc"),
    "char": CharConfig(),
    "byte": ByteConfig(),
}
TOKENIZERS = {name: train_tokenizer(config, [TEXT]) for name, config in CONFIGS.items()}


def group_of(parts, begins=None):
    return Lot([part.encode() for part in parts], begins or [n == 0 for n in range(len(parts))])


@given(st.lists(st.text(alphabet=ODD, max_size=30)), st.integers(2, 12))
def test_pieces_are_the_text_whatever_blocks_it_comes_in(blocks, most):
    text = "".join(blocks)

    cut = list(pieces(blocks, most))

    assert "".join(cut) == text
    assert all(0 < len(piece) <= most for piece in cut)
    assert cut == list(pieces([text], most)) == list(pieces(list(text), most))


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("one two three", ["one two", " three"]),
        ("one\ntwo\nthree", ["one\ntwo", "\nthree"]),
        ("one two. three", ["one two.", " three"]),
        ("one!?,. three", ["one!?,.", " three"]),
        ("abcdefghijklm", ["abcdefgh", "ijklm"]),
        ("one       two", ["one     ", "  two"]),
        ("one t.\x1d three", ["one t.\x1d", " three"]),
    ],
)
def test_a_document_is_cut_before_white_space_where_there_is_some(text, cut):
    assert list(pieces([text], 8)) == cut


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=st.text(alphabet=ODD + "xyz", min_size=1, max_size=120), cuts=st.integers(20, 60))
@settings(max_examples=60, deadline=None)
def test_pieces_have_the_tokens_of_the_whole_document(name, text, cuts):
    tokenizer = TOKENIZERS[name]
    spaced = " ".join(text[n : n + 7] for n in range(0, len(text), 7))
    cut = list(pieces([spaced], cuts))
    # Where no space follows a letter, a digit or a sign, a piece is cut where it is full, and not without a trace.
    assume(all(len(piece) < cuts for piece in cut[:-1]))

    made = PieceTokenizer(tokenizer)(group_of(cut))

    assert made.ids.tolist() == tokenizer.encode(spaced)


def test_documents_in_one_group_do_not_touch():
    tokenizer = TOKENIZERS["bpe"]
    texts = ["the fox", " jumps", "the fox", "again"]

    made = PieceTokenizer(tokenizer)(group_of(texts, [True, False, True, True]))

    parts = np.split(made.ids, np.cumsum(made.lengths)[:-1])
    assert parts[0].tolist() + parts[1].tolist() == tokenizer.encode("the fox jumps")
    assert parts[2].tolist() == tokenizer.encode("the fox")
    assert parts[3].tolist() == tokenizer.encode("again")


def test_what_is_remembered_of_words_is_bounded_and_changes_nothing(monkeypatch):
    monkeypatch.setattr(text_encoding, "KNOWN_WORDS", 3)
    tokenizer = TOKENIZERS["bpe"]
    encode = PieceTokenizer(tokenizer)

    made = [encode(group_of([f"{TEXT} {n}"])).ids.tolist() for n in range(3)]

    assert made == [tokenizer.encode(f"{TEXT} {n}") for n in range(3)]
    assert len(encode._known) < 3 + len(TEXT.split())


@pytest.mark.parametrize("name", TOKENIZERS)
def test_bytes_of_ids_add_up_to_those_of_what_they_decode_to(name):
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(TEXT)

    counted = token_bytes(tokenizer)[ids].sum() - prefix_of(tokenizer)

    assert counted == len(tokenizer.decode(ids).encode())


def test_the_vocabulary_of_a_foreign_tokenizer_is_read_too():
    library = tokenizers.Tokenizer(tokenizers.models.BPE())
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    library.train_from_iterator([TEXT], trainer)
    tokenizer = tokenizer_from(library.to_str(), name="made")

    made = PieceTokenizer(tokenizer)(group_of([TEXT]))

    assert made.ids.tolist() == tokenizer.encode(TEXT)
    assert token_bytes(tokenizer)[made.ids].sum() == len(TEXT.encode())
    assert prefix_of(tokenizer) == 0


def test_the_spellings_of_sentencepiece_and_wordpiece_count_their_bytes():
    vocabulary = {"\u2581word": 0, "##ing": 1, "<0x0A>": 2, "é": 3}
    content = {
        "version": "1.0",
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "é"},
        "added_tokens": [],
        "decoder": None,
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
    }

    sizes = token_bytes(tokenizer_from(json.dumps(content), name="made"))

    assert sizes[4:].tolist() == [5, 3, 1, 2]


def test_processes_give_what_this_one_does_in_the_same_order():
    lots = [group_of([f"{TEXT} {n}", f"more {n}"], [True, True]) for n in range(7)]

    here = [(lot, made.ids.tolist(), made.lengths) for lot, made in encoded(lots, TOKENIZERS["bpe"], 1)]
    there = [(lot, made.ids.tolist(), made.lengths) for lot, made in encoded(lots, TOKENIZERS["bpe"], 2)]

    assert here == there


def test_a_byte_is_a_token_of_a_byte():
    made = PieceTokenizer(BYTES)(group_of(["é!"]))

    assert made.ids.tolist() == [4 + byte for byte in "é!".encode()]
