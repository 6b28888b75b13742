"""The words that numbers meet in the sentences: names from CLDR (through babel), nouns from lists of our own.

CLDR (Unicode Common Locale Data Repository) gives countries, languages, currencies, units, months and days of the week
in both languages. What it does not tell, articles, genders and cents, stands here.
"""

from functools import cache
from typing import Final, NamedTuple

from babel import Locale
from babel.dates import get_day_names, get_month_names
from babel.numbers import get_currency_name
from babel.units import format_unit


class Name(NamedTuple):
    """A name in both languages."""

    english: str
    spanish: str


class Forms(NamedTuple):
    """A noun for one, and for more or fewer."""

    one: str
    many: str


class Noun(NamedTuple):
    """What can be counted, in both languages, with its Spanish gender."""

    english: Forms
    spanish: Forms
    feminine: bool


class Currency(NamedTuple):
    """A currency; `symbol` is empty where English writes the name, `cents` is None where nobody counts them."""

    noun: Noun
    symbol: str = ""
    cents: Noun | None = None


COUNTRIES: Final = """
AR BO BR CA CL CO CR CU EC SV GT HN MX NI PA PY PE UY VE US DO ES PT FR DE IT GB IE NL BE CH AT PL HU RO BG GR SE NO
DK FI IS RU UA EG MA DZ TN KE NG SN GH ZA ET JP CN IN ID VN TH PH KR AU NZ IL JO LB AE PK NP IR IQ
"""
ENGLISH_ARTICLES: Final = {"US", "GB", "NL", "DO", "PH", "AE"}
SPANISH_ARTICLES: Final = {"GB": "el", "NL": "los", "DO": "la", "AE": "los"}
LANGUAGES: Final = """
ar bg ca cs da de el es eu fa fi fr ga gl he hi hu id is it ja ko nl pl pt qu ro ru sv sw th tr uk ur vi zh
"""
FEMININE_CURRENCIES: Final = {"GBP", "INR", "SEK", "DKK"}
CURRENCIES: Final = "USD EUR GBP MXN CAD AUD ARS BRL COP CLP PEN JPY CHF INR SEK DKK"
FEMININE_UNITS: Final = {
    "length-mile",
    "length-inch",
    "mass-tonne",
    "mass-ounce",
    "area-hectare",
    "duration-hour",
    "duration-week",
    "energy-kilocalorie",
}

_CENTS: Final = {
    "USD": "cent/cents centavo/centavos m",
    "CAD": "cent/cents centavo/centavos m",
    "AUD": "cent/cents centavo/centavos m",
    "EUR": "cent/cents céntimo/céntimos m",
    "GBP": "penny/pence penique/peniques m",
    "MXN": "centavo/centavos centavo/centavos m",
    "ARS": "centavo/centavos centavo/centavos m",
    "BRL": "centavo/centavos centavo/centavos m",
}
_SYMBOLS: Final = {
    "$": ("dollar/dollars dólar/dólares m", "USD"),
    "€": ("euro/euros euro/euros m", "EUR"),
    "£": ("pound/pounds libra/libras f", "GBP"),
}

GOODS: Final = """
book/books libro/libros m; chair/chairs silla/sillas f; table/tables mesa/mesas f; bottle/bottles botella/botellas f;
pencil/pencils lápiz/lápices m; apple/apples manzana/manzanas f; egg/eggs huevo/huevos m; lamp/lamps lámpara/lámparas f;
key/keys llave/llaves f; shirt/shirts camisa/camisas f; cup/cups taza/tazas f; box/boxes caja/cajas f;
letter/letters carta/cartas f; photo/photos foto/fotos f; plate/plates plato/platos m; clock/clocks reloj/relojes m;
stamp/stamps sello/sellos m; coin/coins moneda/monedas f; flower/flowers flor/flores f; blanket/blankets manta/mantas f;
notebook/notebooks cuaderno/cuadernos m; mirror/mirrors espejo/espejos m; candle/candles vela/velas f;
hat/hats sombrero/sombreros m; knife/knives cuchillo/cuchillos m; shoe/shoes zapato/zapatos m
"""
PEOPLE: Final = """
student/students estudiante/estudiantes m; worker/workers trabajador/trabajadores m;
tourist/tourists turista/turistas m;
doctor/doctors médico/médicos m; nurse/nurses enfermera/enfermeras f; child/children niño/niños m;
woman/women mujer/mujeres f; man/men hombre/hombres m; musician/musicians músico/músicos m; girl/girls chica/chicas f;
soldier/soldiers soldado/soldados m; visitor/visitors visitante/visitantes m; guest/guests invitado/invitados m;
passenger/passengers pasajero/pasajeros m; person/people persona/personas f; family/families familia/familias f;
player/players jugador/jugadores m; teacher/teachers profesor/profesores m; actress/actresses actriz/actrices f
"""
POPULATION: Final = """
person/people persona/personas f; inhabitant/inhabitants habitante/habitantes m; house/houses casa/casas f;
family/families familia/familias f; woman/women mujer/mujeres f; car/cars coche/coches m; tree/trees árbol/árboles m;
worker/workers trabajador/trabajadores m; child/children niño/niños m; animal/animals animal/animales m
"""
CROWDS: Final = """
person/people persona/personas f; woman/women mujer/mujeres f; citizen/citizens ciudadano/ciudadanos m;
student/students estudiante/estudiantes m; tourist/tourists turista/turistas m; visitor/visitors visitante/visitantes m;
family/families familia/familias f; nurse/nurses enfermera/enfermeras f
"""
PAPERS: Final = """
book/books libro/libros m; letter/letters carta/cartas f; newspaper/newspapers periódico/periódicos m;
document/documents documento/documentos m; magazine/magazines revista/revistas f; map/maps mapa/mapas m;
word/words palabra/palabras f; page/pages página/páginas f; poem/poems poema/poemas m
"""
LANDS: Final = "country/countries país/países m; city/cities ciudad/ciudades f; island/islands isla/islas f"
FLOORS: Final = "floor/floors piso/pisos m"
ATTEMPTS: Final = "attempt/attempts intento/intentos m"
PLACES: Final = "place/places lugar/lugares m; position/positions posición/posiciones f"
PASSAGES: Final = """
chapter/chapters capítulo/capítulos m; page/pages página/páginas f; lesson/lessons lección/lecciones f;
paragraph/paragraphs párrafo/párrafos m; letter/letters carta/cartas f; poem/poems poema/poemas m;
line/lines línea/líneas f; story/stories cuento/cuentos m
"""
EVENTS: Final = """
congress/congresses congreso/congresos m; concert/concerts concierto/conciertos m; meeting/meetings reunión/reuniones f;
session/sessions sesión/sesiones f; festival/festivals festival/festivales m; tournament/tournaments torneo/torneos m;
match/matches partido/partidos m; conference/conferences conferencia/conferencias f; race/races carrera/carreras f
"""

