"""Numbers, times, dates and amounts in words, against num2words, babel and grammars."""

from datetime import date
from decimal import Decimal

import pytest

pytest.importorskip("num2words")
pytest.importorskip("babel")

from babel.dates import format_date
from num2words import num2words

from etude.data.corpora import clock, lexicon, spelling
from etude.data.corpora.chance import Chance
from etude.data.corpora.phrase import Scene
from etude.data.corpora.phrases import SLOTS, amount_of
from etude.data.corpora.values import Number

SAMPLE = [*range(200), *range(200, 1_000_000, 7_919), 1_000_000, 2_000_000, 2_000_021, 7_654_321]


def scene(seed: int, *, words: bool = False) -> Scene:
    return Scene(Chance(seed), "train", words)


def test_numbers_are_those_of_num2words_but_for_what_stands_before_mil():
    for number in SAMPLE:
        theirs = num2words(number, lang="es").split()
        ours = spelling.spanish(number).split()

        assert len(ours) == len(theirs)
        for word, other, following in zip(ours, theirs, [*theirs[1:], ""], strict=True):
            shortened = {"veintiuno": "veintiún", "uno": "un"}.get(other, other) if following == "mil" else other
            assert word == shortened
        assert spelling.english(number) == num2words(number, lang="en")


@pytest.mark.parametrize(
    ("number", "masculine", "feminine"),
    [
        (1, "un", "una"),
        (21, "veintiún", "veintiuna"),
        (31, "treinta y un", "treinta y una"),
        (100, "cien", "cien"),
        (101, "ciento un", "ciento una"),
        (200, "doscientos", "doscientas"),
        (521, "quinientos veintiún", "quinientas veintiuna"),
        (1_000, "mil", "mil"),
        (21_000, "veintiún mil", "veintiún mil"),
        (700_031, "setecientos mil treinta y un", "setecientas mil treinta y una"),
        (1_000_000, "un millón de", "un millón de"),
        (2_000_500, "dos millones quinientos", "dos millones quinientas"),
    ],
)
def test_numbers_before_nouns_agree_and_are_cut_short(number: int, masculine: str, feminine: str):
    assert spelling.spanish_before(number, feminine=False) == masculine
    assert spelling.spanish_before(number, feminine=True) == feminine


@pytest.mark.parametrize(
    ("number", "masculine", "feminine"),
    [
        (1, "primer", "primera"),
        (2, "segundo", "segunda"),
        (3, "tercer", "tercera"),
        (7, "séptimo", "séptima"),
        (11, "undécimo", "undécima"),
        (12, "duodécimo", "duodécima"),
        (13, "decimotercer", "decimotercera"),
        (18, "decimoctavo", "decimoctava"),
        (21, "vigésimo primer", "vigésima primera"),
        (100, "centésimo", "centésima"),
        (113, "centésimo decimotercer", "centésima decimotercera"),
        (145, "centésimo cuadragésimo quinto", "centésima cuadragésima quinta"),
    ],
)
def test_ordinals_agree_and_are_cut_short(number: int, masculine: str, feminine: str):
    assert spelling.spanish_ordinal(number, feminine=False) == masculine
    assert spelling.spanish_ordinal(number, feminine=True) == feminine


def test_ordinals_from_twenty_on_are_those_of_num2words_but_for_one_misspelt_word():
    for number in range(20, 100):
        theirs = num2words(number, lang="es", to="ordinal").replace("quad", "cuad").split()

        assert spelling.spanish_ordinal(number, feminine=True) == " ".join(word[:-1] + "a" for word in theirs)


def test_decimals_are_read_as_each_language_reads_them():
    number = Number(21, "5")

    assert spelling.english_number(number) == num2words(Decimal("21.5"), lang="en") == "twenty-one point five"
    assert spelling.spanish_number(number, feminine=False) == "veintiuno coma cinco"
    assert spelling.spanish_number(number, feminine=True) == "veintiuna coma cinco"


