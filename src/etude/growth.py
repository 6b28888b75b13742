"""What a network's own parameters are made up of, for networks that grow: `from etude.growth import gives, takes`.

A module whose parameter has several things side by side in one dimension says so by a method `growth_parts`:

>>> from torch import nn
>>> from etude.growth import GrowthParts, gives
>>> class Gated(nn.Module):
...     def __init__(self, width: int, hidden: int) -> None:
...         super().__init__()
...         self.hidden = hidden
...         self.inner = nn.Linear(width, 2 * hidden)  # values and their gates
...
...     def growth_parts(self) -> GrowthParts:
...         halves = gives(self.hidden, self.hidden)
...         return {"inner.weight": (halves, None), "inner.bias": (halves,)}
>>> [row.row.size for row in Gated(4, 3).growth_parts()["inner.bias"]]
[6]
"""

from etude.model.growth import Growth, Transfer, plan_transfer
from etude.model.layers.growing import GrowthParts, classes, given, gives, head, heads, takes, taps

__all__ = [
    "Growth",
    "GrowthParts",
    "Transfer",
    "classes",
    "given",
    "gives",
    "head",
    "heads",
    "plan_transfer",
    "takes",
    "taps",
]
