"""What a stage is made from: its tables, read as the kind of stage has them, with the stages that they name."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, filterfalse
from pathlib import Path
from typing import Any, TypeVar

from etude.app.fork.way import Build
from etude.app.stages.names import Names, Reference, Weights, as_written
from etude.app.stages.rounds import at_round
from etude.app.stages.tables import CONFIG_KEY, Entry, changing, only, without
from etude.base.config.command import Override
from etude.base.config.composing import Layer, Origin, command_layer, dotted, merged
from etude.base.config.lines import Key
from etude.base.config.loading import validated
from etude.base.config.nest import leaves
from etude.base.config.path_places import with_values
from etude.base.config.section import Section
from etude.base.config.structure import fields_of
from etude.base.errors import ConfigError
from etude.base.near import did_you_mean
from etude.base.schedules.structural import begun
from etude.tasks.config import Config, LoadedConfig, class_of, load_config, of_layer
from etude.tasks.run_files import CONFIG

S = TypeVar("S", bound=Section)
PLACED = ("name", "dir", "stage")
"""Keys of `[run]` that a pipeline sets."""


@dataclass(frozen=True)
class Composed:
    """The config of a stage."""

    loaded: LoadedConfig
    references: Mapping[Key, Reference]
    """The stages that it names, by the place of the path."""

    def named(self) -> dict[str, Any]:
        """The config as plain values, with the names of stages in the place of their paths."""
        texts: dict[Key, object] = {place: str(one) for place, one in self.references.items()}
        made = with_values(self.loaded.data, texts)
        assert isinstance(made, dict)
        return made

    def dotted(self) -> dict[str, Reference]:
        """The stages that it names, by the dotted key."""
        return {dotted(place): one for place, one in self.references.items()}


@dataclass(frozen=True)
class Told:
    """What a stage is made from."""

    entry: Entry
    names: Names
    build: Build

    @property
    def name(self) -> str:
        """What it is called."""
        return self.entry.name

    @property
    def folder(self) -> Path:
        """Where it writes."""
        return self.names.folder / self.entry.name

    def keys(self, section: type[S], *, configs: bool = True) -> S:
        """Its own keys. Raises ConfigError for others that are, unless `configs`, sections of the config."""
        known = fields_of(section)
        allowed = {CONFIG_KEY, *fields_of(Config)} if configs else set()
        given = dict.fromkeys(chain.from_iterable(layer.data for layer in self.entry.layers))
        others = filterfalse({*known, *allowed}.__contains__, given)
        problems = [self._unknown(key, [*known, *allowed]) for key in others]
        if problems:
            raise ConfigError(problems)
        with self.saying():
            return validated(section, self.own([*known]), self.entry.path).config

    def _unknown(self, key: str, known: Sequence[str]) -> str:
        hint = did_you_mean(key, known, f"it knows {', '.join(known)}.")
        return self.entry.said(f'{key} is not a key of do = "{self.entry.do}"; {hint} ({self.where(key)}).')

    def own(self, keys: Sequence[str]) -> Layer:
        """Some of its keys in one layer, those of the command line on top."""
        layers = [only(layer, keys) for layer in self.entry.layers]
        return at_round(merged(Section, layers), self.entry.round)

    def changes(self, own: type[Section]) -> list[Override]:
        """What it changes in the config of the run that it takes: its keys that are not its own."""
        layers = [changing(layer, [*fields_of(own)]) for layer in self.entry.layers]
        layer = at_round(merged(Config, [*chain(*layers)]), self.entry.round)
        return [
            Override(tuple(map(str, place)), value, str(layer.origin_of(place)))
            for place, value in leaves(layer.data)
            if place
        ]

    def of_model(self, weights: Weights, own: type[Section]) -> LoadedConfig | None:
        """The config of the run that it takes weights of, with what it changes in it; None where that is wrong itself.

        Raises ConfigError for changes that cannot be.
        """
        owner = weights.owner
        if owner is None:
            with self.saying():
                return load_config(weights.run / CONFIG, self.changes(own))
        try:
            Told(owner, self.names, self.build).config()
        except ConfigError:
            return None  # which its own stage tells
        changes = [changed for layer in self.entry.layers for changed in changing(layer, [*fields_of(own)])]
        entry = replace(owner, layers=[*owner.layers, *changes], speaker=self.name)
        return Told(entry, self.names, self.build).config().loaded

    def where(self, key: str) -> Origin | None:
        """Where one of its keys stands."""
        found = (layer.origin_of((key,)) for layer in reversed(self.entry.layers) if key in layer.data)
        return next(found, self.entry.origin)

    def config(self, own: Sequence[str] = (), left_out: Sequence[str] = ()) -> Composed:
        """Its config: the shared one with its changes, but for its `own` keys, and sections that it has no use for.

        Raises ConfigError, whose sentences name the stage, the key and the line.
        """
        entry = self.entry
        self._refuse_place()
        changes, *flags = (changing(layer, own) for layer in entry.layers)
        place = {("run", "dir"): str(self.names.folder), ("run", "name"): entry.name, ("run", "stage"): entry.name}
        placed = command_layer([Override(key, value, "the pipeline's folder") for key, value in place.items()])
        layers = [*entry.base, *changes, *entry.above, *chain(*flags), placed]
        layers = [without(layer, left_out) for layer in layers]
        with self.saying():
            root = class_of(begun(at_round(merged(Config, layers), entry.round).data))
            layer = at_round(merged(root, layers), entry.round)
        references = self.names.in_config(entry, root, layer)
        paths: dict[Key, object] = {key: str(self.names.path(one)) for key, one in references.items()}
        data = with_values(layer.data, paths)
        assert isinstance(data, dict)
        with self.saying():
            loaded = _cached(of_layer(root, replace(layer, data=data), entry.path), self.names.cache)
        return Composed(loaded, {as_written(place): one for place, one in references.items()})

    def _refuse_place(self) -> None:
        """Refuse keys that say where a run lies."""
        for layer in self.entry.layers:
            match layer.data.get("run"):
                case dict() as run if found := [key for key in PLACED if key in run]:
                    where = layer.origin_of(("run", found[0]))
                    raise ConfigError(
                        self.entry.said(f"run.{found[0]} is set by the pipeline: leave it out ({where}).")
                    )

    @contextmanager
    def saying(self) -> Iterator[None]:
        """Let each problem that is found in the block name the stage."""
        try:
            yield
        except ConfigError as error:
            raise ConfigError(list(map(self.entry.said, error.problems))) from None


def _cached(loaded: LoadedConfig, folder: Path | None) -> LoadedConfig:
    """A config whose prepared data lies in a folder; as it is where that is None."""
    if folder is None:
        return loaded
    later = tuple(_cached(one, folder) for one in loaded.later)
    return replace(loaded, config=loaded.config.with_cache(folder), later=later)
