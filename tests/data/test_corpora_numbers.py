"""The generated corpus `numbers`: what its splits, its sentences and its order promise."""

import re
from itertools import islice

import pytest

from etude.base.errors import ConfigError

pytest.importorskip("num2words")
pytest.importorskip("babel")

from etude.data.corpora import numbers
from etude.data.corpora.numbers import SIZES, Pair, pairs
from etude.data.corpora.sentences import contract, sentences
from etude.data.corpora.values import SPLITS, split_of

Splits = dict[str, list[Pair]]


@pytest.fixture(scope="module")
def corpus() -> Splits:
    return {split: list(pairs(split, size=size)) for split, size in (("train", 4_000), ("val", 1_000), ("test", 1_000))}


def test_train_has_at_least_fifty_thousand_different_pairs():
    train = list(pairs("train"))

    assert len({pair.source for pair in train}) == len(train) == SIZES["train"] >= 50_000
    assert {split_of(value) for pair in train for value in pair.values} == {"train"}


def test_no_value_of_val_or_test_stands_in_train_or_in_the_other(corpus: Splits):
    values = {split: {value for pair in corpus[split] for value in pair.values} for split in SPLITS}

    assert values["train"].isdisjoint(values["val"])
    assert values["train"].isdisjoint(values["test"])
    assert values["val"].isdisjoint(values["test"])


def test_no_sentence_stands_in_two_splits(corpus: Splits):
    for side in (0, 1):
        train, val, test = ({pair[side] for pair in corpus[split]} for split in SPLITS)

        assert train.isdisjoint(val)
        assert train.isdisjoint(test)
        assert val.isdisjoint(test)


def test_every_sentence_holds_a_value(corpus: Splits):
    assert all(pair.values for split in SPLITS for pair in corpus[split])


def test_every_number_in_digits_is_one_that_its_sample_records(corpus: Splits):
    # What is read off the text, without the generator's own record: amounts, counts, years, ordinals.
    for split in SPLITS:
        for pair in corpus[split]:
            text = re.sub(r"\d+:\d\d", "", pair.source)
            if "date" in pair.kinds:
                text = re.sub(r"(?<![\d,.])\d{1,2}(st|nd|rd|th)?(?=, \d{4}| [A-Z][a-z]+ \d{4})", "", text)
            for found in re.findall(r"\d[\d,]*(?:\.\d+)?", text):
                plain = found.rstrip(",").replace(",", "")
                plain = plain.rstrip("0") if "." in plain else plain

                assert f"number:{plain}" in pair.values, pair
                assert split_of(f"number:{plain}") == split, pair


def test_every_time_in_digits_is_one_that_its_sample_records(corpus: Splits):
    for split in SPLITS:
        for pair in corpus[split]:
            for hour, minute in re.findall(r"(\d+):(\d\d)", pair.source):
                assert f"time:{int(hour) % 12 or 12}:{minute}" in pair.values, pair


def test_building_blocks_are_known_from_train():
    blocks = [*range(21), 30, 90, 100, 700, 3_000, 1_000_000]

    assert {split_of(f"number:{number}") for number in blocks} == {"train"}
    assert split_of("time:3:00") == "train"


def test_about_as_many_values_are_kept_as_promised():
    kept = [split_of(f"number:{number}") for number in range(1_001, 3_000)]

    assert 0.04 < kept.count("val") / len(kept) < 0.08
    assert 0.04 < kept.count("test") / len(kept) < 0.08


def test_names_kinds_and_sentences_occur_in_every_split(corpus: Splits):
    kinds = {"who", "city", "country", "language", "number", "count", "unit", "money", "time", "date", "ordinal"}

    for split in SPLITS:
        assert {kind for pair in corpus[split] for kind in pair.kinds} == kinds
        for name in ("Japan", "the Netherlands", "Finnish", "September", "Havana", "Mexican pesos"):
            assert any(name in pair.source for pair in corpus[split]), (split, name)


def test_an_english_sentence_has_one_spanish_sentence_whatever_the_seed(corpus: Splits):
    known = {pair.source: pair.target for pair in corpus["test"]}
    other = {pair.source: pair.target for pair in pairs("test", seed=2, size=3_000)}

    shared = known.keys() & other.keys()

    assert len(shared) > 5
    assert all(known[source] == other[source] for source in shared)


def test_a_seed_gives_the_same_pairs_again_and_a_smaller_size_is_the_beginning(corpus: Splits):
    assert list(pairs("train", seed=1, size=50)) == corpus["train"][:50]
    assert list(islice(pairs("train", seed=2), 50)) != corpus["train"][:50]


def test_the_first_pairs_are_those_of_every_other_machine():
    first = [(pair.source, pair.target) for pair in pairs("test", size=2)]

    assert first == [
        ("The answer is four hundred and fifty-six thousand.", "La respuesta es cuatrocientos cincuenta y seis mil."),
        ("The flight from Spain arrives at 17:50.", "El vuelo de España llega a las diecisiete y cincuenta."),
    ]


def test_sentences_are_short_and_whole(corpus: Splits):
    for split in SPLITS:
        for pair in corpus[split]:
            assert 3 <= len(pair.source.split()) <= 32
            assert len(pair.target.split()) <= 40
            assert not re.search(r"[{}\t\n]|  |\.\.", pair.source + pair.target), pair
            assert pair.source[0].isupper() or pair.source[0].isdigit() or pair.source[0] in "$€£"
            assert re.match("[¿¡]?[A-ZÁÉÍÓÚÑ]", pair.target), pair


def test_spanish_has_no_digits_and_joins_words_as_spanish_does(corpus: Splits):
    for split in SPLITS:
        for pair in corpus[split]:
            assert not re.search(r"\d", pair.target), pair
            assert not re.search(r"\b(de|a) el\b|\by h?i[^e]|(?<!coma )\buno mil\b|veintiuno mil\b", pair.target), pair


def test_spanish_words_are_joined_where_they_meet():
    assert contract("el tren de el Reino Unido va a el norte") == "el tren del Reino Unido va al norte"
    assert contract("francés y inglés y hindi") == "francés e inglés e hindi"
    assert contract("de El Salvador a El Cairo y hierro") == "de El Salvador a El Cairo y hierro"


def test_every_sentence_has_the_same_slots_on_both_sides_and_no_english_twice():
    written = sentences()

    for sentence in written:
        assert sorted(re.findall(r"{\w+}", sentence.english)) == sorted(re.findall(r"{\w+}", sentence.spanish))
    assert len({sentence.english for sentence in written}) == len(written) >= 100


def test_an_unknown_split_and_a_missing_library_are_sentences(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match="must be train, val or test, but is 'dev'"):
        pairs("dev")

    monkeypatch.setattr(numbers, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"needs num2words and babel; install with: pip install 'etude\[demo\]'"):
        pairs("train")
