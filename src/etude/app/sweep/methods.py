"""The methods of `[sweep]` by name."""

from etude.app.sweep.cma_search import CmaEs
from etude.app.sweep.optuna_search import Pruner, Tpe
from etude.app.sweep.plan import Plan
from etude.app.sweep.search import AllKnown, Chosen, NoPruning, Pruning, Search


def search_of(plan: Plan) -> Search:
    """Where the trials of a sweep come from. Raises ConfigError where what it needs is missing."""
    match plan.config.method:
        case "tpe":
            return Chosen(plan, Tpe(plan))
        case "cma_es":
            return Chosen(plan, CmaEs(plan))
    return AllKnown()


def pruning_of(plan: Plan) -> Pruning:
    """What ends its runs early. Raises ConfigError where what it needs is missing."""
    return NoPruning() if plan.config.prune is None else Pruner(plan)
