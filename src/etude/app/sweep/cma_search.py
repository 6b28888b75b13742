"""CMA-ES over the ranges of a sweep, by `cmaes`, the library that Optuna's own sampler runs.

That sampler keeps its optimizer as a pickle beside the trials, and none is ever read from a folder of runs; so the
optimizer is made anew here from what came of each generation, as often as it is asked.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Any, final

import numpy as np

from etude.app.sweep.plan import Plan
from etude.app.sweep.ranges import Range
from etude.app.sweep.search import Choice
from etude.app.sweep.state.state import Stand, Trial
from etude.base.errors import ConfigError
from etude.base.randomness import generator, seed_of

GENERATION, PLACE = "generation", "place"
_SEEDS = 2**31


@final
class CmaEs:
    """Covariance matrix adaptation (Hansen 2016, "The CMA Evolution Strategy: A Tutorial") in the unit cube.

    Lists of values and tables, which have no order, are drawn at random.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        try:
            self._cmaes: Any = import_module("cmaes")
        except ImportError:
            raise ConfigError("sweep.method needs the library cmaes: run pip install 'etude[sweep]'.") from None
        choices = [*([None] if plan.space.tables else []), *plan.space.choices.values()]
        self._axes = [number for number, choice in enumerate(choices) if isinstance(choice, Range)]
        if len(self._axes) < 2:  # noqa: PLR2004 - a covariance is of two
            raise ConfigError(f'sweep.method "cma_es" needs at least two ranges, but there are {len(self._axes)}.')

    def choose(self, trials: Sequence[Trial], number: int, attempt: int) -> Choice:
        """A draw of the newest generation."""
        optimizer, generation = self._optimizer(trials)
        drawn = [optimizer.ask() for _ in range(number + 1)][-1]  # it draws the same ones each time it is made
        seed = self._plan.config.seed
        places = generator(seed, "sweep", number, attempt).random(self._plan.space.axes)
        if attempt:  # a condition has refused it: move a little
            drawn = np.clip(drawn + (places[self._axes] - 0.5) * min(1.0, attempt / 10), 0.0, 1.0)
        places[self._axes] = drawn
        return Choice(self._plan.space.at(places.tolist()), {GENERATION: generation, PLACE: drawn.tolist()})

    def _optimizer(self, trials: Sequence[Trial]) -> tuple[Any, int]:
        """The optimizer after all generations that are whole, and the number of the next."""
        count = len(self._axes)
        optimizer = self._cmaes.CMA(
            mean=np.full(count, 0.5),
            sigma=1 / 6,
            bounds=np.tile([0.0, 1.0], (count, 1)),
            seed=seed_of(self._plan.config.seed, "sweep") % _SEEDS,
        )
        size, sign = optimizer.population_size, 1.0 if self._plan.goal == "min" else -1.0
        generation = 0
        while len(whole := _of_generation(trials, generation)[:size]) == size:
            optimizer.tell([(np.array(trial.remarks[PLACE]), sign * (trial.value or 0.0)) for trial in whole])
            generation += 1
        return optimizer, generation


def _of_generation(trials: Sequence[Trial], generation: int) -> list[Trial]:
    return [trial for trial in trials if trial.state is Stand.DONE and trial.remarks.get(GENERATION) == generation]
