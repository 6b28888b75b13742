"""The parts of a report that are text and tables, as HTML."""

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from etude.app.report.gather import RunTold
from etude.app.report.html import element, folded, section, table, text
from etude.app.report.outputs import Samples, cell
from etude.app.report.series import where_time_went
from etude.app.report.trials import differing, result_of
from etude.train.watch.record import Row

VALUES = ("val/", "test/")


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
    """The last value of each metric, run by run, with its best where it has several."""
    lasts = [_values(run.rows) for run in runs]
    keys = sorted(dict.fromkeys(key for found in lasts for key in found))
    rows = [(key, *(cell(found.get(key)) for found in lasts)) for key in keys]
    head = ("metric", *(run.name for run in runs))
    return section("Metrics", table(head, rows, "The last value of each metric") if rows else "")


def _values(rows: Sequence[Row]) -> dict[str, float]:
    """The last value of each metric of a validation or a test."""
    return {key: value for row in rows for key, value in row.items() if key.startswith(VALUES) and value is not None}


def configs(runs: Sequence[RunTold]) -> str:
    """Where the configs differ, and all of each."""
    head = ("key", *(run.name for run in runs))
    rows = [(key, *(run.config.get(key, "not set") for run in runs)) for key in differing(runs)]
    told = table(head, rows, "Keys whose values differ") if rows else ""
    if len(runs) > 1 and not rows:
        told = text("p", "The configs do not differ.")
    whole = [
        folded(f"The whole config of {run.name}", table(("key", "value"), run.config.items(), f"Config of {run.name}"))
        for run in runs[:12]
    ]
    return section("Config", told, *whole)


def times(runs: Sequence[RunTold]) -> str:
    """What the seconds of each run were spent on."""
    spent = [(run.name, where_time_went(run.rows)) for run in runs]
    rows = [(name, *(f"{seconds:,.1f}" for seconds in found.values())) for name, found in spent if any(found.values())]
    head = ("run", *(spent[0][1] if spent else ()))
    return table(head, rows, "Seconds, by what they were spent on") if rows else ""


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
    return element(
        "div",
        element(
            "table",
            text("caption", caption),
            element("thead", element("tr", *(text("th", label, scope="col") for label in head))),
            element("tbody", *lines),
            class_="matrix",
        ),
        class_="scrolls",
        tabindex="0",
        role="region",
        aria_label=caption,
    )


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
    return section("Starts and environment", *map(_origin, runs[:12]))


def _origin(run: RunTold) -> str:
    starts = [(str(number), *_start(start)) for number, start in enumerate(run.starts, 1)]
    told = table(("start", "time", "from step"), starts, f"{run.name}: starts") if starts else ""
    facts = [(key, cell(value)) for key, value in _flat(run.environment) if not key.startswith(("starts", "configs"))]
    made = folded(f"What {run.name} was made with", table(("what", "value"), facts, "Environment")) if facts else ""
    return told + made


def _start(start: Mapping[str, Any]) -> tuple[str, str]:
    return cell(start.get("time")), cell(start.get("step"))


def _flat(nest: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, object]]:
    for key, value in nest.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{place}{key}.")
        else:
            yield f"{place}{key}", value
