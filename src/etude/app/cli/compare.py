"""`etude compare`: configs and metrics of runs side by side, and how sure it is which is better."""

import json
import math
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from etude.app.cli.streams import printable, put
from etude.app.layout import columns
from etude.app.results.comparing import Pairing, SideBySide, group_of, side_by_side, verdict
from etude.app.results.groups import Group
from etude.app.runs.changes import shown
from etude.base.errors import ConfigError
from etude.metrics.significance import RESAMPLES, Difference, spread


def run(arguments: Namespace, overrides: list[str]) -> int:
    """Print how runs compare with the first; 0 whichever is better."""
    del overrides
    if len(arguments.runs) < 2:  # noqa: PLR2004 - one run has nothing to be compared with
        raise ConfigError("etude compare: give two run folders or more, as in etude compare runs/a runs/b.")
    if len({Path(one).resolve() for one in arguments.runs}) < len(arguments.runs):
        raise ConfigError("etude compare: a run is given twice, which differs in nothing.")
    if arguments.resamples < RESAMPLES:
        raise ConfigError(f"--resamples must be {RESAMPLES:,} or more, but is {arguments.resamples:,}.")
    groups = [group_of(Path(one), with_seeds=arguments.group) for one in arguments.runs]
    found = side_by_side(groups, split=arguments.split, resamples=arguments.resamples, seed=arguments.seed)
    lines = map(_safe, _lines(found))
    put(json.dumps(as_json(found), ensure_ascii=False) if arguments.json else "\n".join(lines))
    return 0


def _safe(line: str) -> str:
    return printable(line).replace("\n", "\\n")


def _lines(found: SideBySide) -> Iterator[str]:
    letters = [chr(ord("a") + at) if at < 26 else str(at) for at in range(len(found.groups))]  # noqa: PLR2004 - letters
    for letter, group in zip(letters, found.groups, strict=True):
        yield f"{letter}: {_told(group)}"
    yield from _config(found, letters)
    yield from _metrics(found, letters)
    for letter, pairing in zip(letters[1:], found.pairings, strict=True):
        yield from _of_pairing(found, pairing, letter)


def _config(found: SideBySide, letters: Sequence[str]) -> Iterator[str]:
    if not found.config:
        yield "Config: the same"
        return
    yield f"Config: {len(found.config)} different"
    rows = [[key, *map(shown, values)] for key, values in found.config.items()]
    yield from _indented(columns([["key", *letters], *rows]))


def _metrics(found: SideBySide, letters: Sequence[str]) -> Iterator[str]:
    if not found.metrics:
        yield "Metrics: none measured"
        return
    yield "Metrics of the best weights:"
    rows = [[name, *map(_number, values)] for name, values in found.metrics.items()]
    yield from _indented(columns([["metric", *letters], *rows], right=range(1, len(letters) + 1)))


def _told(group: Group) -> str:
    if len(group.runs) == 1:
        one = group.runs[0].summary
        return f"{one.folder} ({one.state}, step {one.step:,}{_best(one.best_step)})"
    return f"{group.name} ({len(group.runs)} runs: {', '.join(run.summary.name for run in group.runs)})"


def _best(step: int | None) -> str:
    return "" if step is None else f", best at {step:,}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"


def _indented(lines: Sequence[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)


def _of_pairing(found: SideBySide, pairing: Pairing, letter: str) -> Iterator[str]:
    yield f"{letter} beside a:"
    if pairing.over_seeds is not None:
        one, other = (spread(group.numbers("best")) for group in (found.groups[0], pairing.of))
        yield (
            f"  {found.monitor} over seeds: a {one.mean:.5g} ± {one.deviation:.2g}, {letter} {other.mean:.5g} ± "
            f"{other.deviation:.2g}; {_difference(pairing.over_seeds)}"
        )
    if pairing.note:
        yield f"  {pairing.note}"
    for judged in pairing.judged:
        yield (
            f"  {pairing.split}/{judged.metric} of {pairing.samples:,} samples: a {judged.first:.5g}, {letter} "
            f"{judged.second:.5g}; {_difference(judged.difference)}"
        )
    if pairing.left_out:
        yield f"  {pairing.left_out:,} samples that only one of them has answered are left out."
    yield f"  {verdict(found, pairing)}"


def _difference(one: Difference) -> str:
    interval = "" if math.isnan(one.interval.low) else f" (95 %: {one.interval.low:+.3g} to {one.interval.high:+.3g})"
    p = "" if math.isnan(one.p) else f", p = {one.p:.3g}"
    return f"difference {one.value:+.3g}{interval}{p}"


# -- as JSON -----------------------------------------------------------------------------------------------------------


def as_json(found: SideBySide) -> dict[str, Any]:
    """The comparison as one JSON object."""
    return {
        "runs": [{"name": group.name, "folders": [str(run.folder) for run in group.runs]} for group in found.groups],
        "monitor": found.monitor,
        "config": found.config,
        "metrics": found.metrics,
        "compared": [_pairing_as_json(found, one) for one in found.pairings],
    }


def _pairing_as_json(found: SideBySide, one: Pairing) -> dict[str, Any]:
    return {
        "with": one.of.name,
        "over_seeds": None if one.over_seeds is None else _as_json(one.over_seeds),
        "split": one.split,
        "samples": one.samples,
        "left_out": one.left_out,
        "outputs": {
            judged.metric: {"a": judged.first, "b": judged.second, **_as_json(judged.difference)}
            for judged in one.judged
        },
        "note": one.note,
        "verdict": verdict(found, one),
    }


def _as_json(one: Difference) -> dict[str, Any]:
    told = {"difference": one.value, "low": one.interval.low, "high": one.interval.high, "p": one.p}
    return {name: None if math.isnan(value) else value for name, value in told.items()}
