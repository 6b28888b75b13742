"""Optuna's TPE and pruners over the trials of a sweep.

The state of the sweep is all that is kept: a study is made anew in memory from its trials whenever something is asked,
so that every process that shares the sweep asks the same study, whatever became of the others.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, final

from etude.app.sweep.names import identity
from etude.app.sweep.plan import Plan
from etude.app.sweep.ranges import Range, Values
from etude.app.sweep.search import Choice
from etude.app.sweep.space import Point
from etude.app.sweep.state.state import Stand, State, Trial
from etude.base.config.writing import inline
from etude.base.errors import ConfigError
from etude.base.randomness import seed_of

TABLE = "[[sweep.tables]]"
"""The parameter that says which table a combination has."""
NOTED = "optuna"
_SEEDS = 2**32
Params = Mapping[str, Any]


def load_optuna(key: str) -> Any:
    """The library. Raises ConfigError, which names the key that needs it, where it is missing."""
    try:
        optuna = import_module("optuna")
    except ImportError:
        raise ConfigError(f"{key} needs Optuna: run pip install 'etude[sweep]'.") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


@contextmanager
def _stable(optuna: Any) -> Iterator[None]:
    """Leave out the warnings that parts of Optuna may still change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


@final
class Parameters:
    """The space as Optuna has it: numbers of ranges, and positions in lists of values and of tables."""

    def __init__(self, plan: Plan, optuna: Any) -> None:
        self._space = plan.space
        known = optuna.distributions
        self.distributions = {key: _distribution(known, choice) for key, choice in self._space.choices.items()}
        if self._space.tables:
            self.distributions[TABLE] = known.CategoricalDistribution(tuple(range(len(self._space.tables))))

    def of(self, values: Mapping[str, Any]) -> Params | None:
        """The parameters of a combination; None of one that is no longer in the space."""
        try:
            found = {key: _position(choice, values[key]) for key, choice in self._space.choices.items()}
            if self._space.tables:
                found[TABLE] = self._table(values)
        except LookupError:
            return None
        return found

    def _table(self, values: Mapping[str, Any]) -> int:
        for number, table in enumerate(self._space.tables):
            if identity(table.values) == identity({key: values.get(key) for key in table.values}):
                return number
        raise LookupError(TABLE)

    def point(self, params: Params) -> Point:
        """The combination of parameters."""
        table = self._space.tables[params[TABLE]] if TABLE in params else None
        given = {} if table is None else table.values
        values = {key: _value(choice, params[key]) for key, choice in self._space.choices.items()}
        return Point({**given, **values}, table)


def _distribution(known: Any, choice: Values | Range) -> Any:
    match choice:
        case Values(values):
            return known.CategoricalDistribution(tuple(range(len(values))))
        case Range() if choice.is_whole:
            return known.IntDistribution(choice.low, choice.high, log=choice.log, step=choice.step or 1)
    return known.FloatDistribution(choice.low, choice.high, log=choice.log, step=choice.step)


def _position(choice: Values | Range, value: Any) -> Any:
    """What stands for a value. Raises LookupError where there is no such value any more."""
    if isinstance(choice, Range):
        if choice.low <= value <= choice.high:
            return value
        raise LookupError(value)
    known = {inline(one): number for number, one in enumerate(choice.values)}
    return known[inline(value)]


def _value(choice: Values | Range, position: Any) -> Any:
    return choice.values[position] if isinstance(choice, Values) else position


@final
class Tpe:
    """The tree-structured Parzen estimator (Bergstra and others 2011); trials that run elsewhere count as bad."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._optuna = load_optuna("sweep.method")
        self._parameters = Parameters(plan, self._optuna)

    def choose(self, trials: Sequence[Trial], number: int, attempt: int) -> Choice:
        """What Optuna asks for next."""
        with _stable(self._optuna):
            seed = seed_of(self._plan.config.seed, "sweep", number, attempt) % _SEEDS
            sampler = self._optuna.samplers.TPESampler(seed=seed, constant_liar=True)
            study = study_of(self._optuna, self._plan, trials, self._parameters, sampler=sampler)
            asked = study.ask(self._parameters.distributions)
        return Choice(self._parameters.point(asked.params), {})


@final
class Pruner:
    """Optuna's median rule, or Hyperband (Li and others 2018); what it counts are validations."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._optuna = load_optuna("sweep.prune")

    def prunes(self, state: State, name: str) -> bool:
        """Ask the pruner; what it notes of the trial is kept."""
        trials = state.trials()
        trial = next(one for one in trials if one.name == name)
        with _stable(self._optuna):
            study = study_of(self._optuna, self._plan, trials, None, pruner=self._made())
            prunes = bool(study.pruner.prune(study, study.trials[trials.index(trial)]))
            noted = dict(study.trials[trials.index(trial)].system_attrs)
        if noted != trial.remarks.get(NOTED, {}):
            state.remark(name, {**trial.remarks, NOTED: noted})
        return prunes

    def _made(self) -> Any:
        config, pruners = self._plan.config, self._optuna.pruners
        if config.prune == "hyperband":
            return pruners.HyperbandPruner(min_resource=config.prune_from)
        return pruners.MedianPruner(n_startup_trials=config.prune_after, n_warmup_steps=config.prune_from)


def study_of(optuna: Any, plan: Plan, trials: Sequence[Trial], parameters: Parameters | None, **parts: Any) -> Any:
    """A study with all trials, in order, so that each has its own number there."""
    direction = "minimize" if plan.goal == "min" else "maximize"
    study = optuna.create_study(study_name=plan.name, direction=direction, **parts)
    for trial in trials:
        params = {} if parameters is None else parameters.of(trial.values)
        study.add_trial(_frozen(optuna, trial, params, parameters))
    return study


def _frozen(optuna: Any, trial: Trial, params: Params | None, parameters: Parameters | None) -> Any:
    states = optuna.trial.TrialState
    known = {Stand.DONE: states.COMPLETE, Stand.PRUNED: states.PRUNED, Stand.FAILED: states.FAIL}
    state = states.FAIL if params is None else known.get(trial.state, states.RUNNING)
    return optuna.trial.create_trial(
        state=state,
        value=trial.value if state == states.COMPLETE else None,
        params=dict(params or {}),
        distributions={} if parameters is None or not params else parameters.distributions,
        system_attrs=dict(trial.remarks.get(NOTED, {})),
        intermediate_values={number: value for number, value in trial.reported.items() if value is not None},
    )
