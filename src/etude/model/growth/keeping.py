"""Whether copies of units (`net2net`) leave the function of a network as it is, and why not."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import filterfalse
from typing import final

from torch import nn

from etude.model.growth.axes import Pairing
from etude.model.growth.declared import Stored, written
from etude.model.layers.growing import TIED, Dim

Pair = tuple[int, int]
HOW = "import them from etude.growth"


@final
@dataclass
class Keeping:
    """What was found of parameters that grow, one after another."""

    problems: list[str] = field(default_factory=list)
    _gives: dict[Pair, str] = field(default_factory=dict)
    _takes: dict[Pair, str] = field(default_factory=dict)

    def see(self, one: Stored, index: int, dim: Dim, pairing: Pairing) -> None:
        """Note a dimension that is paired."""
        if pairing.shrinks:
            self.problems.append(f"{one.name} would shrink, which changes it")
        for obstacle in _obstacles(dim, pairing):
            self.problems.append(f"{one.name} cannot have copies in dimension {index}: {obstacle}")
        if len(one.shape) > 1 and dim.side is not None:
            known = {"takes": self._takes}.get(dim.side, self._gives)
            for pair in pairing.grown:
                known.setdefault(pair, one.name)

    def unbalanced(self) -> Iterator[str]:
        """Say which units come from nowhere or go nowhere."""
        for old, new in filterfalse(self._takes.__contains__, self._gives):
            yield (
                f"{self._gives[old, new]} gives {new} instead of {old}, which nothing in the network takes: if they "
                f"are classes or tokens, declare them by classes({new}) in growth_parts ({HOW})"
            )
        for old, new in filterfalse(self._gives.__contains__, self._takes):
            yield (
                f"{self._takes[old, new]} takes {new} instead of {old}, which nothing in the network gives: if they "
                f"come from outside, declare them by takes(given({new})) in growth_parts ({HOW})"
            )


def _obstacles(dim: Dim, pairing: Pairing) -> Iterator[str]:
    """Why the copies of a dimension would change the function: the first reason of those found, and its being tied."""
    yield from pairing.obstacles[:1]
    if pairing.grown and dim.side == "both":
        yield TIED


def sideless(one: Stored, index: int, new_weights: str) -> str:
    """What is to be declared of a dimension that grows, of which nobody says what it is."""
    return (
        f'growth.new_weights = "{new_weights}" must know whether dimension {index} of {one.name} is what its module '
        f"gives or takes: growth_parts needs gives(...), takes(...) or classes(...) around its parts ({HOW})"
    )


def empty_stacks(module: nn.Module) -> list[str]:
    """The paths of lists of modules that have none."""
    return [path for path, part in module.named_modules() if isinstance(part, nn.ModuleList) and not len(part)]


def other_cells(old: nn.Module, new: nn.Module, names: Mapping[str, str]) -> dict[str, str]:
    """Why an LSTM cannot become a GRU, whose gates are others, by its path; `names` has old names by new ones."""
    befores, nows = dict(old.named_modules()), dict(new.named_modules())
    found = {}
    for name, source in names.items():
        path, origin = name.rpartition(".")[0], source.rpartition(".")[0]
        match befores.get(origin), nows.get(path):
            case nn.RNNBase() as before, nn.RNNBase() as now if before.mode != now.mode:
                found[path] = (
                    f"{path or 'the model'} was a {before.mode} and is a {now.mode}, whose gates are others: "
                    f'growth.rename must let it begin anew, by "{origin}.*" = ""'
                )
    return found


def both_directions(old: nn.Module, new: nn.Module) -> dict[Pair, str]:
    """What torch's layers of two directions give, old and new widths of both together, and such a layer's name."""
    found = {}
    after = dict(new.named_modules())
    for path, before in old.named_modules():
        match before, after.get(path):
            case nn.RNNBase(bidirectional=True), nn.RNNBase(bidirectional=True) as now:
                found[2 * _width(before), 2 * _width(now)] = path
    return found


def _width(layer: nn.RNNBase) -> int:
    return layer.proj_size or layer.hidden_size


def two_halves(one: Stored, index: int, layer: str) -> str:
    """What is to be declared of a dimension that may be both directions of a recurrent layer."""
    half = one.shape[index] // 2
    parts: list[Sequence[int] | None] = [None] * len(one.shape)
    parts[index] = (half, half)
    return (
        f"{one.name} takes as many as both directions of {layer} give, side by side, but nothing says that they are "
        f"two halves; the model must have {written({one.name: tuple(parts)})}, or ({one.shape[index]},) where they are "
        "not"
    )
