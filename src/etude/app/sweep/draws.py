"""Draws from a space: random and quasi-random ones are functions of (seed, number), so that more of them can follow."""

from collections.abc import Callable, Iterator, Sequence
from itertools import count

from etude.app.sweep.names import identity
from etude.app.sweep.space import Point, Space
from etude.base.errors import ConfigError
from etude.base.randomness import generator, seed_of

PATIENCE = 10_000
"""Draws in a row that may be refused or known already."""
_LARGEST_SEED = 2**31
Allows = Callable[[Point], bool]


def random_places(axes: int, seed: int) -> Iterator[Sequence[float]]:
    """Places in the unit cube, each drawn by itself."""
    for number in count():
        yield generator(seed, "sweep", number).random(axes).tolist()


def quasi_random_places(axes: int, seed: int) -> Iterator[Sequence[float]]:
    """Places that fill the unit cube evenly: a Sobol sequence (1967) with Owen's scrambling, as torch computes it."""
    from torch.quasirandom import SobolEngine

    engine = SobolEngine(axes, scramble=True, seed=seed_of(seed, "sweep") % _LARGEST_SEED)  # type: ignore[no-untyped-call]
    while True:
        yield engine.draw(1)[0].double().tolist()


PLACES = {"random": random_places, "quasi_random": quasi_random_places}


def draw(space: Space, method: str, trials: int, seed: int, allows: Allows) -> Iterator[Point]:
    """The first combinations that are drawn and allowed, each once.

    Raises ConfigError where there are not as many.
    """
    known: set[str] = set()
    refused = 0
    for place in PLACES[method](space.axes, seed):
        if len(known) == trials:
            return
        point = space.at(place)
        if identity(point.values) in known or not allows(point):
            refused += 1
            if refused == PATIENCE:
                raise ConfigError(
                    f"sweep.trials is {trials}, but {PATIENCE:,} draws in a row gave no combination beyond the first "
                    f"{len(known)} that sweep.where allows."
                )
            continue
        refused = 0
        known.add(identity(point.values))
        yield point
