"""Times of day and dates, in the forms that English gives them and the one that Spanish does.

The parts of the day are those of CLDR: in Spanish de la madrugada until 6, de la mañana until 12, de la tarde until 20,
then de la noche; only the hour after midnight is de la noche too, as people say it.
"""

from bisect import bisect
from datetime import date as Date
from typing import Final

from etude.data.corpora import lexicon, spelling, values
from etude.data.corpora.phrase import Maker, Phrase, Scene

_SPANISH_PARTS: Final = (
    (1, 6, 12, 20),
    ("de la noche", "de la madrugada", "de la mañana", "de la tarde", "de la noche"),
)
_ENGLISH_PARTS: Final = (
    (1, 12, 18, 21),
    ("at night", "in the morning", "in the afternoon", "in the evening", "at night"),
)
_QUARTERS: Final = {15: ("quarter", "cuarto"), 30: ("half", "media")}
_HALF: Final = 30
_HOUR: Final = 60
_NOON: Final = 12


def time(scene: Scene) -> Phrase:
    """Make a time of day, with the Spanish article: `3:17 p.m.`, `las tres y diecisiete de la tarde`."""
    hour, minute, value = values.time(scene.chance, scene.split)
    if scene.words:
        english, spanish = spoken(hour, minute)
    elif hour > _NOON and scene.chance.percent(30):
        english, spanish = f"{hour}:{minute:02}", _clock(hour, minute)
    else:
        english = f"{hour % _NOON or _NOON}:{minute:02} {'p.m.' if hour >= _NOON else 'a.m.'}"
        spanish = f"{_clock(hour % _NOON or _NOON, minute)} {_part(_SPANISH_PARTS, hour)}"
    return Phrase(english, spanish, "time", (value,))


def now(scene: Scene) -> Phrase:
    """Make a time with its verb: `It is 1:17 p.m.`, `Es la una y diecisiete de la tarde`."""
    phrase = time(scene)
    verb = "es" if phrase.spanish.startswith("la ") else "son"
    return phrase._replace(english=f"it is {phrase.english}", spanish=f"{verb} {phrase.spanish}")


def day(years: tuple[int, int]) -> Maker:
    """Make dates of `years` (first, last), with the article: `May 2, 1900`, `el dos de mayo de mil novecientos`."""
    return lambda scene: _day(scene, *values.day(scene.chance, scene.split, years))


def _day(scene: Scene, date: Date, found: tuple[str, ...]) -> Phrase:
    month, weekday = lexicon.months()[date.month - 1], lexicon.weekdays()[date.weekday()]
    if scene.words:
        nth, year = spelling.english_ordinal(date.day), spelling.english_year(date.year)
        forms: tuple[str, ...] = (f"{month.english} {nth}, {year}", f"the {nth} of {month.english}, {year}")
    else:
        nth, year = spelling.english_ordinal_digits(date.day), str(date.year)
        forms = (
            f"{month.english} {date.day}, {year}",
            f"{month.english} {nth}, {year}",
            f"{date.day} {month.english} {year}",
        )
    english = scene.chance.pick(forms)
    first = "primero" if date.day == 1 else spelling.spanish(date.day)
    spanish = f"{first} de {month.spanish} de {spelling.spanish(date.year)}"
    if not english[0].isdigit() and scene.chance.percent(25):
        return Phrase(f"{weekday.english}, {english}", f"el {weekday.spanish} {spanish}", "date", found)
    return Phrase(english, f"el {spanish}", "date", found)


def _part(parts: tuple[tuple[int, ...], tuple[str, ...]], hour: int) -> str:
    return parts[1][bisect(parts[0], hour)]


def _clock(hour: int, minute: int) -> str:
    """The Spanish time as it is read off a clock: las tres y diecisiete, la una, las dos y cuarto."""
    said = "la una" if hour == 1 else f"las {'veintiuna' if hour == 21 else spelling.spanish(hour)}"  # noqa: PLR2004
    if not minute:
        return said
    short = _QUARTERS[minute][1] if minute in _QUARTERS and hour <= _NOON else spelling.spanish(minute)
    return f"{said} y {short}"


def spoken(hour: int, minute: int) -> tuple[str, str]:
    """Give the time in words on both sides: seventeen minutes to four in the afternoon, las cuatro menos diecisiete."""
    before = minute > _HALF
    hour, minute = ((hour + 1) % 24, _HOUR - minute) if before else (hour, minute)
    twelve = hour % _NOON or _NOON
    parts = _part(_ENGLISH_PARTS, hour), _part(_SPANISH_PARTS, hour)
    spanish = _clock(twelve, minute)
    if before:
        spanish = spanish.replace(" y ", " menos ", 1)
    said = spelling.english(twelve)
    if not minute:
        return f"{said} o'clock {parts[0]}", f"{spanish} {parts[1]}"
    if minute in _QUARTERS:
        passed = _QUARTERS[minute][0]
    elif minute % 5:
        passed = f"{spelling.english(minute)} {'minute' if minute == 1 else 'minutes'}"
    else:
        passed = spelling.english(minute)
    return f"{passed} {'to' if before else 'past'} {said} {parts[0]}", f"{spanish} {parts[1]}"
