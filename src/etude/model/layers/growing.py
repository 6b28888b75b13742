"""What the dimensions of a parameter are made up of, for networks that grow: see `etude.model.growth`.

A module whose parameter has several things side by side in one dimension (queries, keys and values; gates; heads;
inputs of several sources) says so by a method `growth_parts`, which gives for each of its parameters, or for one of a
module inside it by its dotted name, the sizes of the parts of every dimension, as it is built at present:

    def growth_parts(self) -> GrowthParts:
        return {"weight": ((3, 4), (2,)), "output.weight": (None, takes(5, 2))}

Of None the next module outwards is asked, and in the end what torch's own modules are known to be. Numbers alone say
where old values go; that the function of a network is kept needs to be told as well what a dimension is: what the
module `gives`, what it `takes`, or `classes`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, final, runtime_checkable

from torch import nn

Kind: TypeAlias = Literal["units", "classes", "given", "taps"]
"""Of a part: hidden units; classes, tokens or positions, each of which means something; numbers that come from outside
the network; neighbouring places that a convolution looks at."""
Side: TypeAlias = Literal["gives", "takes", "both"]
"""Whether a dimension is of what comes out of a product or of what goes in; `both` where a parameter is used twice."""

WIDER_HEADS = "attention scales its scores by the width of a head"
TIED = "it is embedding and output layer at once"
SINUSOIDS = "the sinusoids of positions depend on the width"


@final
@dataclass(frozen=True)
class Part:
    """A stretch of a dimension that grows at its end."""

    size: int
    kind: Kind = "units"
    before: int = 0
    """Of taps: how many lie before the place that is looked at, which stays where it is."""
    group: int = 0
    """Of what is normalised together: how many numbers; a norm keeps its value where all are repeated equally often."""
    rigid: int = 0
    """Of groups that know nothing of each other: how many numbers one has, which must not change unseen."""
    obstacle: str = ""
    """Why copies of its units would change the function of the network; a clause."""


@final
@dataclass(frozen=True)
class Row:
    """Parts side by side; old ones are paired with new ones by position."""

    members: tuple["Part | Row", ...]
    alike: bool = False
    """Whether more members are more of the same, as heads and channels are, of which a copy may be made."""
    heads: bool = False
    joined: bool = False
    """Whether it is one part where the other network has one."""
    before: int = 0
    """How many members lie before the one that stays where it is."""

    @property
    def size(self) -> int:
        """Numbers of all of them."""
        return sum(member.size for member in self.members)


@final
@dataclass(frozen=True)
class Dim:
    """One dimension of a parameter."""

    row: Row
    side: Side | None = None
    gain: float = 1.0
    """What the parameter is multiplied by where it is used, if that depends on the size of this dimension."""


Nested: TypeAlias = "int | Part | Row | Sequence[Nested]"
"""A part, or several side by side."""
GrowthParts: TypeAlias = Mapping[str, Sequence["Dim | Sequence[Nested] | None"]]
"""By parameter name: the parts of each dimension, or None where somebody else knows them."""


@runtime_checkable
class Growing(Protocol):
    """A module that knows what its parameters are made up of."""

    def growth_parts(self) -> GrowthParts:
        """The parts of each dimension, by the parameter's name within this module."""


@runtime_checkable
class TellsOutputs(Protocol):
    """A module that tells what its output is made up of."""

    def growth_outputs(self) -> Sequence[Nested]:
        """The parts of its last dimension."""


@runtime_checkable
class TakesFrames(Protocol):
    """A module over an encoder that tells which of its matrices take what the encoder gives."""

    def growth_inputs(self) -> Sequence[str]:
        """Their names within this module."""


def row_of(parts: Sequence[Nested]) -> Row:
    """These parts as a row."""
    return Row(tuple(map(_member, parts)))


def _member(part: Nested) -> Part | Row:
    match part:
        case int():
            return Part(part)
        case Part() | Row():
            return part
    return row_of(part)


def gives(*parts: Nested, gain: float = 1.0) -> Dim:
    """What comes out of a product, or what an elementwise weight acts on."""
    return Dim(row_of(parts), "gives", gain)


def takes(*parts: Nested) -> Dim:
    """What goes into a product."""
    return Dim(row_of(parts), "takes")


def tied(width: int) -> Dim:
    """The width of an embedding that is the output layer too."""
    return Dim(row_of([width]), "both")


def embedded(width: int, *, is_output: bool = False, obstacle: str = "", gain: float = 1.0) -> Dim:
    """The width of an embedding, which perhaps is the output layer too."""
    return tied(width) if is_output else gives(Part(width, obstacle=obstacle), gain=gain)


def classes(count: int) -> Dim:
    """Classes, tokens or positions: what is learned of one is of no other."""
    return Dim(row_of([Part(count, "classes")]), "gives")


def given(size: int) -> Part:
    """Inputs from outside of the network, of which new ones are not copies of old ones."""
    return Part(size, "given")


def taps(size: int, before: int) -> Dim:
    """Places that a convolution looks at, of which `before` lie before the one that its output stands at."""
    return Dim(row_of([Part(size, "taps", before)]), "takes")


def alike(count: int, member: Nested) -> Row:
    """So many of the same."""
    return Row((_member(member),) * count, alike=True)


def heads(count: int, member: Nested) -> Row:
    """Heads of an attention, or groups of them."""
    return Row((_member(member),) * count, alike=True, heads=True)


def head(width: int, *, turned: bool = False) -> Part | Row:
    """The numbers of a head; `turned` by positions, in halves that stay beside each other."""
    if turned and width % 2 == 0:
        return Row((Part(width // 2, obstacle=WIDER_HEADS),) * 2, joined=True)
    return Part(width, obstacle=WIDER_HEADS)


def of_linear(name: str, layer: nn.Module, rows: Dim | None, columns: Dim | None) -> GrowthParts:
    """The parts of a linear layer, bias included, that is called `name`; nothing where it is none."""
    if not isinstance(layer, nn.Linear):
        return {}
    parts: dict[str, Sequence[Dim | None]] = {f"{name}.weight": (rows, columns)}
    if layer.bias is not None:
        parts[f"{name}.bias"] = (rows,)
    return parts
