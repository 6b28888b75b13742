"""The sentences: English, a bar, Spanish, with slots that `phrases.SLOTS` fills; a digit tells two alike apart.

What the pieces do to each other is left to `contract`: `de el` is `del`, `a el` is `al`, `y` before i is `e`.
"""

import re
from functools import cache
from typing import Final, NamedTuple

TEXT: Final = """
{who} bought {goods} for {money}. | {who} compró {goods} por {money}.
{who} sold {goods} and {goods2} last week. | {who} vendió {goods} y {goods2} la semana pasada.
{who} needs {goods} before {time}. | {who} necesita {goods} antes de {time}.
{who} ordered {goods} on {date}. | {who} pidió {goods} {date}.
{who} gave me {goods} for my birthday. | {who} me regaló {goods} por mi cumpleaños.
{who} brought {goods} from {country}. | {who} trajo {goods} de {country}.
There are {items} in the warehouse. | Hay {items} en el almacén.
The crate contains {items} and weighs {mass}. | El cajón contiene {items} y pesa {mass}.
The shop in {city} sold {items} in one day. | La tienda de {city} vendió {items} en un día.
We received {items} from {country}. | Recibimos {items} de {country}.
I would like to buy {goods}, please. | Me gustaría comprar {goods}, por favor.
Do you have {items} for me? | ¿Tienes {items} para mí?
The factory in {country} makes {items} every hour. | La fábrica de {country} hace {items} cada hora.
The invoice of {money} is due on {soon}. | La factura de {money} vence {soon}.
The ticket to {country} costs {fare}. | El billete a {country} cuesta {fare}.
{who} earns {salary} a month. | {who} gana {salary} al mes.
{who} paid {fare} for the hotel in {city}. | {who} pagó {fare} por el hotel de {city}.
{who} owes the bank {money}. | {who} debe {money} al banco.
{who} saved {money} in {duration}. | {who} ahorró {money} en {duration}.
{who} sent {money} to a friend in {country}. | {who} envió {money} a un amigo en {country}.
{who} found {money} in the street at {time}. | {who} encontró {money} en la calle a {time}.
{who} spent {money} on {items}. | {who} gastó {money} en {items}.
The price rose from {money} to {money2}. | El precio subió de {money} a {money2}.
The bill comes to {money}. | La cuenta asciende a {money}.
The dinner for {crowd} cost {money}. | La cena para {crowd} costó {money}.
Can you lend me {money}? | ¿Puedes prestarme {money}?
The rent is {fare} a week. | El alquiler es de {fare} a la semana.
The painting is worth {wealth}. | El cuadro vale {wealth}.
A kilo of coffee costs {price} in {country}. | Un kilo de café cuesta {price} en {country}.
The company lost {wealth} in {year}. | La empresa perdió {wealth} en {year}.
The house was sold for {wealth} on {date}. | La casa se vendió por {wealth} {date}.
The government of {country} spent {wealth} on schools. | El gobierno de {country} gastó {wealth} en escuelas.
The bank in {city} lent the company {wealth}. | El banco de {city} prestó {wealth} a la empresa.
The train to {city} leaves at {time}. | El tren a {city} sale a {time}.
The flight from {country} arrives at {time}. | El vuelo de {country} llega a {time}.
{clock} in {city}. | {clock} en {city}.
Look, {clock}! | ¡Mira, {clock}!
The meeting starts at {time} and ends at {time2}. | La reunión empieza a {time} y termina a {time2}.
The shop in {city} is open from {time} to {time2}. | La tienda de {city} abre de {time} a {time2}.
{who} wakes up at {time}. | {who} se despierta a {time}.
{who} will arrive in {city} at {time}. | {who} llegará a {city} a {time}.
{who} called from {country} at {time}. | {who} llamó desde {country} a {time}.
{who} has a doctor's appointment at {time}. | {who} tiene cita con el médico a {time}.
Please call me before {time}. | Por favor, llámame antes de {time}.
The {language} class begins at {time}. | La clase de {language} comienza a {time}.
The news in {language} begins at {time}. | Las noticias en {language} empiezan a {time}.
Bus number {room} leaves at {time}. | El autobús número {room} sale a {time}.
The film in {language} ends at {time}. | La película en {language} termina a {time}.
The alarm rang at {time}. | La alarma sonó a {time}.
We have dinner at {time}. | Cenamos a {time}.
{who} was born on {date} in {country}. | {who} nació {date} en {country}.
{who} moved to {country} on {date}. | {who} se mudó a {country} {date}.
{who} signed the letter on {date}. | {who} firmó la carta {date}.
{who} has lived in {country} since {lately}. | {who} vive en {country} desde {lately}.
{who} left {city} on {date} at {time}. | {who} salió de {city} {date} a {time}.
The contract ends on {soon}. | El contrato termina {soon}.
The museum in {city} opened on {date}. | El museo de {city} abrió {date}.
The {language} exam will take place on {soon} at {time}. | El examen de {language} será {soon} a {time}.
The conference in {city} begins on {soon}. | La conferencia de {city} comienza {soon}.
Today is {date}. | Hoy es {date}.
The ship sailed from {city} on {date} with {crowd}. | El barco zarpó de {city} {date} con {crowd}.
The book was published in {language} on {date}. | El libro se publicó en {language} {date}.
The law came into force on {date}. | La ley entró en vigor {date}.
The offer is valid until {soon}. | La oferta es válida hasta {soon}.
My passport expires on {soon}. | Mi pasaporte caduca {soon}.
{who} studied {language} in {country} in {year}. | {who} estudió {language} en {country} en {year}.
{who} won {money} in {year}. | {who} ganó {money} en {year}.
The bridge was built in {year} and is {length} long. | El puente se construyó en {year} y mide {length}.
In {year} the region had {population}. | En {year} la región tenía {population}.
The company was founded in {city} in {year}. | La empresa se fundó en {city} en {year}.
The war ended in {year}. | La guerra terminó en {year}.
{who} lives on {floor}. | {who} vive en {floor}.
The lift stops on {floor}. | El ascensor para en {floor}.
The office on {floor} has room for {crowd}. | La oficina de {floor} tiene sitio para {crowd}.
{who} attended {event} in {city}. | {who} asistió a {event} en {city}.
{who} missed {event} in {country}. | {who} se perdió {event} en {country}.
{event} took place in {country} in {year}. | {event} tuvo lugar en {country} en {year}.
{event} begins on {soon}. | {event} comienza {soon}.
{who} is reading {passage} of the book. | {who} está leyendo {passage} del libro.
{who} translated {passage} into {language}. | {who} tradujo {passage} al {language}.
{who} finished in {place}. | {who} terminó en {place}.
{who} passed the exam on {attempt}. | {who} aprobó el examen a {attempt}.
Please read {passage} before {soon}. | Por favor, lee {passage} antes de {soon}.
{passage} is in {language}. | {passage} está en {language}.
The river in {country} is {length} long. | El río de {country} mide {length} de largo.
{who} ran {distance} in {duration}. | {who} corrió {distance} en {duration}.
The distance from {city} to {city2} is {distance}. | La distancia de {city} a {city2} es de {distance}.
The car was going at {speed}. | El coche iba a {speed}.
The suitcase weighs {mass}. | La maleta pesa {mass}.
The farm in {country} covers {area}. | La granja de {country} ocupa {area}.
The temperature in {city} reached {temperature}. | La temperatura en {city} alcanzó los {temperature}.
The tank holds {volume} of water. | El depósito contiene {volume} de agua.
{who} drinks {volume} of water a week. | {who} bebe {volume} de agua a la semana.
Add {volume} of milk and {grams} of flour. | Añade {volume} de leche y {grams} de harina.
The flight to {country} lasts {trip}. | El vuelo a {country} dura {trip}.
{who} stayed in {country} for {duration}. | {who} se quedó en {country} durante {duration}.
{who} has been learning {language} for {years}. | {who} aprende {language} desde hace {years}.
The file takes up {size}. | El archivo ocupa {size}.
The motor uses {power}. | El motor consume {power}.
The dish has {energy}. | El plato tiene {energy}.
The tower in {city} is {height} tall. | La torre de {city} mide {height} de alto.
About {percent} of the students speak {language}. | Alrededor del {percent} de los estudiantes habla {language}.
Sales in {country} grew by {percent} in {year}. | Las ventas en {country} crecieron un {percent} en {year}.
{who} got {percent} of the votes in {city}. | {who} obtuvo el {percent} de los votos en {city}.
The battery is at {percent}. | La batería está al {percent}.
There are {crowd} from {country} who speak {language}. | Hay {crowd} de {country} que hablan {language}.
{crowd} visited the museum on {date}. | {crowd} visitaron el museo {date}.
{crowd} and {crowd2} came to the party. | {crowd} y {crowd2} vinieron a la fiesta.
{crowd} are waiting for the train to {city}. | {crowd} esperan el tren a {city}.
The school in {city} has {crowd}. | La escuela de {city} tiene {crowd}.
The hotel has room for {crowd}. | El hotel tiene sitio para {crowd}.
{who} invited {crowd} to {event}. | {who} invitó a {crowd} a {event}.
{thousands} in {country} signed the petition. | {thousands} de {country} firmaron la petición.
{thousands} speak {language} in {country}. | {thousands} hablan {language} en {country}.
The island belongs to {country} and has {population}. | La isla pertenece a {country} y tiene {population}.
The library in {city} holds {papers} in {language}. | La biblioteca de {city} guarda {papers} en {language}.
{who} has read {papers} in {language}. | {who} ha leído {papers} en {language}.
{who} speaks {language} and {language2} and has seen {lands}. | {who} habla {language} y {language2} y ha visto {lands}.
{who} translated {papers} from {language} into {language2}. | {who} tradujo {papers} del {language} al {language2}.
The answer is {number}. | La respuesta es {number}.
Is {number} greater than {number2}? | ¿Es {number} mayor que {number2}?
What is {number} plus {number2}? | ¿Cuánto es {number} más {number2}?
Multiply {number} by {number2}. | Multiplica {number} por {number2}.
How do you say {number} in {language}? | ¿Cómo se dice {number} en {language}?
{who} can count up to {number} in {language}. | {who} sabe contar hasta {number} en {language}.
My room is number {room}. | Mi habitación es la número {room}.
Please open the book at page {room}. | Por favor, abre el libro por la página {room}.
{who} lives at number {room} on this street. | {who} vive en el número {room} de esta calle.
Flight {room} to {country} leaves at {time}. | El vuelo {room} a {country} sale a {time}.
"""

