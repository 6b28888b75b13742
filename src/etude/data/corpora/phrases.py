"""What fills a slot of a sentence: a number, an amount, a time, a date or a name, in both languages.

Each phrase is decided by its English form alone, so that every English sentence has one Spanish sentence.
"""

from collections.abc import Callable, Sequence
from typing import Final

from etude.data.corpora import clock, lexicon, spelling, values
from etude.data.corpora.chance import Chance
from etude.data.corpora.lexicon import Currency, Name, Noun
from etude.data.corpora.phrase import Maker, Phrase, Scene
from etude.data.corpora.values import Number

Propose = Callable[[Chance], Number]


def whole(low: int, high: int) -> Propose:
    """Propose whole numbers from `low` to `high`."""
    return lambda chance: Number(values.spread(chance, low, high))


def tenths(low: int, high: int) -> Propose:
    """Propose numbers from `low` to `high`, six in ten whole, the others with one decimal."""

    def propose(chance: Chance) -> Number:
        number = values.spread(chance, low, high)
        return Number(number) if chance.percent(60) else Number(number, str(chance.between(1, 9)))

    return propose


def rounded(low: int, high: int) -> Propose:
    """Propose whole numbers from `low` to `high`, half of them with at most three digits that are not zero."""

    def propose(chance: Chance) -> Number:
        number = values.spread(chance, low, high)
        kept = 10 ** max(0, len(str(number)) - chance.between(2, 3))
        return Number(max(low, number // kept * kept) if chance.percent(50) else number)

    return propose


def written(scene: Scene, number: Number) -> str:
    """Write an English number as the scene asks for: 1,234.5 or its words."""
    return spelling.english_number(number) if scene.words else number.digits


def forms(number: Number, noun: Noun) -> Name:
    """Give the forms of `noun` that follow `number`: singular after 1 alone."""
    one = number == Number(1)
    return Name(*(side.one if one else side.many for side in (noun.english, noun.spanish)))


def bare(propose: Propose) -> Maker:
    """Make a number that stands alone: `room 21`, `la habitación veintiuno`."""

    def make(scene: Scene) -> Phrase:
        number = values.number(scene.chance, scene.split, propose)
        return Phrase(written(scene, number), spelling.spanish(number.whole), "number", (number.value,))

    return make


def count(kind: str, nouns: Sequence[Noun], propose: Propose) -> Maker:
    """Make a number before a noun: `21 chairs`, `veintiuna sillas`."""

    def make(scene: Scene) -> Phrase:
        noun = scene.chance.pick(nouns)
        number = values.number(scene.chance, scene.split, propose)
        english, spanish = forms(number, noun)
        amount = spelling.spanish_number(number, feminine=noun.feminine)
        return Phrase(f"{written(scene, number)} {english}", f"{amount} {spanish}", kind, (number.value,))

    return make


def measure(units: str, propose: Propose) -> Maker:
    """Make a number of one of the `units` of CLDR: `2.5 kilometers`, `dos coma cinco kilómetros`."""
    return count("unit", [lexicon.unit(code) for code in units.split()], propose)


def percent(scene: Scene) -> Phrase:
    """Make a share: `12.5%`, `doce coma cinco por ciento`, to stand after an article in Spanish."""
    number = values.number(scene.chance, scene.split, tenths(1, 99))
    english = f"{spelling.english_number(number)} percent" if scene.words else f"{number.digits}%"
    decimals = f" coma {spelling.spanish(int(number.decimals))}" if number.decimals else ""
    return Phrase(english, f"{spelling.spanish(number.whole)}{decimals} por ciento", "unit", (number.value,))


def ordinal(nouns: Sequence[Noun], *, article: str = "the ") -> Maker:
    """Make an ordinal before a noun: `the 21st floor`, `el vigésimo primer piso`."""

    def make(scene: Scene) -> Phrase:
        noun = scene.chance.pick(nouns)
        number = values.number(scene.chance, scene.split, whole(1, 199))
        spell = spelling.english_ordinal if scene.words else spelling.english_ordinal_digits
        spanish = spelling.spanish_ordinal(number.whole, feminine=noun.feminine)
        return Phrase(
            f"{article}{spell(number.whole)} {noun.english.one}",
            f"{'la' if noun.feminine else 'el'} {spanish} {noun.spanish.one}",
            "ordinal",
            (number.value,),
        )

    return make


def money(propose: Propose, *, cents: int) -> Maker:
    """Make an amount of a currency, in `cents` of 100 cases with cents where the currency has them."""

    def make(scene: Scene) -> Phrase:
        currency = scene.chance.pick(lexicon.currencies())
        with_cents = currency.cents is not None and scene.chance.percent(cents)

        def amount(chance: Chance) -> Number:
            return Number(propose(chance).whole, f"{chance.between(1, 99):02}" if with_cents else "")

        return amount_of(scene, values.number(scene.chance, scene.split, amount), currency)

    return make


def amount_of(scene: Scene, amount: Number, currency: Currency) -> Phrase:
    """Make `amount` of `currency`: `$2.50`, `dos dólares con cincuenta centavos`."""
    main = Number(amount.whole)
    english_noun, spanish_noun = forms(main, currency.noun)
    spanish = f"{spelling.spanish_number(main, feminine=currency.noun.feminine)} {spanish_noun}"
    english = f"{spelling.english(amount.whole)} {english_noun}"
    if amount.decimals and currency.cents is not None:
        cents = Number(int(amount.decimals))
        english_cents, spanish_cents = forms(cents, currency.cents)
        spanish += f" con {spelling.spanish_number(cents, feminine=currency.cents.feminine)} {spanish_cents}"
        english += f" and {spelling.english(cents.whole)} {english_cents}"
    if not scene.words:
        plural = currency.noun.english.one if amount == Number(1) else currency.noun.english.many
        english = f"{currency.symbol}{amount.digits}" if currency.symbol else f"{amount.digits} {plural}"
    return Phrase(english, spanish, "money", (amount.value,))


def year(scene: Scene) -> Phrase:
    """Make a year of the past: `1987`, `mil novecientos ochenta y siete`."""
    number = values.year(scene.chance, scene.split, values.PAST)
    english = spelling.english_year(number) if scene.words else str(number)
    return Phrase(english, spelling.spanish(number), "date", (f"number:{number}",))


def name(kind: str, choices: Callable[[], Sequence[Name]]) -> Maker:
    """Make a name; it carries no value, so it occurs in every split."""

    def make(scene: Scene) -> Phrase:
        english, spanish = scene.chance.pick(choices())
        return Phrase(english, spanish, kind, ())

    return make


def listed(kind: str, text: str) -> Maker:
    """Make one of the names in `text`."""
    choices = lexicon.names(text)
    return name(kind, lambda: choices)


_several = whole(2, 9_999)
_crowd = whole(2, 2_999)
_thousands = rounded(1_000, 5_000_000)

SLOTS: Final[dict[str, Maker]] = {
    "who": listed("who", lexicon.WHO),
    "city": listed("city", lexicon.CITIES),
    "country": name("country", lexicon.countries),
    "language": name("language", lexicon.languages),
    "number": bare(rounded(1, 999_999)),
    "room": bare(whole(1, 999)),
    "goods": count("count", lexicon.nouns(lexicon.GOODS), whole(1, 9_999)),
    "items": count("count", lexicon.nouns(lexicon.GOODS), _several),
    "crowd": count("count", lexicon.nouns(lexicon.PEOPLE), _crowd),
    "population": count("count", lexicon.nouns(lexicon.POPULATION), _thousands),
    "thousands": count("count", lexicon.nouns(lexicon.CROWDS), _thousands),
    "papers": count("count", lexicon.nouns(lexicon.PAPERS), rounded(2, 999_999)),
    "lands": count("count", lexicon.nouns(lexicon.LANDS), whole(2, 199)),
    "money": money(whole(1, 99_999), cents=50),
    "price": money(whole(1, 199), cents=70),
    "fare": money(whole(10, 9_999), cents=40),
    "salary": money(rounded(500, 99_999), cents=0),
    "wealth": money(rounded(10_000, 9_999_999), cents=0),
    "time": clock.time,
    "clock": clock.now,
    "date": clock.day(values.PAST),
    "lately": clock.day(values.LATELY),
    "soon": clock.day(values.SOON),
    "year": year,
    "floor": ordinal(lexicon.nouns(lexicon.FLOORS)),
    "attempt": ordinal(lexicon.nouns(lexicon.ATTEMPTS)),
    "place": ordinal(lexicon.nouns(lexicon.PLACES), article=""),
    "passage": ordinal(lexicon.nouns(lexicon.PASSAGES)),
    "event": ordinal(lexicon.nouns(lexicon.EVENTS)),
    "length": measure("length-kilometer length-meter length-mile", tenths(1, 9_999)),
    "distance": measure("length-kilometer length-mile", tenths(1, 9_999)),
    "height": measure("length-meter length-centimeter length-foot", tenths(2, 999)),
    "mass": measure("mass-kilogram mass-gram mass-tonne", tenths(1, 9_999)),
    "grams": measure("mass-gram mass-ounce", whole(1, 999)),
    "volume": measure("volume-liter volume-milliliter", tenths(1, 999)),
    "area": measure("area-hectare area-square-meter area-square-kilometer", tenths(1, 99_999)),
    "speed": measure("speed-kilometer-per-hour speed-mile-per-hour", tenths(1, 399)),
    "temperature": measure("temperature-celsius temperature-fahrenheit", tenths(2, 99)),
    "duration": measure("duration-minute duration-hour duration-day duration-week duration-month", whole(1, 399)),
    "trip": measure("duration-minute duration-hour", whole(1, 199)),
    "years": measure("duration-year duration-month", whole(1, 99)),
    "size": measure("digital-megabyte digital-gigabyte", tenths(1, 9_999)),
    "power": measure("power-watt power-kilowatt", tenths(1, 9_999)),
    "energy": measure("energy-kilocalorie", whole(2, 2_999)),
    "percent": percent,
}
"""Who fills which slot of `sentences.TEXT`."""
