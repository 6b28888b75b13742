"""Which old parameter becomes which new one: by name, what was renamed, and the numbers of layers in a stack."""

import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
    for name in names:
        for place in places(name):
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
    renamed = _renamed(old, set(new), how.rename, found.problems)
    before: dict[str, list[int]] = {f"{path}.": [] for path in empty}
    stacks = before | stacks_of(renamed.values()), stacks_of(new)
    here = set(new)
    for name, called in renamed.items():
        target = _renumbered(called, *stacks, how)
        if target not in here:
            continue
        if target in found.of:
            found.problems.append(f"growth.rename makes {target} of both {found.of[target]} and {name}.")
        found.of[target] = name
    found.layers = list(_new_layers(*stacks, how))
    return found


def _renamed(old: Sequence[str], new: set[str], rename: Mapping[str, str], problems: list[str]) -> dict[str, str]:
    """What each old name becomes; of several patterns that match the last counts."""
    called = {name: name for name in old}
    for pattern, target in rename.items():
        form, fill = _form(pattern), _filler(target)
        hits = [found for name in old if (found := form.fullmatch(name))]
        if target.count("*") > pattern.count("*"):
            problems.append(f"growth.rename.{pattern!r} must have as many * as {target!r} has.")
            continue
        called |= {hit[0]: fill(hit) for hit in hits}
        if not hits:
            problems.append(
                f"growth.rename: {pattern!r} matches no parameter of the old network; {_near(pattern, old)}."
            )
        elif target and not any(fill(hit) in new for hit in hits):
            problems.append(
                f"growth.rename: {target!r} is no parameter of the new network; {_near(target, sorted(new))}."
            )
    return called


def _form(pattern: str) -> re.Pattern[str]:
    return re.compile("(.*)".join(map(re.escape, pattern.split("*"))))


def _filler(target: str) -> Callable[[re.Match[str]], str]:
    """Puts what each * stood for into the target, in order."""
    words = target.split("*")

    def fill(hit: re.Match[str]) -> str:
        filled = words[0]
        for word, part in zip(words[1:], hit.groups(), strict=False):
            filled += part + word
        return filled

    return fill


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
    for stack, numbers in new.items():
        before = old.get(stack)
        if before is None or len(before) >= len(numbers):
            continue
        images = before if how.insert == "top" else [_image(index, before, numbers) for index in before]
        for index in numbers:
            if index not in images:
                below = max((image for image in images if image < index), default=None)
                above = min((image for image in images if image > index), default=None)
                yield NewLayer(stack, index, below, min(images, default=None), above)


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
