"""Every kind of tokenizer gives back what it was given, and no text can spell a special token."""

import json
import subprocess
import sys

import pytest
import tokenizers as library
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from etude.base.config.section import Section
from etude.base.errors import DataError
from etude.data.tokens.config import (
    TOKENIZERS,
    BpeConfig,
    ByteConfig,
    CharConfig,
    FileConfig,
    TokenizerField,
    TokenizerPair,
    UnigramConfig,
    WordConfig,
    WordpieceConfig,
)
from etude.data.tokens.tokenizers import (
    BOS,
    EOS,
    PAD,
    REPLACEMENT,
    SPECIALS,
    UNK,
    byte_alphabet,
    load_tokenizer,
    tokenizer_from,
)
from etude.data.tokens.training import train_tokenizer

TEXTS = [
    "The little dog sees the other little dog; the dogs bark.",
    "Der kleine Hund läuft über die Straße, 12.5 km weit!",
    "  two  spaces,\ttabs and\nlines \u3000 l'été déjà <pad> <eos> ",
    "A price of $1,234.56 on 3/14/2024 (50 %).",
]
ALPHABET = sorted(set("".join(TEXTS)))
CONFIGS = {
    "bpe": BpeConfig(vocab_size=400),
    "unigram": UnigramConfig(vocab_size=400),
    "wordpiece": WordpieceConfig(vocab_size=400),
    "word": WordConfig(),
    "char": CharConfig(),
    "byte": ByteConfig(),
}
TRAINED = {kind: train_tokenizer(config, TEXTS) for kind, config in CONFIGS.items()}
ON_BYTES = ["bpe", "unigram", "wordpiece", "byte"]
ANY_TEXT = st.text(st.characters(codec="utf-8"))

every_kind = pytest.mark.parametrize("kind", CONFIGS)


@pytest.mark.parametrize("kind", ON_BYTES)
@settings(max_examples=40)
@given(text=ANY_TEXT)
def test_any_text_comes_back_from_its_bytes(kind, text):
    ids = TRAINED[kind].encode(text)

    assert TRAINED[kind].decode(ids) == text
    assert all(UNK < EOS < i < TRAINED[kind].size for i in ids)


@settings(max_examples=40)
@given(text=st.text(st.sampled_from(ALPHABET)))
def test_text_of_known_characters_comes_back(text):
    assert TRAINED["char"].decode(TRAINED["char"].encode(text)) == text


@settings(max_examples=40)
@given(
    parts=st.lists(st.sampled_from([" The", " dog", "s", "  ", " ", ",", " über", "\t", ";", " <", "pad", ">", "12"]))
)
def test_text_of_known_words_comes_back_with_all_its_spaces(parts):
    known = train_tokenizer(WordConfig(), ["".join(parts), *TEXTS])
    text = "".join(parts)

    assert known.decode(known.encode(text)) == text


@every_kind
def test_the_texts_of_training_come_back(kind):
    assert [TRAINED[kind].decode(ids) for ids in TRAINED[kind].encode_batch(TEXTS)] == TEXTS


@every_kind
@pytest.mark.parametrize("text", ["<pad>", "<unk>", "<bos>", "<eos>", "a<pad>b <eos>", "<pad><pad>"])
def test_text_that_spells_a_special_token_stays_text(kind, text):
    tokenizer = train_tokenizer(CONFIGS[kind], [text] * 50 + TEXTS)

    ids = tokenizer.encode(text)

    assert not {PAD, BOS, EOS, UNK} & set(ids)
    assert tokenizer.decode(ids) == text


@every_kind
def test_special_tokens_have_the_same_ids_in_every_kind_and_vanish_from_text(kind):
    tokenizer = TRAINED[kind]
    ids = tokenizer.encode("the dog")

    assert (PAD, UNK, BOS, EOS) == (0, 1, 2, 3)
    assert tokenizer.decode([BOS, *ids, EOS, PAD, PAD]) == "the dog"
    assert REPLACEMENT in tokenizer.decode([*ids, UNK])
    assert REPLACEMENT in tokenizer.decode([tokenizer.size + 7])


@pytest.mark.parametrize("kind", ["word", "char"])
def test_what_training_has_not_seen_is_unknown(kind):
    assert UNK in TRAINED[kind].encode("the Ω dog")
    assert TRAINED[kind].decode(TRAINED[kind].encode("dogs Ω bark")) == f"dogs {REPLACEMENT} bark"


@every_kind
@settings(max_examples=40)
@given(texts=st.lists(ANY_TEXT, max_size=5))
def test_a_batch_is_its_members_one_by_one(kind, texts):
    tokenizer = TRAINED[kind]
    ids, lengths = tokenizer.encode_flat(texts)

    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]
    assert ids.tolist() == [i for text in texts for i in tokenizer.encode(text)]
    assert lengths.tolist() == [len(tokenizer.encode(text)) for text in texts]


