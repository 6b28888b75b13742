"""The tables of a pipeline, `[[stage]]` and `[[repeat]]`, as they are written."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, filterfalse
from pathlib import Path
from typing import Any, TypeGuard

from etude.base.config.composing import Layer, Origin
from etude.base.config.lines import Key
from etude.base.config.loading import validated
from etude.base.errors import ConfigError
from etude.base.near import did_you_mean
from etude.tasks.config import STAGES
from etude.tasks.pipelines import RepeatTable

REPEATS = "repeat"
NAME, DO, AGAIN = "name", "do", "again"
CONFIG_KEY = "config"
"""The key of a stage for changes of sections whose name the stage needs for itself, as `config.model`."""
TRAIN = "train"
FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
FILES = ("config.toml", "pipeline.json")
"""What a pipeline's own files are called."""
SET_ASIDE = re.compile(r".*\.old-\d+")


@dataclass(frozen=True)
class Entry:
    """A stage as it is written."""

    name: str
    do: str = TRAIN
    path: Path | None = None
    """The config that it changes."""
    layers: Sequence[Layer] = ()
    """Its keys beside `name` and `do`: those of the file, and above them those of the command line."""
    base: Sequence[Layer] = ()
    """What it changes."""
    above: Sequence[Layer] = ()
    """What the command line changes in all stages."""
    origin: Origin = field(default_factory=Origin)
    round: int = 0
    """Counted from 0."""
    first: str = ""
    """What it is called in the first round, where it is repeated."""
    scope: Mapping[str, str] = field(default_factory=dict)
    """What it means by the names of other stages, where that is not what they are called."""
    speaker: str = ""
    """The stage that a problem is told of, where that is another which uses this one's config."""
    made: Any = None
    """What it does, where that is given as an object rather than by name."""

    def said(self, problem: str) -> str:
        """A problem of it as a sentence that names it."""
        return f'stage "{self.speaker or self.name}": {problem}'

    def given(self, key: str) -> object:
        """What the last of its layers that has a key says; None where none has it."""
        return next((layer.data[key] for layer in reversed(self.layers) if key in layer.data), None)

    def without(self, *keys: str) -> "Entry":
        """The same without some of its keys."""
        return replace(self, layers=[without(layer, keys) for layer in self.layers])


def without(layer: Layer, keys: Sequence[str]) -> Layer:
    """A layer without some of its keys."""
    return only(layer, [key for key in layer.data if key not in keys])


def only(layer: Layer, keys: Sequence[str]) -> Layer:
    """Some keys of a layer."""
    data = {key: layer.data[key] for key in keys if key in layer.data}
    origins = {place: origin for place, origin in layer.origins.items() if place[:1] and place[0] in data}
    return Layer(data, origins, command=layer.command)


def below(layer: Layer, place: Key, value: object) -> Layer:
    """The layer that a table of a layer is; `value` is what stands at its place."""
    length = len(place)
    origins = {key[length:]: origin for key, origin in layer.origins.items() if key[:length] == place}
    return Layer(dict(value) if isinstance(value, Mapping) else {}, origins, command=layer.command)


def changing(layer: Layer, own: Sequence[str]) -> list[Layer]:
    """What a layer of a stage changes in the config, but for keys that are the stage's own."""
    inside = [below(layer, (CONFIG_KEY,), layer.data[CONFIG_KEY])] if CONFIG_KEY in layer.data else []
    return [without(layer, [*own, CONFIG_KEY]), *inside]


def has_stages(layers: Sequence[Layer]) -> bool:
    """Whether a config is a pipeline."""
    return any(STAGES in layer.data for layer in layers)


def entries_of(path: Path, files: Sequence[Layer], command: Layer) -> list[Entry]:
    """The stages of a config, in the order of the file; `files` are its layers. Raises ConfigError."""
    holder = next(layer for layer in reversed(files) if STAGES in layer.data)
    found, problems = list[Entry](), list[str]()
    for number, table in enumerate(_stage_tables(holder)):
        layer = below(holder, (STAGES, number), table)
        try:
            found.append(_entry(layer, holder.origin_of((STAGES, number)) or Origin()))
        except ConfigError as error:
            problems += error.problems
    problems += _same_names(found)
    if problems:
        raise ConfigError(problems)
    return _laid_over(found, path, files, command)


def _stage_tables(holder: Layer) -> Sequence[Mapping[str, object]]:
    """The tables `[[stage]]` of a layer. Raises ConfigError for what is none."""
    tables = holder.data[STAGES]
    if not tables or not _are_tables(tables):
        raise ConfigError(f"stage must be one or more tables [[stage]] ({holder.origin_of((STAGES,))}).")
    return tables


