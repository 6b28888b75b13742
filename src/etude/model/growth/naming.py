"""Which old parameter becomes which new one: by name, what was renamed, and the numbers of layers in a stack."""

import re
from bisect import bisect
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, filterfalse
from operator import add
from typing import NamedTuple, Self, TypeAlias, final

from etude.base.near import nearest
from etude.model.growth.config import Growth

NUMBER = re.compile(r"(?<![^.])\d+(?![^.])|(?<=_l)\d+(?=_reverse$|$)")
"""The number of a layer in a name: a word of its own, or in torch's recurrent layers the end of the last."""
Stacks: TypeAlias = Mapping[str, Sequence[int]]
"""By what stands before the number: the numbers that there are, in order."""


class Place(NamedTuple):
    """A number in a name, and the stack that it counts in."""

    stack: str
    start: int
    stop: int
    number: int


def places(name: str) -> Iterator[Place]:
    """The numbers of layers in a name, the outermost first.

    >>> [(place.stack, place.number) for place in places("encoder.3.inner.0.weight_ih_l1")]
    [('encoder.', 3), ('encoder.3.inner.', 0), ('encoder.3.inner.0._l', 1)]
    """
    for found in NUMBER.finditer(name):
        before = name[: found.start()]
        if before.endswith("_l"):
            # All of a recurrent layer's parameters count in one stack.
            before = f"{before.rpartition('.')[0]}._l"
        yield Place(before, found.start(), found.end(), int(found[0]))


def stacks_of(names: Iterable[str]) -> dict[str, list[int]]:
    """The stacks that parameters of these names lie in."""
    found: dict[str, set[int]] = {}
    for place in chain.from_iterable(map(places, names)):
        found.setdefault(place.stack, set()).add(place.number)
    return {stack: sorted(numbers) for stack, numbers in found.items()}


@final
@dataclass(frozen=True)
class NewLayer:
    """A layer of a stack that has no old one."""

    stack: str
    index: int
    below: int | None
    """The nearest layer below it that has an old one."""
    first: int | None
    """The first that has one."""
    above: int | None
    """The nearest above it that has one."""

    @property
    def path(self) -> str:
        """What its parameters' names begin with."""
        return f"{self.stack}{self.index}"


@final
@dataclass
class Names:
    """Old names by new ones, as far as they go by renaming and by the order of layers."""

    of: dict[str, str] = field(default_factory=dict)
    layers: list[NewLayer] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def without(self, paths: Container[str]) -> Self:
        """The same, without the parameters of modules at these paths."""
        kept = {name: source for name, source in self.of.items() if name.rpartition(".")[0] not in paths}
        return replace(self, of=kept)


def matched(old: Sequence[str], new: Sequence[str], how: Growth, empty: Iterable[str] = ()) -> Names:
    """Which old name each new one has, renamed and renumbered; not whether the parameters fit.

    `empty` are paths of stacks that have no layer in the old network.
    """
    found = Names()
    here = set(new)
    renamed = _renamed(old, here, how.rename, found.problems)
    stacks = _stacks_without_layers(empty) | stacks_of(renamed.values()), stacks_of(new)
    for name, called in renamed.items():
        target = _renumbered(called, *stacks, how)
        if target in here:
            _take(found, target, name)
    found.layers = list(_new_layers(*stacks, how))
    return found


def _stacks_without_layers(paths: Iterable[str]) -> dict[str, list[int]]:
    return {f"{path}.": [] for path in paths}


def _take(names: Names, target: str, name: str) -> None:
    """Note what an old name becomes, and that another becomes the same."""
    if target in names.of:
        names.problems.append(f"growth.rename makes {target} of both {names.of[target]} and {name}.")
    names.of[target] = name


def _renamed(old: Sequence[str], new: set[str], rename: Mapping[str, str], problems: list[str]) -> dict[str, str]:
    """What each old name becomes; of several patterns that match the last counts."""
    called = dict(zip(old, old, strict=True))
    for pattern, target in rename.items():
        renaming = _Renaming(pattern, target, old)
        problems += filter(None, [renaming.problem(new)])
        called |= renaming.called
    return called


