"""Stages that are repeated: written out round by round, with what a schedule over rounds has in each."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from etude.app.stages.tables import AGAIN, TRAIN, Entry, below, without
from etude.base.config.composing import Layer, Origin, merged
from etude.base.config.lines import Key
from etude.base.errors import ConfigError
from etude.base.near import nearest
from etude.tasks.config import Config
from etude.tasks.pipelines import RepeatTable

MODEL, TOPOLOGY = "model", "topology"
STAIRS = "stairs"
_ROUNDS = re.compile(r"\s*(\d+)\s*rounds?\s*")


def written_out(entries: Sequence[Entry], repeats: Sequence[tuple[RepeatTable, Origin]]) -> list[Entry]:
    """The stages with every round of those that are repeated: those of round 2 are called `NAME-2`.

    By the name of a stage that is repeated, one of the same round means that of its own round where it comes before,
    else that of the round before; any other stage that of the last round. `NAME-1` is that of the first. Raises
    ConfigError for a repeat that names no stage, or a stage of another repeat.
    """
    blocks = sorted((_block(entries, *repeat) for repeat in repeats), key=_start)
    for (one, _), (other, repeat) in pairwise(blocks):
        if one.stop > other.start:
            raise ConfigError(f'The repeat from "{repeat.from_}" shares stages with another repeat.')
    outside: dict[str, str] = {}
    for block, repeat in blocks:
        names = [entries[place].name for place in block]
        outside |= {name: _named(name, repeat.times) for name in names} | {f"{name}-1": name for name in names}
    found, at = list[Entry](), 0
    for block, repeat in blocks:
        found += [replace(entry, scope=outside) for entry in entries[at : block.start]]
        found += _rounds([entries[place] for place in block], repeat.times, outside)
        at = block.stop
    found += [replace(entry, scope=outside) for entry in entries[at:]]
    _refuse_same([entry.name for entry in found])
    _refuse_again(entries, {place for block, _ in blocks for place in block})
    return found


def _start(block: tuple[range, RepeatTable]) -> int:
    return block[0].start


def _block(entries: Sequence[Entry], repeat: RepeatTable, origin: Origin) -> tuple[range, RepeatTable]:
    """The positions of the stages that are repeated, and the repeat."""
    names = [entry.name for entry in entries]
    for key, name in (("from", repeat.from_), ("to", repeat.to)):
        if name not in names:
            near = nearest(name, names)
            hint = f'did you mean "{near}"?' if near else f"there are {', '.join(names)}."
            raise ConfigError(f'repeat.{key} is "{name}", which is not a stage; {hint} ({origin}).')
    first, last = names.index(repeat.from_), names.index(repeat.to)
    if last < first:
        raise ConfigError(f'repeat goes from "{repeat.from_}" to "{repeat.to}", which comes before it ({origin}).')
    return range(first, last + 1), repeat


def _rounds(block: Sequence[Entry], times: int, scope: Mapping[str, str]) -> Iterator[Entry]:
    names = [entry.name for entry in block]
    for number in range(1, times + 1):
        for place, entry in enumerate(block):
            rounds = [number] * place + [max(1, number - 1)] * (len(block) - place)
            own = {name: _named(name, which) for name, which in zip(names, rounds, strict=True)}
            named = replace(entry, name=_named(entry.name, number), first=entry.name)
            made = replace(named, round=number - 1, scope={**scope, **own})
            yield made.without(AGAIN) if number == 1 else _again(made, block, is_first=not place)


def _named(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"


def _again(entry: Entry, block: Sequence[Entry], *, is_first: bool) -> Entry:
    """A stage as it is after the first round: `again` laid over it.

    The first of a round that takes a model takes the one that the round before has trained, in that one's topology.
    """
    changes = next(
        (below(layer, (AGAIN,), layer.data[AGAIN]) for layer in entry.layers if AGAIN in layer.data), Layer()
    )
    entry = entry.without(AGAIN)
    trained = [one.name for one in block if one.do == TRAIN]
    if is_first and entry.do != TRAIN and trained and MODEL not in changes.data:
        entry = _taking(entry, trained[-1])
    return replace(entry, layers=[merged(Config, [*entry.layers[:1], changes]), *entry.layers[1:]])


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
    origins = dict(layer.origins)
    for place in values:
        inside = [key for key in origins if key[: len(place)] == place and key != place]
        for key in inside:
            origins.pop(key)
    return Layer(_with(layer.data, values, ()), origins, layer.problems, layer.command)


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
    values = table.get("values")
    if table.get("schedule") != STAIRS or not isinstance(values, list) or not values:
        return None
    every, at = _rounds_of(table.get("every")), table.get("at")
    if every:
        return min(number // every, len(values) - 1)
    moments = [_rounds_of(moment) for moment in at] if isinstance(at, list) else [None]
    if None in moments or len(moments) != len(values):
        return None
    return sum(moment <= number for moment in moments if moment is not None) - 1


def _rounds_of(text: object) -> int | None:
    """How many rounds a text says; None where it says something else."""
    found = _ROUNDS.fullmatch(text) if isinstance(text, str) else None
    return None if found is None else int(found[1])


def _with(nest: Mapping[str, Any], values: Mapping[Key, object], place: Key) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, part in nest.items():
        here = (*place, key)
        made[key] = values.get(here, _with(part, values, here) if isinstance(part, Mapping) else part)
    return made
