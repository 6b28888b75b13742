"""A report as one page: static parts, the data of its charts as JSON, and the scripts that draw them."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from etude.app.report import sections
from etude.app.report.gather import RunTold, gather_all
from etude.app.report.html import element, section, text
from etude.app.report.library import STYLE, digest, scripts
from etude.app.report.series import FEWEST, charts, curves
from etude.app.report.trials import result_of, sweep

LARGEST: Final = 5_000_000
"""Bytes of a page."""
POINTS: Final = 80_000
"""Points of all curves together, before they are thinned further for the size of the page."""
MANY: Final = 12
"""Of more runs, only what they are judged by is drawn, and no samples are shown."""
NAMED: Final = 3
"""Runs that the title names."""
DRAWN: Final = 60
"""Of more runs, only the best are drawn as curves."""


def report(folders: Sequence[Path]) -> str:
    """The page of some runs, of fewer than `LARGEST` bytes.

    Raises StorageError for a folder that is no run, ConfigError where Bokeh is missing.
    """
    scripts()
    runs = gather_all(folders, whole=len(folders) <= MANY)
    points = POINTS
    made = page(runs, points)
    while len(made.encode()) >= LARGEST and points > FEWEST:
        points //= 4
        made = page(runs, points)
    return made


def _title(runs: Sequence[RunTold]) -> str:
    named = ", ".join(run.name for run in runs[:NAMED])
    return named if len(runs) <= NAMED else f"{named} and {len(runs) - NAMED} more"


def page(runs: Sequence[RunTold], points: int, *, watched: bool = False) -> str:
    """The page, whose curves have about so many points together; one that is `watched` asks for newer data."""
    own, title = scripts(), _title(runs)
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(map(digest, own))}",
            "style-src 'unsafe-inline'",
            "img-src data: blob:",
            f"connect-src {_source(watched=watched)}",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    return "".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="referrer" content="no-referrer"><meta name="color-scheme" content="light dark">',
            text("title", f"{title} - Etude"),
            element("style", STYLE.read_text(encoding="utf-8")),
            "</head>\n<body>",
            _header(title),
            element("main", content(runs), id="content"),
            f'<script type="application/json" id="data">{embedded(data(runs, points))}</script>\n',
            *(f"<script>{script}</script>\n" for script in own),
            "</body></html>\n",
        ]
    )


def _source(*, watched: bool) -> str:
    return "'self'" if watched else "'none'"


def _header(title: str) -> str:
    return element(
        "header",
        element("a", "To the content", class_="skip", href="#content"),
        text("h1", title),
        element("div", id="controls", role="group", aria_label="How curves are shown"),
        element("p", id="status", role="status", aria_live="polite"),
    )


def content(runs: Sequence[RunTold]) -> str:
    """What stands on the page, with empty places for the charts of each section."""
    return "".join(
        [
            sections.summary(runs),
            _charts("sweep", "Sweep"),
            _charts("curves", "Curves"),
            sections.metrics(runs[:MANY]),
            _charts("schedules", "Scheduled values"),
            section("Throughput and time", sections.times(runs), element("div", class_="charts", id="pace")),
            sections.configs(runs),
            sections.samples(runs),
            sections.confusions(runs),
            sections.pictures(runs),
            sections.skipped(runs),
            sections.origins(runs),
        ]
    )


def _charts(name: str, title: str) -> str:
    return element(
        "section", text("h2", title), element("div", class_="charts", id=name), aria_label=title, id=f"of-{name}"
    )


def data(runs: Sequence[RunTold], points: int) -> dict[str, Any]:
    """What the charts are drawn from."""
    drawn = _drawn(runs)
    each = max(FEWEST, points // max(1, sum(map(_curves, drawn))))
    found = [curves(run, each, _keys(runs)) for run in drawn]
    return {"runs": found, "charts": list(map(asdict, charts(found))), "sweep": sweep(runs)}


def _keys(runs: Sequence[RunTold]) -> set[str]:
    """The keys that are drawn; none means all."""
    return {"train/loss", runs[0].monitor} if len(runs) > MANY else set()


def _curves(run: RunTold) -> int:
    """How many curves a run has, about."""
    return len(set().union(*run.rows))


def _drawn(runs: Sequence[RunTold]) -> Sequence[RunTold]:
    """The runs that are drawn as curves: all, or the best."""
    if len(runs) <= DRAWN:
        return runs
    return sorted(runs, key=_rank)[:DRAWN]


def _rank(run: RunTold) -> float:
    """The lower, the better; a run without a result comes last."""
    result = result_of(run)
    if result is None:
        return math.inf
    return result if run.lower_is_better else -result


def embedded(value: Mapping[str, Any]) -> str:
    r"""JSON that may stand inside an element of HTML, whatever text it holds.

    >>> print(embedded({"a": "</script>"}))
    {"a":"\u003c/script>"}
    """
    told = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return told.replace("<", "\\u003c").replace("&", "\\u0026")
