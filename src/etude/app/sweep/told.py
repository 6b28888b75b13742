"""How a sweep stands: a table for people, rows for programs, and what failed."""

from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable

from etude.app.sweep.names import short_keys, shown
from etude.app.sweep.plan import Plan
from etude.app.sweep.state.state import Stand, Trial
from etude.app.sweep.worker import best_of


def table(plan: Plan, trials: Sequence[Trial], width: int) -> str:
    """Every trial with its values, the best first, then those that have no value."""
    short = short_keys(list(dict.fromkeys(key for trial in trials for key in trial.values)))
    drawn = RichTable(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for title in (*short.values(), "state", plan.metric, "step", "seconds"):
        drawn.add_column(
            title, overflow="fold", justify="right" if title in {plan.metric, "step", "seconds"} else "left"
        )
    best = best_of(trials, plan.goal)
    for trial in ranked(trials, plan.goal):
        style = "bold" if trial is best else None
        drawn.add_row(*_cells(trial, list(short)), style=style)
    written = StringIO()
    Console(file=written, width=width, highlight=False, markup=False, color_system=None).print(drawn)
    return "\n".join(line.rstrip() for line in written.getvalue().rstrip("\n").split("\n"))


def _cells(trial: Trial, keys: Sequence[str]) -> list[str]:
    values = [shown(trial.values[key]) if key in trial.values else "" for key in keys]
    value = "" if trial.value is None else f"{trial.value:.6g}"
    step = "" if trial.step is None else f"{trial.step:,}"
    return [*values, trial.state.value, value, step, f"{trial.seconds:.0f}"]


def ranked(trials: Sequence[Trial], goal: str) -> list[Trial]:
    """Those that are done, the best first; then the others in order."""
    sign = 1.0 if goal == "min" else -1.0
    order = {state: place for place, state in enumerate((Stand.DONE, Stand.PRUNED))}

    def place(trial: Trial) -> tuple[int, float, int]:
        merit = 0.0 if trial.value is None else sign * trial.value
        return order.get(trial.state, len(order)), merit if trial.state in order else 0.0, trial.number

    return sorted(trials, key=place)


def as_row(trial: Trial, plan: Plan) -> dict[str, Any]:
    """A trial as an object of JSON."""
    return {
        "name": trial.name,
        "state": trial.state.value,
        "values": dict(trial.values),
        "metric": plan.metric,
        "value": trial.value,
        "step": trial.step,
        "seconds": trial.seconds,
        "error": trial.error,
        "folder": str(plan.folder / trial.name),
        "owner": None if trial.owner is None else str(trial.owner),
    }


def summary(counts: Mapping[Stand, int]) -> str:
    """How many trials stand how, as a clause."""
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "no runs"


def failures(trials: Sequence[Trial]) -> list[str]:
    """A line for each trial that failed."""
    failed = [trial for trial in trials if trial.state is Stand.FAILED]
    return [f"{trial.name} failed: {' '.join((trial.error or '').split())}" for trial in failed]
