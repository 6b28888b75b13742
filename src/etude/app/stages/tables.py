"""The tables of a pipeline, `[[stage]]` and `[[repeat]]`, as they are written."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from etude.base.config.composing import Layer, Origin
from etude.base.config.lines import Key
from etude.base.config.loading import validated
from etude.base.errors import ConfigError
from etude.base.near import nearest
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
    tables = holder.data[STAGES]
    if not isinstance(tables, list) or not tables or not all(isinstance(one, Mapping) for one in tables):
        raise ConfigError(f"stage must be one or more tables [[stage]] ({holder.origin_of((STAGES,))}).")
    base = [without(layer, (STAGES, REPEATS)) for layer in files]
    above = [without(command, (STAGES, REPEATS))]
    found, problems = list[Entry](), list[str]()
    for number, table in enumerate(tables):
        layer = below(holder, (STAGES, number), table)
        try:
            found.append(_entry(layer, holder.origin_of((STAGES, number)) or Origin()))
        except ConfigError as error:
            problems += error.problems
    problems += _same_names(found)
    if problems:
        raise ConfigError(problems)
    return [replace(entry, path=path, base=base, above=above) for entry in found]


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
    if not isinstance(name, str) or not FOLDER.fullmatch(name) or SET_ASIDE.fullmatch(name) or name in FILES:
        raise ConfigError(
            f"stage.name must be the name of a folder, of letters, digits, - and _ and without .old-, but is {name!r} "
            f"({where})."
        )


def _same_names(entries: Sequence[Entry]) -> Iterator[str]:
    """A sentence for each stage with the name of one before it."""
    seen: dict[str, Entry] = {}
    for entry in entries:
        if entry.name in seen:
            yield f'Two stages are called "{entry.name}": {seen[entry.name].origin} and {entry.origin}.'
        seen.setdefault(entry.name, entry)


def repeats_of(files: Sequence[Layer], path: Path) -> list[tuple[RepeatTable, Origin]]:
    """The repeats of a config. Raises ConfigError."""
    holder = next((layer for layer in reversed(files) if REPEATS in layer.data), None)
    if holder is None:
        return []
    tables = holder.data[REPEATS]
    if not isinstance(tables, list):
        raise ConfigError(f"repeat must be tables [[repeat]] ({holder.origin_of((REPEATS,))}).")
    found = []
    for number, table in enumerate(tables):
        place = (REPEATS, number)
        read = validated(RepeatTable, below(holder, place, table), path)
        found.append((read.config, holder.origin_of(place) or Origin()))
    return found


def for_stages(command: Layer, entries: Sequence[Entry]) -> list[Entry]:
    """The stages with what the command line changes in each: `--stage.NAME.section.key VALUE`.

    The name of a stage that is repeated is that of all its rounds. Raises ConfigError for the name of no stage.
    """
    tables = command.data.get(STAGES, {})
    known = {name for entry in entries for name in (entry.name, entry.first or entry.name)}
    if not isinstance(tables, Mapping):
        raise ConfigError("--stage.NAME.section.key VALUE changes a key of one stage (on the command line).")
    for name in tables:
        if name not in known:
            near = nearest(name, known)
            hint = f'did you mean "{near}"?' if near else f"there are {', '.join(entry.name for entry in entries)}."
            raise ConfigError(f'"{name}" is not a stage; {hint} ({command.origin_of((STAGES, name))}).')
    return [_changed(entry, command, tables) for entry in entries]


def _changed(entry: Entry, command: Layer, tables: Mapping[str, object]) -> Entry:
    names = dict.fromkeys((entry.first or entry.name, entry.name))
    flags = [below(command, (STAGES, name), tables[name]) for name in names if name in tables]
    return replace(entry, layers=[*entry.layers, *flags])
