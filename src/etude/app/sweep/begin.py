"""The begin of a sweep: everything is checked before its first run, and against what its folder holds already."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from etude.app.sweep.names import name_of
from etude.app.sweep.plan import Plan
from etude.app.sweep.state.database import Postgres, Sqlite
from etude.app.sweep.state.owner import this_process
from etude.app.sweep.state.state import State, Trial
from etude.base.config.writing import toml
from etude.base.errors import ConfigError, RefusedError, StorageError
from etude.base.files import make_folder, write_text
from etude.base.says import Say
from etude.callbacks.rows import SWEEP

STATE = "sweep.sqlite"
ASKED, FIRST = "asked", "first"
MOST = 5
"""Problems of combinations that are told."""
HOW = ("method", "seed", "metric", "stage", "goal", "keys")
"""What of a sweep cannot change once it has begun."""


def opener(plan: Plan) -> Callable[[], State]:
    """What opens the state of a sweep, for this process."""
    owner, config = this_process(), plan.config

    def opened() -> State:
        database = Sqlite(plan.folder / STATE) if config.state is None else Postgres(config.state)
        return State(database, plan.name, owner, config.dead_after)

    return opened


def begin(plan: Plan, open_state: Callable[[], State], say: Say) -> None:
    """Check every combination, compare the sweep with what was begun, and write its trials down.

    Raises ConfigError where a combination is no valid config, RefusedError where the folder holds another sweep.
    """
    points = plan.points
    try:
        known = _known(plan, open_state)
    except RefusedError:
        check(plan, {name: point.values for name, point in points.items()})  # a mistake says more than a difference
        raise
    check(plan, {name: point.values for name, point in points.items() if name not in known})
    make_folder(plan.folder)
    state = open_state()
    state.note(ASKED, asked(plan))
    note_first(plan, state)
    if not plan.is_search:
        added = state.settle({name: point.values for name, point in points.items()})
        _tell_what_changed(added, known.keys() - points.keys(), say, is_new=not known)
    state.close()
    with suppress(StorageError):  # another process may be writing the same, under the same number on its machine
        write_text(plan.folder / SWEEP, toml(record(plan)))


def _known(plan: Plan, open_state: Callable[[], State]) -> dict[str, Trial]:
    """The trials that there are, by name; none of a sweep that is new. Raises RefusedError for those of another."""
    if plan.config.state is None and not (plan.folder / STATE).exists():
        return {}
    state = open_state()
    try:
        compare(plan, state)
        return {trial.name: trial for trial in state.trials()}
    finally:
        state.close()


def _tell_what_changed(added: int, left: Collection[str], say: Say, *, is_new: bool) -> None:
    if added and not is_new:
        say(f"The space has grown: {added} new combinations.")
    if left:
        say(f"{len(left)} earlier combinations are no longer in the space: what is done of them stays.")


def asked(plan: Plan) -> dict[str, Any]:
    """What makes this sweep the one that it is, beside its values."""
    return {
        "method": plan.config.method,
        "seed": plan.config.seed if plan.config.method != "grid" else None,
        "metric": plan.metric,
        "stage": plan.judge.stage or None,
        "goal": plan.goal,
        "keys": sorted(plan.space.keys),
    }


def record(plan: Plan) -> dict[str, Any]:
    """What is written down of a sweep for a reader."""
    about = {"config": str(plan.path.absolute()), "metric": plan.metric, "goal": plan.goal}
    about |= {f"--{'.'.join(one.key)}": one.value for one in plan.same}
    settings = plan.config.model_dump(exclude={"keys", "tables", "metric", "goal"})
    return {"sweep": {**about, **settings, "keys": _told(plan), "tables": [dict(t.values) for t in plan.space.tables]}}


def _told(plan: Plan) -> dict[str, Any]:
    return {key: choice.told() for key, choice in plan.space.choices.items()}


def compare(plan: Plan, state: State) -> None:
    """Refuse to go on with another sweep. Raises RefusedError, which says what changed."""
    before, first = state.noted(ASKED), state.noted(FIRST)
    if before is None or first is None:
        return
    changed = _changed(before, asked(plan)) or list(dict.fromkeys(_changes(plan, first)))
    if changed:
        more = f" and {len(changed) - MOST} more" if len(changed) > MOST else ""
        raise RefusedError(
            f"The sweep in {plan.folder} began otherwise: {'; '.join(changed[:MOST])}{more}. Give --run.name for a new "
            f"sweep."
        )


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    apart = [name for name in HOW if before.get(name) != now[name]]
    return [f"{name} was {_shown(before.get(name))} and is {_shown(now[name])}" for name in apart]


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _changes(plan: Plan, first: Mapping[str, Any]) -> list[str]:
    """What changed of the config that all runs share, as the first combination has it."""
    return list(plan.composed("", first["values"]).changed(first["config"]))


def note_first(plan: Plan, state: State) -> None:
    """Note the config of one combination, by which changes are seen later."""
    point = next(iter(plan.points.values()), None) or plan.space.at([0.5] * plan.space.axes)
    state.note(FIRST, {"values": dict(point.values), "config": plan.composed("", point.values).view})


def check(plan: Plan, combinations: Mapping[str, Mapping[str, Any]]) -> None:
    """Check the config of every combination. Raises ConfigError with what is wrong, each mistake once."""
    found: dict[str, list[str]] = {}
    for name, values in combinations.items():
        try:
            plan.composed(name, values)
        except ConfigError as error:
            for problem in error.problems:
                found.setdefault(problem, []).append(name)
    if plan.is_search:
        _check_search(plan)
    if found:
        problems = [
            f"{problem.removesuffix('.')}, in {_counted(names)}." for problem, names in islice(found.items(), MOST)
        ]
        raise ConfigError(problems)


def _counted(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _check_search(plan: Plan) -> None:
    """Check the corners of the space, of which a search may choose any place."""
    for place in (0.0, 0.5, 1.0):
        point = plan.space.at([place] * plan.space.axes)
        plan.composed(name_of(point, plan.space.keys, 0), point.values)