@final
@dataclass(frozen=True)
class _Renaming:
    """One line of `growth.rename`, held against the old names."""

    pattern: str
    target: str
    old: Sequence[str]

    @property
    def is_sound(self) -> bool:
        """Whether there is something to put in the place of every * of the target."""
        return self.target.count("*") <= self.pattern.count("*")

    @cached_property
    def called(self) -> dict[str, str]:
        """What those old names become that it means."""
        if not self.is_sound:
            return {}
        hits = filter(None, map(_form(self.pattern).fullmatch, self.old))
        return {hit[0]: _filled(self.target, hit) for hit in hits}

    def problem(self, new: set[str]) -> str:
        """What is wrong with it, as a sentence; empty where nothing is."""
        if not self.is_sound:
            return f"growth.rename.{self.pattern!r} must have as many * as {self.target!r} has."
        if not self.called:
            near = _near(self.pattern, self.old)
            return f"growth.rename: {self.pattern!r} matches no parameter of the old network; {near}."
        if self.target and new.isdisjoint(self.called.values()):
            near = _near(self.target, sorted(new))
            return f"growth.rename: {self.target!r} is no parameter of the new network; {near}."
        return ""


def _form(pattern: str) -> re.Pattern[str]:
    return re.compile("(.*)".join(map(re.escape, pattern.split("*"))))


def _filled(target: str, hit: re.Match[str]) -> str:
    """The target with what each * stood for, in order, as far as it has any."""
    first, *words = target.split("*")
    return first + "".join(map(add, hit.groups(), words))


def _near(pattern: str, names: Sequence[str]) -> str:
    near = nearest(pattern, names)
    return f"the nearest is {near}" if near else f"the first is {next(iter(names), 'none')}"


def _renumbered(name: str, old: Stacks, new: Stacks, how: Growth) -> str:
    """The name in the new network of a parameter of the old one."""
    if how.insert == "top":
        return name
    shift = 0
    target = name
    for place in places(name):
        stack = next(here.stack for here in places(target) if here.start == place.start + shift)
        index = str(_image(place.number, old[place.stack], new.get(stack, ())))
        target = target[: place.start + shift] + index + target[place.stop + shift :]
        shift += len(index) - (place.stop - place.start)
    return target


def _image(index: int, old: Sequence[int], new: Sequence[int]) -> int:
    """Which layer of the new stack an old one becomes where the last stays the last."""
    return new[-1] if index == old[-1] and len(new) > len(old) else index


def _new_layers(old: Stacks, new: Stacks, how: Growth) -> Iterator[NewLayer]:
    """The layers of stacks that both have which no old one becomes, from below."""
    for stack in filter(old.__contains__, new):
        if len(old[stack]) < len(new[stack]):
            yield from _new_layers_of(stack, new[stack], _images(old[stack], new[stack], how))


def _images(old: Sequence[int], new: Sequence[int], how: Growth) -> list[int]:
    """The layers of a new stack that old ones become, in order."""
    if how.insert == "top":
        return list(old)
    return sorted(_image(index, old, new) for index in old)


def _new_layers_of(stack: str, numbers: Sequence[int], images: Sequence[int]) -> Iterator[NewLayer]:
    around = [None, *images, None]
    for index in filterfalse(images.__contains__, numbers):
        place = bisect(images, index)
        yield NewLayer(stack, index, below=around[place], first=around[1], above=around[place + 1])


def source_layer(layer: NewLayer, how: Growth) -> str:
    """The path of the layer of the new network whose old one a new layer is a copy of; of none where there is none."""
    nearby = layer.above if layer.below is None else layer.below
    return f"{layer.stack}{layer.first if how.copy_from == 'first' else nearby}"


def within(name: str, path: str) -> bool:
    """Whether a parameter lies in a layer.

    >>> within("layers.1.weight", "layers.1"), within("layers.10.weight", "layers.1")
    (True, False)
    >>> within("lstm.weight_ih_l1_reverse", "lstm._l1")
    True
    """
    return any(f"{place.stack}{place.number}" == path for place in places(name))


def moved(name: str, layer: NewLayer, path: str) -> str:
    """The parameter of the layer `path` of the same stack that a parameter of a new layer corresponds to."""
    place = next(place for place in places(name) if f"{place.stack}{place.number}" == layer.path)
    return name[: place.start] + path.removeprefix(layer.stack) + name[place.stop :]
