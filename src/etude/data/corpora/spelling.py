"""Numbers in English and Spanish words: num2words, with what Spanish grammar asks for around it.

Spanish: Real Academia Española, Nueva gramática de la lengua española, chapter 21 (numerals), and the Diccionario
panhispánico de dudas under `cardinales` and `ordinales`.
"""

import re
from functools import lru_cache
from typing import Final

from num2words import num2words

from etude.data.corpora.values import Number

MILLION: Final = 1_000_000
_KEPT: Final = 1 << 17
_ORDINALS: Final = {
    "décimoprimero": "undécimo",
    "décimosegundo": "duodécimo",
    "décimo tercero": "decimotercero",
    "décimo cuarto": "decimocuarto",
    "décimo quinto": "decimoquinto",
    "décimo sexto": "decimosexto",
    "décimo séptimo": "decimoséptimo",
    "décimo octavo": "decimoctavo",
    "décimo noveno": "decimonoveno",
    "quadragésimo": "cuadragésimo",
}
"""What num2words spells otherwise than the Academy, and the Academy's (preferred) spelling."""


@lru_cache(maxsize=_KEPT)
def english(number: int) -> str:
    """`number` in English words.

    >>> english(1234)
    'one thousand, two hundred and thirty-four'
    """
    return str(num2words(number, lang="en"))


@lru_cache(maxsize=_KEPT)
def english_ordinal(number: int) -> str:
    """`number` as an English ordinal in words: thirty-seventh."""
    return str(num2words(number, lang="en", to="ordinal"))


@lru_cache(maxsize=_KEPT)
def english_ordinal_digits(number: int) -> str:
    """`number` as an English ordinal in digits: 37th."""
    return str(num2words(number, lang="en", to="ordinal_num"))


@lru_cache(maxsize=_KEPT)
def english_year(number: int) -> str:
    """`number` as English reads a year: nineteen eighty-seven."""
    return str(num2words(number, lang="en", to="year"))


@lru_cache(maxsize=_KEPT)
def spanish(number: int) -> str:
    """`number` in Spanish words as it stands alone; `uno` is cut short before `mil` (21,000 is veintiún mil).

    >>> spanish(31_021)
    'treinta y un mil veintiuno'
    """
    words = str(num2words(number, lang="es"))
    return re.sub(r"\buno (?=mil)", "un ", words.replace("veintiuno mil", "veintiún mil"))


@lru_cache(maxsize=_KEPT)
def spanish_before(number: int, *, feminine: bool) -> str:
    """`number` in Spanish words as it stands before a noun.

    >>> spanish_before(231, feminine=True), spanish_before(21, feminine=False), spanish_before(2_000_000, feminine=True)
    ('doscientas treinta y una', 'veintiún', 'dos millones de')
    """
    words = spanish(number)
    if feminine:
        words = words.replace("cientos", "cientas").replace("quinientos", "quinientas")
        words = re.sub("uno$", "una", words)
    else:
        words = re.sub(r"\buno$", "un", words.replace("veintiuno", "veintiún"))
    return words if number % MILLION or not number else f"{words} de"


@lru_cache(maxsize=_KEPT)
def spanish_ordinal(number: int, *, feminine: bool) -> str:
    """`number` (up to 199) as a Spanish ordinal as it stands before a noun.

    >>> spanish_ordinal(31, feminine=False), spanish_ordinal(31, feminine=True), spanish_ordinal(13, feminine=False)
    ('trigésimo primer', 'trigésima primera', 'decimotercer')
    """
    words = str(num2words(number, lang="es", to="ordinal"))
    for theirs, ours in _ORDINALS.items():
        words = words.replace(theirs, ours)
    if feminine:
        return re.sub(r"o\b", "a", words)
    return re.sub(r"(primer|tercer)o$", r"\1", words)


def english_number(number: Number) -> str:
    """`number` in English words, decimals digit by digit: twelve point five."""
    digits = [english(int(digit)) for digit in number.decimals]
    return " ".join([english(number.whole), *(["point", *digits] if digits else [])])


def spanish_number(number: Number, *, feminine: bool) -> str:
    """`number` in Spanish words as it stands before a unit: doce coma cinco."""
    if not number.decimals:
        return spanish_before(number.whole, feminine=feminine)
    # Before `coma` nothing is cut short, but it agrees: veintiuno coma cinco metros, veintiuna coma cinco horas.
    whole = spanish_before(number.whole, feminine=True) if feminine else spanish(number.whole)
    return f"{whole.removesuffix(' de')} coma {' '.join(spanish(int(digit)) for digit in number.decimals)}"