@every_kind
def test_a_saved_tokenizer_is_the_same_when_loaded(kind, tmp_path):
    path = tmp_path / "tokenizer.json"
    TRAINED[kind].save(path)

    loaded = train_tokenizer(FileConfig(path=path), [])

    assert loaded.fingerprint() == TRAINED[kind].fingerprint()
    assert loaded.size == TRAINED[kind].size
    assert loaded.encode_batch(TEXTS) == TRAINED[kind].encode_batch(TEXTS)
    assert [loaded.decode(ids) for ids in loaded.encode_batch(TEXTS)] == TEXTS


@every_kind
def test_the_library_reads_a_saved_tokenizer_and_agrees(kind, tmp_path):
    TRAINED[kind].save(tmp_path / "tokenizer.json")
    theirs = library.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))

    for text in TEXTS:
        assert theirs.encode(text).ids == TRAINED[kind].encode(text)
        assert theirs.decode(theirs.encode(text).ids) == text


def test_a_byte_is_its_value_after_the_special_tokens():
    assert TRAINED["byte"].encode("aé\0") == [4 + byte for byte in "aé\0".encode()]
    assert TRAINED["byte"].size == 260


def test_the_byte_alphabet_is_the_library_s():
    assert sorted(byte_alphabet()) == sorted(library.pre_tokenizers.ByteLevel.alphabet())


@pytest.mark.parametrize("kind", ["bpe", "unigram", "word"])
@settings(max_examples=40)
@given(data=st.data())
def test_a_damaged_tokenizer_works_or_is_refused(kind, data):
    content = json.dumps(json.loads(TRAINED[kind].text))
    place = data.draw(st.integers(0, len(content) - 1))
    damaged = (
        content[:place] + data.draw(st.sampled_from(['"', "0", "{", "]", ",", "1e9", "null"])) + content[place + 1 :]
    )

    try:
        tokenizer = tokenizer_from(damaged, name="t.json")
        ids = tokenizer.encode("The little dog 12 é")
        tokenizer.decode([*ids, PAD, UNK, BOS, EOS, tokenizer.size])
    except DataError:
        return

    assert max(ids, default=0) < tokenizer.size


def test_a_vocabulary_with_gaps_or_endless_ids_is_refused():
    content = json.loads(TRAINED["word"].text)
    content["model"]["vocab"][" dog"] = 10**9

    for added in ([], [{"id": 3}]):
        with pytest.raises(DataError, match="is not a tokenizer"):
            tokenizer_from(json.dumps(content | {"added_tokens": added}), name="t.json")


@every_kind
def test_training_is_the_same_in_every_process(kind):
    program = (
        "import sys; from etude.data.tokens.training import train_tokenizer;"
        "from etude.data.tokens.config import TOKENIZERS;"
        "config = TOKENIZERS[sys.argv[1]].model_validate_json(sys.argv[2]);"
        "print(train_tokenizer(config, sys.argv[3:] * 20).fingerprint())"
    )
    command = [sys.executable, "-c", program, kind, CONFIGS[kind].model_dump_json(), *TEXTS]

    other = subprocess.run(command, check=True, capture_output=True, text=True)

    assert other.stderr == ""
    assert other.stdout.strip() == train_tokenizer(CONFIGS[kind], TEXTS * 20).fingerprint()


@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece", "word", "char"])
def test_a_vocabulary_is_as_large_as_asked_or_as_the_data_allows(kind):
    config = CONFIGS[kind].model_copy(update={"vocab_size": 262})
    large = CONFIGS[kind].model_copy(update={"vocab_size": 50_000})

    assert train_tokenizer(config, TEXTS * 5).size <= 262
    assert TRAINED[kind].size <= train_tokenizer(large, TEXTS * 5).size < 50_000


@pytest.mark.parametrize("kind", CONFIGS)
def test_lower_case_and_normal_forms_are_applied_where_asked(kind):
    config = CONFIGS[kind].model_copy(update={"lowercase": True, "normalize": "nfc"})
    tokenizer = train_tokenizer(config, ["ein überfall", "e\u0301te\u0301"])

    assert tokenizer.decode(tokenizer.encode("EIN u\u0308berfall")) == "ein überfall"


def test_single_digits_are_tokens_so_that_new_numbers_can_be_read():
    tokenizer = train_tokenizer(BpeConfig(vocab_size=400), ["1999 12345 1999 12345"] * 9)

    assert len(tokenizer.encode("1999")) == 4


def test_no_word_of_any_length_makes_encoding_slow():
    for kind in CONFIGS:
        text = "dog" * 20_000
        assert len(TRAINED[kind].encode(text)) >= 1


