"""The units of a model: what fully sharded data parallelism gathers at once, and checkpointing computes anew."""

from collections.abc import Iterator

from torch import nn


def units(module: nn.Module) -> list[nn.Module]:
    """The outermost layers that a module holds in lists, in order, such as the layers of a transformer.

    >>> layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    >>> len(units(nn.Sequential(nn.Embedding(3, 2), nn.ModuleDict({"layers": layers}))))
    2
    """
    return list(_units(module))


def _units(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from (layer for layer in child if any(True for _ in layer.parameters()))
        else:
            yield from _units(child)
