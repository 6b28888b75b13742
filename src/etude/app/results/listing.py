"""Tables of runs and of groups of runs: as cells for a terminal, as rows of CSV, as JSON."""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from etude.app.layout import columns
from etude.app.results.groups import Group, telling_keys
from etude.app.results.summary import WAITING, Summary
from etude.app.results.values import Values
from etude.app.results.where import MISSING
from etude.base.config.writing import inline
from etude.base.errors import ConfigError
from etude.metrics.significance import Spread, spread

COLUMNS = ("name", "state", "step", "epoch", "best", "changed")
SECONDS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
OF_GROUPS = ("group", "runs", "mean", "deviation", "best", "best_run")
MOST_TELLING = 6
"""Keys that are shown because they tell groups apart, unless columns are asked for."""

Row = Mapping[str, Any]


def row_of(run: Values, keys: Sequence[str] | None) -> Row:
    """A run as plain values: those asked for, or its whole summary; null for what it does not have."""
    return asdict(run.summary) if keys is None else {key: _plain(run(key)) for key in keys}


def rows_of(groups: Sequence[Group], keys: Sequence[str] | None) -> list[Row]:
    """Groups as plain values: what their monitored metric comes to, and what is asked for beside it."""
    beside = telling_keys(groups)[:MOST_TELLING] if keys is None and groups else keys or ()
    return [_row_of_group(group, beside) for group in groups]


def _row_of_group(group: Group, beside: Sequence[str]) -> Row:
    best = group.best
    return {
        "group": group.name,
        "monitor": group.monitor,
        **_spread(group.of_best),
        "best": None if best is None else best.summary.best,
        "best_run": None if best is None else best.summary.name,
        "members": [run.summary.name for run in group.runs],
        **{key: _together(group, key) for key in beside},
    }


def _spread(of: Spread) -> Row:
    told = {"mean": of.mean, "deviation": of.deviation}
    return {"runs": of.number, **{name: None if math.isnan(value) else value for name, value in told.items()}}


def _together(group: Group, key: str) -> object:
    """What a group has under a key: the one value of all, or mean, deviation and number of what differs."""
    common = group.common(key)
    numbers = group.numbers(key)
    return _spread(spread(numbers)) if common is MISSING and numbers else _plain(common)


def _plain(value: object) -> object:
    return None if value is MISSING else value


def as_csv(rows: Sequence[Row]) -> str:
    """Rows as a table of comma-separated values, with their names above."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0])
    writer.writerows([map(_csv_cell, row.values()) for row in rows])
    return text.getvalue().rstrip("\n")


def _csv_cell(value: object) -> object:
    match value:
        case None:
            return ""
        case bool() | dict() | list():
            return inline(_without_null(value))
    return value


def _without_null(value: object) -> object:
    match value:
        case dict():
            return {key: part for key, part in value.items() if part is not None}
    return value


def table(runs: Sequence[Values], keys: Sequence[str] | None) -> list[str]:
    """Runs as lines."""
    shown = COLUMNS if keys is None else tuple(keys)
    rows = [[_cell_of_run(run, key) for key in shown] for run in runs]
    return _lines(shown, rows)


def table_of_groups(groups: Sequence[Group], keys: Sequence[str] | None) -> list[str]:
    """Groups as lines."""
    rows = rows_of(groups, keys)
    hidden = ("monitor", "members")
    shown = [name for name in rows[0] if name not in hidden]
    named = [*shown[:2], f"mean {groups[0].monitor}" if _is_one_monitor(groups) else "mean", *shown[3:]]
    return _lines(named, [[_cell(row[name]) for name in shown] for row in rows])


def _is_one_monitor(groups: Sequence[Group]) -> bool:
    return len({group.monitor for group in groups}) == 1


def _lines(names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    numbers = [at for at in range(len(names)) if all(map(_is_right, (row[at] for row in rows)))]
    return columns([names, *rows], right=numbers)


def _is_right(cell: str) -> bool:
    """Whether a cell stands at the right of its column: a number does, or how long ago something was."""
    return cell.endswith(" ago") or cell[:1].isdigit() or cell[:1] in {"-", ""}


def cells(one: Summary) -> tuple[str, ...]:
    """The texts of a run's row, one for each of `COLUMNS`."""
    return tuple(_cell_of_run(Values(one), key) for key in COLUMNS)


def _cell_of_run(run: Values, key: str) -> str:
    special = _SPECIAL.get(key)
    return _cell(_plain(run(key))) if special is None else special(run.summary)


def _best(one: Summary) -> str:
    at = "" if one.best_step is None else f" at step {one.best_step:,}"
    return "" if one.best is None else f"{one.monitor} {one.best:.4g}{at}"


def _changed(one: Summary) -> str:
    return "" if one.state == WAITING else age(one.changed_seconds)


_SPECIAL: Mapping[str, Callable[[Summary], str]] = {
    "best": _best,
    "step": lambda one: f"{one.step:,}",
    "epoch": lambda one: f"{one.epoch:.2f}",
    "changed": _changed,
}


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return inline(value)
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.4g}"
        case {"mean": float(mean), "deviation": deviation, **_rest}:
            return f"{mean:.4g}" + ("" if deviation is None else f" ± {deviation:.2g}")
    return inline(_without_null(value))


def age(seconds: float) -> str:
    """How long ago, in the largest unit.

    >>> age(30), age(4000)
    ('30 s ago', '1 h ago')
    """
    unit, length = next(((unit, length) for unit, length in SECONDS if seconds >= length), SECONDS[-1])
    return f"{int(seconds // length)} {unit} ago"


def keys_of(text: str | None) -> list[str] | None:
    """The keys that `--columns` names; None where it does not stand. Raises ConfigError where it names none."""
    keys = list(filter(None, map(str.strip, (text or "").split(","))))
    if text is not None and not keys:
        raise ConfigError("--columns must name a key or several, as in --columns name,val/loss.")
    return keys or None
