"""The processes that train one run together. Nothing outside of this package may ever import `torch.distributed`."""

from etude.train.world.joining import Joined, begin_together, joined, refuse_ranks
from etude.train.world.passing import passing
from etude.train.world.place import Place, find_place
from etude.train.world.protocol import ALONE, Alone, World

__all__ = [
    "ALONE",
    "Alone",
    "Joined",
    "Place",
    "World",
    "begin_together",
    "find_place",
    "joined",
    "passing",
    "refuse_ranks",
]