_SLOT: Final = re.compile(r"\{(([a-z]+)\d?)\}")


class Sentence(NamedTuple):
    """A sentence with open slots; `slots` holds (name in the text, who fills it) in the order of the English text."""

    english: str
    spanish: str
    slots: tuple[tuple[str, str], ...]


@cache
def sentences() -> tuple[Sentence, ...]:
    """All sentences."""
    found = []
    for line in TEXT.strip().splitlines():
        english, spanish = line.split(" | ")
        found.append(Sentence(english, spanish, tuple((at[1], at[2]) for at in _SLOT.finditer(english))))
    return tuple(found)


def join(text: str, filled: dict[str, str]) -> str:
    """Fill the slots of a sentence and begin it with a capital letter; an abbreviation's dot ends the sentence too."""
    whole = text.format(**filled).replace("a.m..", "a.m.").replace("p.m..", "p.m.")
    first = 1 if whole[0] in "¿¡" else 0
    return whole[:first] + whole[first].upper() + whole[first + 1 :]


def contract(spanish: str) -> str:
    """Join Spanish words as they meet: `de el` is `del`, `a el` is `al`, `y inglés` is `e inglés`."""
    spanish = spanish.replace(" de el ", " del ").replace(" a el ", " al ")
    return re.sub(r" y (?=h?i(?!e))", " e ", spanish)