@pytest.mark.parametrize(
    ("amount", "words", "english", "spanish"),
    [
        (
            Number(1234, "50"),
            False,
            "$1,234.50",
            "mil doscientos treinta y cuatro dólares con cincuenta centavos",
        ),
        (Number(1), False, "$1", "un dólar"),
        (Number(1, "01"), True, "one dollar and one cent", "un dólar con un centavo"),
        (Number(21), True, "twenty-one dollars", "veintiún dólares"),
        (Number(3_000_000), False, "$3,000,000", "tres millones de dólares"),
    ],
)
def test_amounts_are_read_as_each_language_reads_them(amount: Number, words: bool, english: str, spanish: str):  # noqa: FBT001 -- a column of the table above
    dollar = next(currency for currency in lexicon.currencies() if currency.symbol == "$")

    phrase = amount_of(scene(1, words=words), amount, dollar)

    assert (phrase.english, phrase.spanish) == (english, spanish)


def test_pounds_are_feminine_and_their_pence_are_not():
    pound = next(currency for currency in lexicon.currencies() if currency.symbol == "£")

    phrase = amount_of(scene(1), Number(201, "21"), pound)

    assert phrase.spanish == "doscientas una libras con veintiún peniques"


@pytest.mark.parametrize(
    ("hour", "minute", "spanish"),
    [
        (1, 0, "la una de la madrugada"),
        (2, 5, "las dos y cinco de la madrugada"),
        (13, 15, "la una y cuarto de la tarde"),
        (15, 17, "las tres y diecisiete de la tarde"),
        (20, 30, "las ocho y media de la noche"),
        (0, 21, "las doce y veintiuno de la noche"),
        (9, 45, "las diez menos cuarto de la mañana"),
        (12, 50, "la una menos diez de la tarde"),
        (23, 59, "las doce menos uno de la noche"),
    ],
)
def test_spoken_times_are_those_of_a_spanish_speaker(hour: int, minute: int, spanish: str):
    assert clock.spoken(hour, minute)[1] == spanish


@pytest.mark.parametrize(
    ("hour", "minute", "english"),
    [
        (1, 0, "one o'clock in the morning"),
        (13, 15, "quarter past one in the afternoon"),
        (19, 59, "one minute to eight in the evening"),
        (21, 20, "twenty past nine at night"),
    ],
)
def test_spoken_times_are_those_of_an_english_speaker(hour: int, minute: int, english: str):
    assert clock.spoken(hour, minute)[0] == english


def test_dates_are_those_of_babel_in_words():
    make = clock.day((1900, 1999))

    for seed in range(200):
        phrase = make(scene(seed))
        value = date.fromisoformat(phrase.values[0].removeprefix("date:"))
        day, of_month = format_date(value, "d 'de' MMMM 'de' ", locale="es").split(" ", 1)
        first = "primero" if day == "1" else num2words(int(day), lang="es")

        assert phrase.spanish.endswith(f" {first} {of_month}{num2words(value.year, lang='es')}")
        assert format_date(value, "MMMM", locale="en") in phrase.english
        assert ("y, " not in phrase.english) or format_date(value, "EEEE", locale="es") in phrase.spanish


def test_months_days_and_units_are_those_of_cldr():
    assert lexicon.months()[2] == ("March", "marzo")
    assert lexicon.weekdays()[2] == ("Wednesday", "miércoles")
    assert lexicon.unit("length-kilometer").spanish == ("kilómetro", "kilómetros")
    assert lexicon.unit("speed-mile-per-hour").spanish == ("milla por hora", "millas por hora")


def test_countries_have_their_articles():
    countries = dict(lexicon.countries())

    assert countries["the United States"] == "Estados Unidos"
    assert countries["the United Kingdom"] == "el Reino Unido"
    assert countries["the Netherlands"] == "los Países Bajos"
    assert countries["El Salvador"] == "El Salvador"


def test_lists_hold_no_english_word_twice():
    for text in (lexicon.WHO, lexicon.CITIES):
        found = [name.english for name in lexicon.names(text)]
        assert len(set(found)) == len(found)
    for table in (lexicon.countries(), lexicon.languages(), lexicon.months()):
        assert len({name.english for name in table}) == len(table)


@pytest.mark.parametrize("slot", sorted(SLOTS))
def test_every_slot_can_be_filled_in_every_split(slot: str):
    for split in ("train", "val", "test"):
        phrase = SLOTS[slot](Scene(Chance(1), split, words=True))

        assert phrase.english
        assert phrase.spanish
