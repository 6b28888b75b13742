"""How an old tensor lies in a new one, along each dimension, and what speaks against it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, final

from torch import nn

from etude.model.growth.axes import Axis, Pairing, paired, unchanged
from etude.model.growth.config import Growth
from etude.model.growth.declared import Declarations, Stored, written
from etude.model.growth.keeping import Keeping, both_directions, sideless, two_halves
from etude.model.layers.growing import Dim


class Change(NamedTuple):
    """One dimension of a parameter, of the old network and of the new one."""

    old: Stored
    new: Stored
    dim: int
    before: Dim
    now: Dim

    @property
    def sizes(self) -> tuple[int, int]:
        """The old size and the new one."""
        return self.old.shape[self.dim], self.new.shape[self.dim]

    @property
    def grows(self) -> bool:
        """Whether the new one is larger."""
        return self.sizes[0] < self.sizes[1]

    @property
    def takes_one_part(self) -> bool:
        """Whether it takes a single thing, as far as anybody says."""
        return self.now.side == "takes" and len(self.now.row.members) == 1


@final
class Fitting:
    """Old tensors fitted into new ones; what speaks against it is added to `problems`."""

    def __init__(self, old: nn.Module, new: nn.Module, how: Growth, problems: list[str]) -> None:
        self.keeping = Keeping()
        self._problems = problems
        self._how = how
        self._before, self._now = Declarations(old), Declarations(new)
        self._halves: Mapping[tuple[int, int], str] = both_directions(old, new)

    def axes(self, old: Stored, new: Stored) -> tuple[Axis, ...]:
        """Where the values of `old` go in `new`, along each dimension."""
        if len(old.shape) != len(new.shape):
            self._problems.append(_other_dimensions(old, new))
            return ()
        before, now = (list(filter(None, dims)) for dims in (self._before.dims(old), self._now.dims(new)))
        if min(len(before), len(now)) < len(new.shape):
            return self._as_they_are(old, new)
        return tuple(
            map(self._axis, [Change(old, new, *one) for one in zip(range(len(now)), before, now, strict=True)])
        )

    def _as_they_are(self, old: Stored, new: Stored) -> tuple[Axis, ...]:
        """The dimensions of a parameter of which nobody knows what they are made up of, and which must not change."""
        if old.shape != new.shape:
            self._problems.append(self._unknown(old, new))
        return tuple(map(unchanged, new.shape))

    def _axis(self, change: Change) -> Axis:
        if change.before == change.now:
            return unchanged(change.sizes[1])
        found = paired(change.before, change.now, self._how)
        self._judge(change, found)
        self._judge_kept(change, found)
        return found.axis(change.before, change.now, self._how)

    # -- what speaks against it ------------------------------------------------------------------------------------

    def _judge(self, change: Change, found: Pairing) -> None:
        """Note what cannot be, whatever new weights begin with."""
        if found.shrinks and not self._how.allow_shrink:
            self._say(_shrinking(change.old, change.new))
        if found.torn:
            self._say(_torn(change))
        layer = self._halves.get(change.sizes, "")
        if layer and change.takes_one_part and not self._now.declares(change.new):
            self._problems.append(two_halves(change.new, change.dim, layer))

    def _judge_kept(self, change: Change, found: Pairing) -> None:
        """Note what is in the way of new weights that act on old ones in a way of their own."""
        new_weights = self._how.new_weights
        if new_weights != "init" and change.now.side is None and change.grows:
            self._say(sideless(change.new, change.dim, new_weights))
        if new_weights == "net2net":
            self.keeping.see(change.new, change.dim, change.now, found)

    def _say(self, problem: str) -> None:
        """Note it, once of all dimensions of a parameter."""
        if problem not in self._problems:
            self._problems.append(problem)

    def _unknown(self, old: Stored, new: Stored) -> str:
        owner, local = self._now.owner(new.name), new.name.rpartition(".")[2]
        parts = tuple((size,) for size in new.shape)
        return (
            f"{new.name} changes from {_shape(old)} to {_shape(new)}, but {type(owner).__name__} does not say what its "
            f"dimensions are made up of, and nothing is guessed. It needs, with its own sizes in the place of these "
            f"and each stretch that grows on its own as a number, {written({local: parts})}; or a module around it the "
            "same by the dotted name"
        )


def _other_dimensions(old: Stored, new: Stored) -> str:
    return (
        f"{new.name} has {len(new.shape)} dimensions ({_shape(new)}), but {len(old.shape)} in the old network "
        f"({_shape(old)}): growth.rename must call it otherwise, or by "
        " let it begin anew"
    )


def _shrinking(old: Stored, new: Stored) -> str:
    return f"{_what_shrinks(old, new)}: set growth.allow_shrink = true to keep the beginning of each part"


def _what_shrinks(old: Stored, new: Stored) -> str:
    if any(now < before for before, now in zip(old.shape, new.shape, strict=True)):
        return f"{new.name} shrinks from {_shape(old)} to {_shape(new)}"
    sizes = f"{_shape(old)} -> {_shape(new)}"
    return f'{new.name} ({sizes}) has parts that shrink (of heads growth.heads = "widen" makes one part)'


def _torn(change: Change) -> str:
    old, new, index = change.old, change.new, change.dim
    parts: list[Sequence[int] | None] = [None] * len(new.shape)
    parts[index] = (new.shape[index],)
    return (
        f"{new.name} changes from {_shape(old)} to {_shape(new)}, in groups of which each changes, so that what "
        f"lies around it must say the same; the model needs {written({new.name: tuple(parts)})}, with the parts "
        "of each group"
    )


def _shape(one: Stored) -> str:
    return " x ".join(map(str, one.shape)) or "one number"
