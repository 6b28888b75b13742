"""Stages that are repeated: written out round by round, with what a schedule over rounds has in each."""

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from operator import attrgetter
from typing import Any, NamedTuple

from etude.app.stages.tables import AGAIN, TRAIN, Entry, below, without
from etude.base.config.composing import Layer, Origin, merged
from etude.base.config.lines import Key
from etude.base.errors import ConfigError
from etude.base.near import did_you_mean
from etude.tasks.config import Config
from etude.tasks.pipelines import RepeatTable

MODEL, TOPOLOGY = "model", "topology"
_ROUNDS = re.compile(r"\s*(\d+)\s*rounds?\s*")


def written_out(entries: Sequence[Entry], repeats: Sequence[tuple[RepeatTable, Origin]]) -> list[Entry]:
    """The stages with every round of those that are repeated: those of round 2 are called `NAME-2`.

    By the name of a stage that is repeated, one of the same round means that of its own round where it comes before,
    else that of the round before; any other stage that of the last round. `NAME-1` is that of the first. Raises
    ConfigError for a repeat that names no stage, or a stage of another repeat.
    """
    blocks = sorted((_block(entries, *repeat) for repeat in repeats), key=attrgetter("start"))
    _refuse_shared(blocks)
    scope = _outside(blocks)
    found = list(_in_order(entries, blocks, scope))
    _refuse_same([entry.name for entry in found])
    _refuse_again(entries, set(chain.from_iterable(block.places for block in blocks)))
    return found


def _in_order(entries: Sequence[Entry], blocks: Sequence["_Block"], scope: Mapping[str, str]) -> Iterator[Entry]:
    """The stages between the blocks, and the rounds of each block where it stands."""
    at = 0
    for block in blocks:
        yield from _scoped(entries[at : block.start], scope)
        yield from block.rounds(scope)
        at = block.stop
    yield from _scoped(entries[at:], scope)


def _scoped(entries: Sequence[Entry], scope: Mapping[str, str]) -> Iterator[Entry]:
    """Stages that stand outside of repeats."""
    return (replace(entry, scope=scope) for entry in entries)


def _outside(blocks: Sequence["_Block"]) -> dict[str, str]:
    """What stages outside of repeats mean by the names of those inside: the last round, and by `NAME-1` the first."""
    meant: dict[str, str] = {}
    for block in blocks:
        for name in block.names:
            meant |= {name: _named(name, block.times), f"{name}-1": name}
    return meant


class _Block(NamedTuple):
    """Stages that are repeated together."""

    entries: Sequence[Entry]
    start: int
    """The place of the first of them in the file."""
    times: int

    @property
    def stop(self) -> int:
        """The place behind the last."""
        return self.start + len(self.entries)

    @property
    def places(self) -> range:
        """Where they stand."""
        return range(self.start, self.stop)

    @property
    def names(self) -> list[str]:
        """What they are called in the first round."""
        return [entry.name for entry in self.entries]

    @property
    def trained(self) -> str:
        """The last of them that trains; empty where none does."""
        return next((entry.name for entry in reversed(self.entries) if entry.do == TRAIN), "")

    def rounds(self, scope: Mapping[str, str]) -> Iterator[Entry]:
        """Every stage of every round."""
        for number in range(1, self.times + 1):
            yield from (self._of_round(number, place, scope) for place in range(len(self.entries)))

    def _of_round(self, number: int, place: int, scope: Mapping[str, str]) -> Entry:
        """One stage of a round, counted from 1."""
        entry = self.entries[place]
        named = replace(entry, name=_named(entry.name, number), first=entry.name)
        made = replace(named, round=number - 1, scope={**scope, **self._inside(number, place)})
        if number == 1:
            return made.without(AGAIN)
        return _again(made, self, is_first=not place)

    def _inside(self, number: int, place: int) -> dict[str, str]:
        """What a stage of a round means by the others: those before it of this round, else of the round before."""
        rounds = [number] * place + [max(1, number - 1)] * (len(self.entries) - place)
        return dict(zip(self.names, map(_named, self.names, rounds), strict=True))


def _block(entries: Sequence[Entry], repeat: RepeatTable, origin: Origin) -> _Block:
    """The stages that a repeat names. Raises ConfigError where there are none."""
    names = [entry.name for entry in entries]
    _refuse_unknown("from", repeat.from_, names, origin)
    _refuse_unknown("to", repeat.to, names, origin)
    first, last = names.index(repeat.from_), names.index(repeat.to)
    if last < first:
        raise ConfigError(f'repeat goes from "{repeat.from_}" to "{repeat.to}", which comes before it ({origin}).')
    return _Block(entries[first : last + 1], first, repeat.times)