WHO: Final = """
He=Él; She=Ella; Ana=Ana; Luis=Luis; Carmen=Carmen; Pablo=Pablo; Elena=Elena; Diego=Diego; Lucía=Lucía; Andrés=Andrés;
my sister=mi hermana; my brother=mi hermano; my father=mi padre; my mother=mi madre; my uncle=mi tío; my aunt=mi tía;
our neighbor=nuestro vecino; the engineer=la ingeniera; the lawyer=el abogado; the baker=el panadero;
the writer=la escritora; his wife=su mujer; her husband=su marido; my best friend=mi mejor amigo;
their daughter=su hija; the farmer=el granjero;
the new teacher=el nuevo profesor; the mayor=la alcaldesa; my boss=mi jefe; the singer=la cantante
"""
CITIES: Final = """
Madrid=Madrid; Lima=Lima; London=Londres; New York=Nueva York; Paris=París; Lisbon=Lisboa; Berlin=Berlín; Rome=Roma;
Geneva=Ginebra; Moscow=Moscú; Athens=Atenas; Vienna=Viena; Cairo=El Cairo; Tokyo=Tokio; Seville=Sevilla; Quito=Quito;
Bogotá=Bogotá; Buenos Aires=Buenos Aires; Havana=La Habana; Warsaw=Varsovia; Brussels=Bruselas; Milan=Milán;
Florence=Florencia; Munich=Múnich; Cologne=Colonia; Marseille=Marsella; Mexico City=Ciudad de México; Beijing=Pekín
"""


def nouns(text: str) -> tuple[Noun, ...]:
    """Read a list: `one/many uno/varios m`, parted by semicolons."""
    found = []
    for entry in text.split(";"):
        english, spanish, gender = entry.split()
        found.append(Noun(Forms(*english.split("/")), Forms(*spanish.split("/")), gender == "f"))
    return tuple(found)


def names(text: str) -> tuple[Name, ...]:
    """Read a list: `english=español`, parted by semicolons."""
    return tuple(Name(*entry.strip().split("=")) for entry in text.split(";"))


@cache
def countries() -> tuple[Name, ...]:
    """The countries, with the article where one is said."""
    english, spanish = Locale.parse("en").territories, Locale.parse("es").territories
    return tuple(
        Name(
            f"the {english[code]}" if code in ENGLISH_ARTICLES else english[code],
            f"{SPANISH_ARTICLES[code]} {spanish[code]}" if code in SPANISH_ARTICLES else spanish[code],
        )
        for code in COUNTRIES.split()
    )


@cache
def languages() -> tuple[Name, ...]:
    """The languages."""
    english, spanish = Locale.parse("en").languages, Locale.parse("es").languages
    return tuple(Name(english[code], spanish[code]) for code in LANGUAGES.split())


@cache
def months() -> tuple[Name, ...]:
    """The months, January first."""
    english, spanish = (get_month_names("wide", locale=locale) for locale in ("en", "es"))
    return tuple(Name(english[month], spanish[month]) for month in range(1, 13))


@cache
def weekdays() -> tuple[Name, ...]:
    """The days of the week, Monday first."""
    english, spanish = (get_day_names("wide", locale=locale) for locale in ("en", "es"))
    return tuple(Name(english[day], spanish[day]) for day in range(7))


@cache
def currencies() -> tuple[Currency, ...]:
    """The currencies by name, and three of them by their sign (in English `$5` is said `five dollars`)."""
    found = []
    for code in CURRENCIES.split():
        english, spanish = (
            Forms(*(get_currency_name(code, count=count, locale=locale) for count in (1, 2))) for locale in ("en", "es")
        )
        cents = nouns(_CENTS[code])[0] if code in _CENTS else None
        found.append(Currency(Noun(english, spanish, code in FEMININE_CURRENCIES), "", cents))
    for symbol, (noun, code) in _SYMBOLS.items():
        found.append(Currency(nouns(noun)[0], symbol, nouns(_CENTS[code])[0]))
    return tuple(found)


@cache
def unit(code: str) -> Noun:
    """Give the unit that CLDR calls `code`, such as `length-kilometer`."""
    english, spanish = (
        Forms(*(format_unit(count, code, "long", locale=locale).split(maxsplit=1)[1] for count in (1, 2)))
        for locale in ("en", "es")
    )
    return Noun(english, spanish, code in FEMININE_UNITS)
