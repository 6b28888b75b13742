"""The parts of a report that are text and tables, as HTML."""

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from operator import attrgetter, methodcaller
from typing import Any

from etude.app.report.gather import RunTold
from etude.app.report.html import element, folded, section, table, table_of, text
from etude.app.report.outputs import Samples, cell
from etude.app.report.series import where_time_went
from etude.app.report.trials import differing, result_of
from etude.train.watch.record import Row

VALUES = ("val/", "test/")
MOST = 12
"""Runs whose config and environment are told as a whole."""


def summary(runs: Sequence[RunTold]) -> str:
    """What every run is, and how it stands."""
    rows = [
        (run.name, run.state, f"{_last(run.rows, 'step'):,.0f}", f"{_last(run.rows, 'epoch'):.2f}", _best(run))
        for run in runs
    ]
    return section("Runs", table(("run", "state", "steps", "epochs", "best"), rows, "The runs of this report"))


def _last(rows: Sequence[Row], key: str) -> float:
    return next((float(row[key]) for row in reversed(rows) if isinstance(row.get(key), int | float)), 0.0)


def _best(run: RunTold) -> str:
    result = result_of(run)
    if result is None:
        return ""
    at = "" if run.best_step is None else f" at step {run.best_step:,}"
    return f"{run.monitor} {result:.5g}{at}"


def metrics(runs: Sequence[RunTold]) -> str:
    """The last value of each metric, run by run."""
    lasts = [_values(run.rows) for run in runs]
    keys = sorted(set().union(*lasts))
    return section("Metrics", _compared("metric", runs, lasts, keys, "The last value of each metric"))


def _values(rows: Sequence[Row]) -> dict[str, str]:
    """The last value of each metric of a validation or a test."""
    found: dict[str, str] = {}
    for row in rows:
        found |= {key: cell(row[key]) for key in row if key.startswith(VALUES)}
    return found


def _compared(
    what: str, runs: Sequence[RunTold], columns: Sequence[Mapping[str, str]], keys: Sequence[str], caption: str
) -> str:
    """A table with a row for each key and a column for each run; nothing without keys."""
    rows = [(key, *map(methodcaller("get", key, ""), columns)) for key in keys]
    return table((what, *map(attrgetter("name"), runs)), rows, caption) if rows else ""


def configs(runs: Sequence[RunTold]) -> str:
    """Where the configs differ, and all of each."""
    columns = [run.config for run in runs]
    told = _compared("key", runs, columns, differing(runs), "Keys whose values differ; an empty one is not set")
    return section("Config", told, *map(_config, runs[:MOST]))


def _config(run: RunTold) -> str:
    caption = f"Config of {run.name}"
    return folded(f"The whole config of {run.name}", table(("key", "value"), run.config.items(), caption))


def times(runs: Sequence[RunTold]) -> str:
    """What the seconds of each run were spent on."""
    spent = [where_time_went(run.rows) for run in runs]
    rows = [(run.name, *map(_seconds, found.values())) for run, found in zip(runs, spent, strict=True)]
    return table(("run", *spent[0]), rows, "Seconds, by what they were spent on")


def _seconds(spent: float) -> str:
    return f"{spent:,.1f}"


def samples(runs: Sequence[RunTold]) -> str:
    """Predictions beside their references."""
    found = [_samples(run.name, split, told) for run in runs for split, told in run.samples.items()]
    return section("Samples", *found, about="What the best weights predict, beside what the data say.")


def _samples(name: str, split: str, told: Samples) -> str:
    first = table(told.columns, told.first, f"{name}, {split}: the first samples")
    if not told.worst:
        return first
    return first + folded(
        f"{name}, {split}: the greatest losses", table(told.columns, told.worst, "Samples with the greatest losses")
    )


def confusions(runs: Sequence[RunTold]) -> str:
    """Confusion matrices: a row for each true label."""
    found = [_matrix(f"{run.name}, {name}", cells) for run in runs for name, cells in run.tables.items()]
    return section("Confusion", *found, about="A row for each true label, a column for each predicted one.")


def _matrix(caption: str, cells: Sequence[Sequence[str]]) -> str:
    """A matrix whose cells are shaded by their share of the row."""
    head, *rows = cells
    lines = [element("tr", text("th", row[0], scope="row"), *_shaded(row[1:])) for row in rows if row]
    return table_of(head, lines, caption, class_="matrix")


def _shaded(counts: Sequence[str]) -> Iterator[str]:
    whole = sum(map(_number, counts)) or 1.0
    for count in counts:
        yield text("td", count, style=f"--share: {_number(count) / whole:.3f}")


def _number(said: str) -> float:
    """A count, from 0 on; what is none counts nothing."""
    return float(said) if said.replace(".", "", 1).isdecimal() else 0.0


def pictures(runs: Sequence[RunTold]) -> str:
    """Attention and alignments that were drawn into the runs' folders."""
    return section(
        "Attention and alignments",
        *(_picture(f"{run.name}: {name}", drawn) for run in runs for name, drawn in run.pictures.items()),
    )


def _picture(name: str, drawn: bytes) -> str:
    """As an image, in which no script runs."""
    source = f"data:image/svg+xml;base64,{b64encode(drawn).decode()}"
    return element("figure", f'<img alt="{escape(name)}" src="{source}">', text("figcaption", name))


def skipped(runs: Sequence[RunTold]) -> str:
    """Samples that were left out."""
    return section("Skipped samples", *(_skipped(run) for run in runs if run.skipped.count))


def _skipped(run: RunTold) -> str:
    rows = [tuple(cell(row.get(name)) for name in ("file", "line", "reason")) for row in run.skipped.listed]
    caption = f"{run.name}: {run.skipped.count:,} samples were left out; the first {len(rows):,}"
    return table(("file", "line", "reason"), rows, caption)


def origins(runs: Sequence[RunTold]) -> str:
    """When each run was begun and gone on with, and what it was made with."""
    return section("Starts and environment", *map(_starts, runs[:MOST]), *map(_environment, runs[:MOST]))


def _starts(run: RunTold) -> str:
    starts = [(str(number), *_start(start)) for number, start in enumerate(run.starts, 1)]
    return table(("start", "time", "from step"), starts, f"{run.name}: starts") if starts else ""


def _environment(run: RunTold) -> str:
    facts = [(key, cell(value)) for key, value in _flat(run.environment) if key not in {"starts", "configs"}]
    return folded(f"What {run.name} was made with", table(("what", "value"), facts, "Environment")) if facts else ""


def _start(start: Mapping[str, Any]) -> tuple[str, str]:
    return cell(start.get("time")), cell(start.get("step"))


def _flat(nest: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, object]]:
    for key, value in nest.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{place}{key}.")
        else:
            yield f"{place}{key}", value