def _refuse_unknown(key: str, name: str, names: Sequence[str], origin: Origin) -> None:
    if name not in names:
        hint = did_you_mean(name, names, f"there are {', '.join(names)}.", quote='"')
        raise ConfigError(f'repeat.{key} is "{name}", which is not a stage; {hint} ({origin}).')


def _refuse_shared(blocks: Sequence[_Block]) -> None:
    for one, other in pairwise(blocks):
        if one.stop > other.start:
            raise ConfigError(f'The repeat from "{other.names[0]}" shares stages with another repeat.')


def _named(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"


def _again(entry: Entry, block: _Block, *, is_first: bool) -> Entry:
    """A stage as it is after the first round: `again` laid over it.

    The first of a round that takes a model takes the one that the round before has trained, in that one's topology.
    """
    changes = _changes(entry)
    entry = entry.without(AGAIN)
    takes_model = is_first and entry.do != TRAIN and MODEL not in changes.data
    if takes_model and block.trained:
        entry = _taking(entry, block.trained)
    return replace(entry, layers=[merged(Config, [*entry.layers[:1], changes]), *entry.layers[1:]])


def _changes(entry: Entry) -> Layer:
    """What `again` of a stage holds."""
    given = (below(layer, (AGAIN,), layer.data[AGAIN]) for layer in entry.layers if AGAIN in layer.data)
    return next(given, Layer())


def _taking(entry: Entry, name: str) -> Entry:
    """A stage that takes the model of another."""
    model = entry.given(MODEL)
    which = model.partition("/")[2] if isinstance(model, str) else ""
    layer = Layer({MODEL: f"{name}/{which or 'best'}"}, {(MODEL,): entry.origin})
    first = without(entry.layers[0], (TOPOLOGY,))
    return replace(entry, layers=[merged(Config, [first, layer]), *entry.layers[1:]])


def _refuse_same(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f'Two stages are called "{name}", one of them as a later round of a repeat: rename one.')


def _refuse_again(entries: Sequence[Entry], repeated: set[int]) -> None:
    for place, entry in enumerate(entries):
        if place not in repeated and entry.given(AGAIN) is not None:
            raise ConfigError(entry.said(f"again is for a stage that is repeated ({entry.origin})."))


# -- schedules over rounds -----------------------------------------------------------------------------------------


def at_round(layer: Layer, number: int) -> Layer:
    """A layer in which a schedule over rounds is the plain value that it has in round `number`, counted from 0."""
    values = dict(_values(layer.data, (), number))
    origins = {key: origin for key, origin in layer.origins.items() if not _is_inside(key, values)}
    return Layer(_with(layer.data, values, ()), origins, layer.problems, layer.command)


def _is_inside(key: Key, places: Container[Key]) -> bool:
    """Whether a key lies below one of the places."""
    return any(key[:length] in places for length in range(len(key)))


def _values(nest: object, place: Key, number: int) -> Iterator[tuple[Key, object]]:
    """The values of all schedules over rounds."""
    if not isinstance(nest, Mapping):
        return
    index = _index(nest, number)
    if index is not None:
        yield place, nest["values"][index]
        return
    for key, part in nest.items():
        yield from _values(part, (*place, key), number)


def _index(table: Mapping[str, Any], number: int) -> int | None:
    """Which of its values a table has in a round, if it is a schedule over rounds."""
    match table:
        case {"schedule": "stairs", "values": [_, *_] as values}:
            return _step(table, number, len(values))
    return None


def _step(stairs: Mapping[str, Any], number: int, count: int) -> int | None:
    """Which step of stairs is reached in a round; None where these are not over rounds."""
    every = _rounds_of(stairs.get("every"))
    if every:
        return min(number // every, count - 1)
    match stairs.get("at"):
        case list() as moments if len(moments) == count:
            return _last_begun(list(map(_rounds_of, moments)), number)
    return None


def _last_begun(moments: Sequence[int | None], number: int) -> int | None:
    """The last of these moments that has come; None where one is not of rounds."""
    rounds = [moment for moment in moments if moment is not None]
    if len(rounds) < len(moments):
        return None
    return sum(map(number.__ge__, rounds)) - 1


def _rounds_of(text: object) -> int | None:
    """How many rounds a text says; None where it says something else."""
    match text:
        case str() if found := _ROUNDS.fullmatch(text):
            return int(found[1])
    return None


def _with(nest: Mapping[str, Any], values: Mapping[Key, object], place: Key) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, part in nest.items():
        here = (*place, key)
        made[key] = values.get(here, _with(part, values, here) if isinstance(part, Mapping) else part)
    return made