def _are_tables(value: object) -> TypeGuard[Sequence[Mapping[str, object]]]:
    return isinstance(value, list) and all(isinstance(one, Mapping) for one in value)


def _laid_over(entries: Sequence[Entry], path: Path, files: Sequence[Layer], command: Layer) -> list[Entry]:
    """Stages over what they share: the other keys of the file, and above all those of the command line."""
    base, above = ([without(layer, (STAGES, REPEATS)) for layer in layers] for layers in (files, [command]))
    return [replace(entry, path=path, base=base, above=above) for entry in entries]


def _entry(layer: Layer, origin: Origin) -> Entry:
    """A stage by its table. Raises ConfigError for one without a name that a folder can have."""
    name, do = layer.data.get(NAME), layer.data.get(DO, TRAIN)
    if name is None:
        raise ConfigError(f"stage.name is missing: set it in [[stage]] ({origin}).")
    check_name(name, str(layer.origin_of((NAME,))))
    if not isinstance(do, str):
        raise ConfigError(f'stage "{name}": do must be a word or an import path ({layer.origin_of((DO,))}).')
    return Entry(str(name), do, layers=[without(layer, (NAME, DO))], origin=origin)


def check_name(name: object, where: str) -> None:
    """Raise ConfigError for what no stage can be called, since its folder is called the same."""
    if not isinstance(name, str) or not _can_be_called(name):
        raise ConfigError(
            f"stage.name must be the name of a folder, of letters, digits, - and _ and without .old-, but is {name!r} "
            f"({where})."
        )


def _can_be_called(name: str) -> bool:
    """Whether a stage's folder can have this name among the files of a pipeline and the folders that are kept."""
    return name not in FILES and bool(FOLDER.fullmatch(name)) and not SET_ASIDE.fullmatch(name)


def _same_names(entries: Sequence[Entry]) -> Iterator[str]:
    """A sentence for each stage with the name of one before it."""
    seen: dict[str, Entry] = {}
    for entry in entries:
        if entry.name in seen:
            yield f'Two stages are called "{entry.name}": {seen[entry.name].origin} and {entry.origin}.'
        seen.setdefault(entry.name, entry)


def refuse_same_names(entries: Sequence[Entry]) -> None:
    """Raise ConfigError for stages with the name of one before them."""
    if problems := [*_same_names(entries)]:
        raise ConfigError(problems)


def repeats_of(files: Sequence[Layer], path: Path) -> list[tuple[RepeatTable, Origin]]:
    """The repeats of a config. Raises ConfigError."""
    holder = next((layer for layer in reversed(files) if REPEATS in layer.data), None)
    if holder is None:
        return []
    tables = holder.data[REPEATS]
    if not isinstance(tables, list):
        raise ConfigError(f"repeat must be tables [[repeat]] ({holder.origin_of((REPEATS,))}).")
    return [_repeat(holder, (REPEATS, number), table, path) for number, table in enumerate(tables)]


def _repeat(holder: Layer, place: Key, table: object, path: Path) -> tuple[RepeatTable, Origin]:
    """The repeat at a place of a layer, and where that stands."""
    read = validated(RepeatTable, below(holder, place, table), path)
    return read.config, holder.origin_of(place) or Origin()


def for_stages(command: Layer, entries: Sequence[Entry]) -> list[Entry]:
    """The stages with what the command line changes in each: `--stage.NAME.section.key VALUE`.

    The name of a stage that is repeated is that of all its rounds. Raises ConfigError for the name of no stage.
    """
    tables = command.data.get(STAGES, {})
    if not isinstance(tables, Mapping):
        raise ConfigError("--stage.NAME.section.key VALUE changes a key of one stage (on the command line).")
    _refuse_unknown(tables, command, entries)
    return [_changed(entry, command, tables) for entry in entries]


def _refuse_unknown(names: Iterable[str], command: Layer, entries: Sequence[Entry]) -> None:
    """Refuse what the command line changes in a stage that there is not."""
    known = set(chain.from_iterable(map(_names, entries)))
    for name in filterfalse(known.__contains__, names):
        hint = did_you_mean(name, known, f"there are {', '.join(entry.name for entry in entries)}.", quote='"')
        raise ConfigError(f'"{name}" is not a stage; {hint} ({command.origin_of((STAGES, name))}).')


def _names(entry: Entry) -> Iterable[str]:
    """What a stage is called on the command line: first with all its rounds, then alone."""
    return dict.fromkeys((entry.first or entry.name, entry.name))


def _changed(entry: Entry, command: Layer, tables: Mapping[str, object]) -> Entry:
    flags = [below(command, (STAGES, name), tables[name]) for name in _names(entry) if name in tables]
    return replace(entry, layers=[*entry.layers, *flags])
