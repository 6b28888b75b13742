"""Planning a transfer, from the shapes of two networks alone."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple, final

from torch import nn

from etude.base.errors import ConfigError
from etude.model.growth.axes import Axis
from etude.model.growth.config import Growth
from etude.model.growth.declared import Stored, stored_in
from etude.model.growth.fitting import Fitting
from etude.model.growth.keeping import empty_stacks, other_cells
from etude.model.growth.naming import Names, NewLayer, matched, moved, source_layer, within
from etude.model.growth.stream import Stream, quietened
from etude.model.growth.transfer import Entry, Transfer

LAYER = re.compile(r"\.\d+\.")
"""The number of a layer within a name."""


def plan_transfer(old: nn.Module, new: nn.Module, how: Growth, *, where: str = "") -> Transfer:
    """How the parameters and stored buffers of `old` are carried into `new`, which may both lie on the meta device.

    Names are matched after `how.rename`, layers of stacks as `how.insert` has it. `where` is what errors begin with,
    such as "model.layers at epoch 3". Raises ConfigError, with a sentence for each mistake, where nothing matches;
    where a parameter shrinks without `how.allow_shrink`, has another number of dimensions, or grows and nobody says
    what it is made up of; and where "net2net" cannot leave the function of the network as it is.
    """
    try:
        planner = _Planner(old, new, how)
        transfer = planner.transfer(where)
    except ConfigError as error:
        raise ConfigError(_said(where, error.problems)) from error
    if planner.problems:
        raise ConfigError(_said(where, planner.problems))
    return transfer


def plan_pairs(
    old: nn.Module, new: nn.Module, pairs: Mapping[str, str], how: Growth, *, where: str = ""
) -> Mapping[str, Sequence[Axis]]:
    """How single tensors of `new` are filled from others of `old`, whatever becomes of the rest: along each dimension.

    `pairs` gives names of `old` by names of `new`. Raises ConfigError as `plan_transfer` does.
    """
    planner = _Planner(old, new, how)
    found = planner.paired(pairs)
    if planner.problems:
        raise ConfigError(_said(where, planner.problems))
    return found


def _said(where: str, problems: Sequence[str]) -> list[str]:
    """The problems, of layers of a stack one for all."""
    alike: dict[str, list[str]] = {}
    for problem in problems:
        alike.setdefault(LAYER.sub(".*.", problem), []).append(problem)
    before = f"{where}: " if where else ""
    return [f"{before}{group[0]}{_more(group)}" for group in alike.values()]


def _more(group: Sequence[str]) -> str:
    return f" (and {len(group) - 1} more like it, in other layers)" if len(group) > 1 else ""


class Source(NamedTuple):
    """What a parameter of the new network takes its values of."""

    one: Stored
    is_duplicate: bool = False
    """Whether another parameter takes the place of the old one, which this one copies."""


@final
class _Planner:
    def __init__(self, old: nn.Module, new: nn.Module, how: Growth) -> None:
        self.problems: list[str] = []
        self._how = how
        self._modules = old, new
        self._old, self._news = stored_in(old), stored_in(new)
        self._of_old, self._here = _by_name(self._old), _by_name(self._news)
        self._fitting = Fitting(old, new, how, self.problems)

    def transfer(self, where: str) -> Transfer:
        names = self._names()
        stream = self._stream(names)
        sources = self._sources(names, stream)
        if not sources:
            self._refuse_strangers()
        entries = {one.name: self._entry(one, sources.get(one.name), stream) for one in self._news}
        dropped = self._dropped(entries)
        if self._how.new_weights == "net2net":
            self._check(entries, dropped, stream)
        return Transfer(entries, dropped, where, _numbers(self._old))

    def paired(self, pairs: Mapping[str, str]) -> dict[str, Sequence[Axis]]:
        """By new name: how the old tensor of a name fills it."""
        return {name: self._fitting.axes(self._of_old[given], self._here[name]) for name, given in pairs.items()}

    # -- what takes its values of what -----------------------------------------------------------------------------

    def _names(self) -> Names:
        """Which old name each new one has, but for layers whose kind is another now."""
        names = matched(list(self._of_old), list(self._here), self._how, empty_stacks(self._modules[0]))
        others = other_cells(*self._modules, names.of)
        self.problems += [*names.problems, *others.values()]
        return names.without(others)

    def _stream(self, names: Names) -> Stream:
        if self._how.new_weights == "init":
            return Stream()
        return quietened(self._modules[1], names.layers)

    def _sources(self, names: Names, stream: Stream) -> dict[str, Source]:
        """By new parameter, what it takes its values of."""
        found = self._called(names)
        if self._how.copy_from is not None:
            found |= self._copies(names, found)
        return found | _handed_on(stream, found)

    def _called(self, names: Names) -> dict[str, Source]:
        """What parameters take their values of by one of their names, the first that an old one has become."""
        known = [one for one in self._news if not names.of.keys().isdisjoint(one.names)]
        called = {one.name: next(filter(names.of.__contains__, one.names)) for one in known}
        return {name: Source(self._of_old[names.of[twin]]) for name, twin in called.items()}

    def _copies(self, names: Names, found: Mapping[str, Source]) -> dict[str, Source]:
        """What new layers of stacks are copies of, where the other layer has the same shape now."""
        return dict(chain.from_iterable(self._copies_in(layer, found) for layer in names.layers))

    def _copies_in(self, layer: NewLayer, found: Mapping[str, Source]) -> Iterator[tuple[str, Source]]:
        path = source_layer(layer, self._how)
        for one in self._without_source(layer, found):
            twin = moved(one.name, layer, path)
            if twin in found and self._here[twin].shape == one.shape:
                yield one.name, Source(found[twin].one, is_duplicate=True)

    def _without_source(self, layer: NewLayer, found: Mapping[str, Source]) -> list[Stored]:
        """The parameters of a layer that take their values of nothing yet."""
        return [one for one in self._news if one.name not in found and within(one.name, layer.path)]

    def _refuse_strangers(self) -> None:
        """Note that the two networks have nothing in common, where both have parameters."""
        if self._old and self._news:
            self.problems.append(
                f"no parameter of the old network has the name of one of the new network ({self._old[0].name} and "
                f"{self._news[0].name} are the first): give growth.rename"
            )

    # -- what becomes of each --------------------------------------------------------------------------------------

    def _entry(self, one: Stored, source: Source | None, stream: Stream) -> Entry:
        is_parameter = isinstance(one.tensor, nn.Parameter)
        fill = stream.fills.get(one.name)
        if source is None or fill is not None:
            return Entry(one.name, "new", None, one.shape, fill=fill, is_parameter=is_parameter)
        entry = Entry(
            one.name,
            "copied",
            source.one.name,
            one.shape,
            source.one.shape,
            self._fitting.axes(source.one, one),
            is_duplicate=source.is_duplicate,
            is_parameter=is_parameter,
        )
        return entry if entry.kept == entry.size else entry.as_grown()

    def _dropped(self, entries: Mapping[str, Entry]) -> dict[str, tuple[int, ...]]:
        """The shapes of old parameters of which no new one takes its values."""
        kept = {entry.source for entry in entries.values()}
        return {one.name: one.shape for one in self._old if one.name not in kept}

    def _check(self, entries: Mapping[str, Entry], dropped: Mapping[str, object], stream: Stream) -> None:
        """Note why the function of the network would not stay as it is."""
        keeping = self._fitting.keeping
        because = [*keeping.problems, *keeping.unbalanced()]
        because += [f"{name} has no place in the new network" for name in dropped]
        because += [
            f"{entry.name} is new, and is in no residual layer that could do nothing at first"
            for entry in entries.values()
            if _is_loud(entry, stream)
        ]
        self.problems += [f'growth.new_weights = "net2net" would change the function: {why}' for why in because]


def _by_name(every: Sequence[Stored]) -> dict[str, Stored]:
    """Parameters by each of their names."""
    return {name: one for one in every for name in one.names}


def _numbers(every: Sequence[Stored]) -> int:
    """The numbers of all parameters; buffers are not counted."""
    return sum(one.tensor.numel() for one in every if isinstance(one.tensor, nn.Parameter))


def _handed_on(stream: Stream, found: Mapping[str, Source]) -> dict[str, Source]:
    """What parameters take from others whose place in the stream they have."""
    return {name: found[origin] for name, origin in stream.origins.items() if origin in found}


def _is_loud(entry: Entry, stream: Stream) -> bool:
    """Whether a new parameter has a say in what the network computes at first."""
    return entry.kind == "new" and entry.is_parameter and not _is_quiet(entry, stream)


def _is_quiet(entry: Entry, stream: Stream) -> bool:
    return entry.fill is not None or any(within(entry.name, path) for path in stream.quiet)