@every_kind
def test_ids_by_themselves_spell_the_text(kind):
    tokenizer = TRAINED[kind]
    ids = tokenizer.encode(TEXTS[0])

    spelled = tokenizer.spell([BOS, *ids, UNK, EOS, PAD])

    assert spelled[0] == "<bos>"
    assert spelled[-3:] == ["<unk>", "<eos>", "<pad>"]
    assert len(spelled) == len(ids) + 4
    assert "".join(spelled[1:-3]).removeprefix(" ") == TEXTS[0]


def test_bytes_that_are_no_whole_character_are_escaped():
    tokenizer = TRAINED["byte"]

    assert tokenizer.spell(tokenizer.encode("aé\n")) == ["a", "\\xc3", "\\xa9", "\n"]


def test_a_foreign_file_keeps_its_vocabulary_after_the_special_tokens(tmp_path):
    theirs = library.Tokenizer(library.models.WordLevel({"[UNK]": 0, "dog": 1, "[SEP]": 2, "cat": 3}, "[UNK]"))
    theirs.pre_tokenizer = library.pre_tokenizers.WhitespaceSplit()
    theirs.add_special_tokens(["[SEP]"])
    theirs.save(str(tmp_path / "tokenizer.json"))

    tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    tokenizer.save(tmp_path / "again.json")

    assert tokenizer.encode("dog cat") == [5, 7]
    assert tokenizer.encode("dog[SEP]cat") == [4]
    assert tokenizer.decode([BOS, 5, 7, EOS, PAD]) == "dog cat"
    assert tokenizer.spell([BOS, 5, 4, 7, EOS, UNK]) == ["<bos>", "dog", "[UNK]", "cat", "<eos>", "<unk>"]
    assert tokenizer.size == 8
    assert load_tokenizer(tmp_path / "again.json").fingerprint() == tokenizer.fingerprint()


@pytest.mark.parametrize("content", [b"", b"\xff", b"{}", b"[]", b'{"model": {"vocab": 3}}', b"null", b'{"model": []}'])
def test_a_file_that_is_no_tokenizer_is_refused_by_name(tmp_path, content):
    (tmp_path / "t.json").write_bytes(content)

    with pytest.raises(DataError, match=r"t\.json is not a tokenizer\.json"):
        load_tokenizer(tmp_path / "t.json")


def test_a_missing_file_and_a_sentencepiece_model_are_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"gone.json cannot be read: No such file"):
        load_tokenizer(tmp_path / "gone.json")
    with pytest.raises(DataError, match="SentencePiece model, which Etude cannot read yet"):
        load_tokenizer(tmp_path / "sp.model")


@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece", "word", "char"])
@pytest.mark.parametrize("texts", [[], ["", " "]])
def test_nothing_is_learned_from_nothing(kind, texts):
    with pytest.raises(DataError, match="there is no text"):
        train_tokenizer(CONFIGS[kind], texts)


@every_kind
@pytest.mark.parametrize("texts", [["a"], ["aaaa"], ["a b"], [".", " "], ["\u3042" * 200], ["a"] * 1000])
def test_little_text_is_enough(kind, texts):
    tokenizer = train_tokenizer(CONFIGS[kind], texts)

    assert tokenizer.decode(tokenizer.encode(texts[0])) == texts[0]


class Root(Section):
    tokenizer: TokenizerField = BpeConfig()


def test_one_tokenizer_is_shared_or_each_side_has_its_own():
    shared = Root(tokenizer={"type": "char"})
    two = Root(tokenizer={"source": {"type": "word"}, "target": {"vocab_size": 500}})

    assert shared.tokenizer == CharConfig()
    assert two.tokenizer == TokenizerPair(source=WordConfig(), target=BpeConfig(vocab_size=500))
    for root in (Root(), shared, two):
        assert Root.model_validate(json.loads(root.model_dump_json())) == root
    assert Root.model_json_schema()


@pytest.mark.parametrize(
    "value", [{"type": "bpee"}, {"type": "bpe", "source": {}}, {"source": {"vocab_size": 3}}, {"type": "a:b"}, 3]
)
def test_what_is_no_tokenizer_is_refused(value):
    with pytest.raises(ValidationError):
        Root(tokenizer=value)


def test_the_table_of_kinds_is_whole():
    assert set(TOKENIZERS) == {*CONFIGS, "file"}
    assert len(SPECIALS) == 4


def test_a_fork_after_encoding_says_nothing():
    program = (
        "import os; from etude.data.tokens.training import train_tokenizer;"
        "from etude.data.tokens.config import BpeConfig;"
        "train_tokenizer(BpeConfig(), ['a b'] * 999).encode_batch(['a'] * 999);"
        "pid = os.fork(); pid and os.waitpid(pid, 0)"
    )

    ended = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)

    assert ended.stderr == ""
