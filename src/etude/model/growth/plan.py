"""Planning a transfer, from the shapes of two networks alone."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, final

from torch import nn

from etude.base.errors import ConfigError
from etude.model.growth.axes import Axis, paired, unchanged
from etude.model.growth.config import Growth
from etude.model.growth.declared import Declarations, Stored, stored_in, written
from etude.model.growth.keeping import Keeping, both_directions, empty_stacks, other_cells, sideless, two_halves
from etude.model.growth.naming import Names, matched, moved, source_layer, within
from etude.model.growth.stream import Stream, quietened
from etude.model.growth.transfer import Entry, Transfer
from etude.model.layers.growing import Dim

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


@final
class _Planner:
    def __init__(self, old: nn.Module, new: nn.Module, how: Growth) -> None:
        self.problems: list[str] = []
        self._how = how
        self._new = new
        self._old = stored_in(old)
        self._of_old = {name: one for one in self._old for name in one.names}
        self._news = stored_in(new)
        self._before, self._now = Declarations(old), Declarations(new)
        self._keeping = Keeping()
        self._keeps = how.new_weights == "net2net"
        self._halves = both_directions(old, new)
        self._empty = empty_stacks(old)
        self._cells = old, new

    def transfer(self, where: str) -> Transfer:
        names = matched(list(self._of_old), [name for one in self._news for name in one.names], self._how, self._empty)
        others = other_cells(*self._cells, names.of)
        self.problems += [*names.problems, *others.values()]
        names = names.without(others)
        stream = Stream() if self._how.new_weights == "init" else quietened(self._new, names.layers)
        sources = self._sources(names, stream)
        if self._old and self._news and not sources:
            self.problems.append(
                f"no parameter of the old network has the name of one of the new network ({self._old[0].name} and "
                f"{self._news[0].name} are the first): give growth.rename"
            )
        entries = {one.name: self._entry(one, sources.get(one.name), stream) for one in self._news}
        kept = {entry.source for entry in entries.values()}
        dropped = {one.name: one.shape for one in self._old if one.name not in kept}
        if self._keeps:
            self._check(entries, dropped, stream)
        total = sum(one.tensor.numel() for one in self._old if isinstance(one.tensor, nn.Parameter))
        return Transfer(entries, dropped, where, total)

    def paired(self, pairs: Mapping[str, str]) -> dict[str, Sequence[Axis]]:
        """By new name: how the old tensor of a name fills it."""
        here = {name: one for one in self._news for name in one.names}
        return {name: self._axes(self._of_old[given], here[name]) for name, given in pairs.items()}

    def _sources(self, names: Names, stream: Stream) -> dict[str, Source]:
        """By new parameter, what it takes its values of."""
        found: dict[str, Source] = {}
        for one in self._news:
            called = next((name for name in one.names if name in names.of), None)
            if called is not None:
                found[one.name] = Source(self._of_old[names.of[called]])
        if self._how.copy_from is not None:
            found |= self._copies(names, found)
        moved_to = {name: found[origin] for name, origin in stream.origins.items() if origin in found}
        return found | moved_to

    def _copies(self, names: Names, found: Mapping[str, Source]) -> dict[str, Source]:
        """What new layers of stacks are copies of, where the other layer has the same shape now."""
        here = {one.name: one for one in self._news}
        copies = {}
        for layer in names.layers:
            path = source_layer(layer, self._how)
            for one in self._news:
                if one.name in found or not within(one.name, layer.path):
                    continue
                twin = moved(one.name, layer, path)
                if twin in found and here[twin].shape == one.shape:
                    copies[one.name] = Source(found[twin].one, is_duplicate=True)
        return copies

    def _entry(self, one: Stored, source: Source | None, stream: Stream) -> Entry:
        is_parameter = isinstance(one.tensor, nn.Parameter)
        fill = stream.fills.get(one.name)
        if source is None or fill is not None:
            return Entry(one.name, "new", None, one.shape, fill=fill, is_parameter=is_parameter)
        axes = self._axes(source.one, one)
        entry = Entry(
            one.name,
            "copied",
            source.one.name,
            one.shape,
            source.one.shape,
            axes,
            is_duplicate=source.is_duplicate,
            is_parameter=is_parameter,
        )
        return entry if entry.kept == entry.size else entry.as_grown()

    def _axes(self, old: Stored, new: Stored) -> tuple[Axis, ...]:
        if len(old.shape) != len(new.shape):
            self.problems.append(
                f"{new.name} has {len(new.shape)} dimensions ({_shape(new)}), but {len(old.shape)} in the old network "
                f"({_shape(old)}): growth.rename must call it otherwise, or by "
                " let it begin anew"
            )
            return ()
        before, now = self._before.dims(old), self._now.dims(new)
        if None in before or None in now:
            if old.shape != new.shape:
                self._refuse_unknown(old, new)
            return tuple(map(unchanged, new.shape))
        pairs = zip(before, now, strict=True)
        return tuple(self._axis(old, new, index, *pair) for index, pair in enumerate(pairs))

    def _axis(self, old: Stored, new: Stored, index: int, before: Dim | None, now: Dim | None) -> Axis:
        if before is None or now is None:
            return unchanged(new.shape[index])
        if before == now:
            return unchanged(new.shape[index])
        found = paired(before, now, self._how)
        if found.shrinks and not self._how.allow_shrink:
            self._refuse_shrinking(old, new)
        if found.torn:
            self._refuse_torn(old, new, index)
        layer = self._halves.get((old.shape[index], new.shape[index]))
        if layer is not None and now.side == "takes" and len(now.row.members) == 1 and not self._now.declares(new):
            self.problems.append(two_halves(new, index, layer))
        if self._how.new_weights != "init" and now.side is None and new.shape[index] > old.shape[index]:
            self._say(sideless(new, index, self._how.new_weights))
        if self._keeps:
            self._keeping.see(new, index, now, found)
        return found.axis(before, now, self._how)

    def _refuse_unknown(self, old: Stored, new: Stored) -> None:
        owner, local = self._now.owner(new.name), new.name.rpartition(".")[2]
        parts = tuple((size,) for size in new.shape)
        self.problems.append(
            f"{new.name} changes from {_shape(old)} to {_shape(new)}, but {type(owner).__name__} does not say what its "
            f"dimensions are made up of, and nothing is guessed. It needs, with its own sizes in the place of these "
            f"and each stretch that grows on its own as a number, {written({local: parts})}; or a module around it the "
            "same by the dotted name"
        )

    def _refuse_shrinking(self, old: Stored, new: Stored) -> None:
        if any(now < before for before, now in zip(old.shape, new.shape, strict=True)):
            says = f"{new.name} shrinks from {_shape(old)} to {_shape(new)}"
        else:
            sizes = f"{_shape(old)} -> {_shape(new)}"
            says = f'{new.name} ({sizes}) has parts that shrink (of heads growth.heads = "widen" makes one part)'
        self._say(f"{says}: set growth.allow_shrink = true to keep the beginning of each part")

    def _refuse_torn(self, old: Stored, new: Stored, index: int) -> None:
        parts: list[Sequence[int] | None] = [None] * len(new.shape)
        parts[index] = (new.shape[index],)
        self._say(
            f"{new.name} changes from {_shape(old)} to {_shape(new)}, in groups of which each changes, so that what "
            f"lies around it must say the same; the model needs {written({new.name: tuple(parts)})}, with the parts "
            "of each group"
        )

    def _say(self, problem: str) -> None:
        """Note it, once of all dimensions of a parameter."""
        if problem not in self.problems:
            self.problems.append(problem)

    def _check(self, entries: Mapping[str, Entry], dropped: Mapping[str, object], stream: Stream) -> None:
        """Note why the function of the network would not stay as it is."""
        because = [*self._keeping.problems, *self._keeping.unbalanced()]
        because += [f"{name} has no place in the new network" for name in dropped]
        for entry in entries.values():
            if entry.kind == "new" and entry.is_parameter and not _is_quiet(entry, stream):
                because.append(f"{entry.name} is new, and is in no residual layer that could do nothing at first")
        self.problems += [f'growth.new_weights = "net2net" would change the function: {why}' for why in because]


def _is_quiet(entry: Entry, stream: Stream) -> bool:
    return entry.fill is not None or any(within(entry.name, path) for path in stream.quiet)


def _shape(one: Stored) -> str:
    return " x ".join(map(str, one.shape)) or "one number"
