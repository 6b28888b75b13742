"""A plan as text: what the run is, a table of the steps that matter, and a chart of each value."""

import math
from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import pairwise

from etude.app.layout import columns
from etude.app.plan.plan import PREFIX, SAVE, VALIDATE, Plan, Row
from etude.app.plan.turns import thinned

LINES, BETWEEN = 24, 12
"""Rows of the table, at most; and how many there are, at most, once some stand between those that matter."""
HEIGHT = 6
"""Lines of a chart."""
MARGIN = 12
"""Columns left of a chart."""
LISTED = 6
"""Steps that are listed one by one."""
BLOCKS, SHARP = " ▁▂▃▄▅▆▇█", " .:#"
"""The lower part of a cell that is filled, in eighths; in ASCII, in thirds."""
WHOLE = 1e15
CLEAR = 1e-6


def text(plan: Plan, *, width: int = 80, plain: bool = False) -> Iterator[str]:
    """The lines of a plan, charts at most `width` columns wide; `plain` uses ASCII alone."""
    yield from facts(plan)
    yield ""
    yield from table(plan)
    for name in plan.names:
        yield ""
        yield from chart(plan, name, width=width, plain=plain)


def facts(plan: Plan) -> Iterator[str]:
    """How long the run is, what ends it, and when it validates, saves and logs."""
    yield f"{plan.run}: {_length(plan)}"
    yield f"ends      {plan.reason or f'after step {plan.steps:,}, where this plan stops'}"
    if plan.horizon.steps not in {None, plan.steps}:
        yield f"horizon   {plan.horizon.steps:,.0f} steps: the length that schedules to the end of the run use"
    yield from (f"{name:<8}  {_listed(steps)}" for name, steps in plan.moments.items())
    follows = [f"{short(name)} follows validations: shown without a reduction." for name in plan.following]
    yield from (f"note      {note}" for note in (*follows, *plan.notes))


def _length(plan: Plan) -> str:
    """How long the run is, what is estimated of it marked."""
    lengths = {
        "steps": f"{plan.steps:,} {_many(plan.steps, 'step')}",
        "epochs": f"{_number(round(plan.epochs, 4))} {_many(plan.epochs, 'epoch')}",
        "tokens": f"{plan.tokens:,} tokens",
    }
    return ", ".join(f"about {told}" if name in plan.estimated else told for name, told in lengths.items())


def table(plan: Plan) -> Iterator[str]:
    """The steps that matter, with the values that they are taken with."""
    heads = ["step", "epoch", *map(short, plan.names), ""]
    rows = [_cells(row, plan.names) for row in chosen(plan)]
    yield from columns([heads, *rows], right=range(len(heads) - 1))


def _cells(row: Row, names: Sequence[str]) -> list[str]:
    """The texts of a step's row."""
    return [f"{row.step:,}", f"{row.epoch:.2f}", *(_number(row.values[name]) for name in names), _events(row)]


def chosen(plan: Plan) -> list[Row]:
    """The rows to show: begin and end, every turn, then epochs, validations and saves, and some between."""
    rows = {row.step: row for row in plan.rows}
    validations, saves = (_among(rows, plan.moments[name]) for name in (VALIDATE, SAVE))
    steps = {1, plan.steps}
    for wanted in (plan.turns, validations, saves, _ends_of_epochs(plan.rows)):
        _add(steps, wanted, LINES)
    _add(steps, rows, BETWEEN)
    return [rows[step] for step in sorted(steps)]


def _ends_of_epochs(rows: Iterable[Row]) -> list[int]:
    """The first steps known to be past another whole epoch."""
    return [after.step for row, after in pairwise(rows) if int(after.epoch) > int(row.epoch)]


def _among(rows: Container[int], steps: Iterable[int]) -> list[int]:
    return [step for step in steps if step in rows]


def _add(steps: set[int], wanted: Iterable[int], most: int) -> None:
    """Add those that are wanted, or some of them, until there are `most`."""
    new = [step for step in wanted if step not in steps]
    steps.update(thinned(new, max(0, most - len(steps))))


def chart(plan: Plan, name: str, *, width: int, plain: bool) -> Iterator[str]:
    """One value over the run, higher where it is more; a constant in one line."""
    points = finite(plan, name)
    low, high = span(points)
    if not points:
        yield f"{short(name)}: never a finite number"
    elif low == high:
        yield f"{short(name)}: {_number(high)} throughout"
    else:
        yield short(name)
        values = sampled(points, plan.steps, max(10, width - MARGIN))
        yield from _drawn(values, base(low, high), high, plain=plain)
        end = f"step {plan.steps:,}"
        yield " " * MARGIN + f"{'1':<{max(2, len(values) - len(end))}}{end}"
        yield from _epochs(plan, len(values))


def _epochs(plan: Plan, width: int) -> Iterator[str]:
    """Under a chart of `width` columns: each epoch's number below its end, as many as have room."""
    line = ""
    for epoch, step in ends_of_epochs(plan):
        told = f"{epoch:,}"
        begin = max(0, round(step / plan.steps * width) - len(told))
        if not line or begin > len(line) + 1:
            line = f"{line:<{begin}}{told}"
    if line:
        yield f"{'epoch':>{MARGIN - 2}}  {line}"


def ends_of_epochs(plan: Plan) -> list[tuple[int, int]]:
    """The epochs whose last step has a row, each with that step."""
    return [(round(row.epoch), row.step) for row in plan.rows if _ends_an_epoch(row.epoch)]


def _ends_an_epoch(epoch: float) -> bool:
    return round(epoch) >= 1 and abs(epoch - round(epoch)) < CLEAR


def finite(plan: Plan, name: str) -> list[tuple[int, float]]:
    """The steps at which a value is finite, each with the value."""
    return [(row.step, row.values[name]) for row in plan.rows if math.isfinite(row.values[name])]


def span(points: Iterable[tuple[int, float]]) -> tuple[float, float]:
    """The lowest and the highest value; 0 where there is none."""
    values = [value for _, value in points] or [0.0]
    return min(values), max(values)


def base(low: float, high: float) -> float:
    """What the lower edge of a picture stands for: 0, where the values are all positive and some far above others."""
    return 0.0 if 0 < low < high / 2 else low


def _drawn(values: Sequence[float], low: float, high: float, *, plain: bool) -> Iterator[str]:
    """The lines of a chart, a column for each value; its edges are labelled."""
    levels, edge = (SHARP, "|") if plain else (BLOCKS, "│")
    labels = {HEIGHT - 1: _number(high), 0: _number(low)}
    for line in reversed(range(HEIGHT)):
        cells = (_cell((value - low) / (high - low) * HEIGHT - line, levels) for value in values)
        yield f"{labels.get(line, ''):>{MARGIN - 2}} {edge}{''.join(cells)}".rstrip()


def sampled(values: Sequence[tuple[int, float]], steps: int, columns: int) -> list[float]:
    """The value in the middle of each column: that of the last step known before it."""
    found, index = [], 0
    for column in range(columns):
        step = 1 + steps * (2 * column + 1) / (2 * columns)
        while index + 1 < len(values) and values[index + 1][0] <= step:
            index += 1
        found.append(values[index][1])
    return found


def short(name: str) -> str:
    """A value's name without what all have in front."""
    return name.removeprefix(PREFIX)


def _cell(height: float, levels: str) -> str:
    """A cell filled up to a height; one that holds a value of the lowest line is never empty."""
    return levels[max(0, min(len(levels) - 1, math.ceil(height * (len(levels) - 1))))]


def _number(value: float) -> str:
    """Four digits that tell; whole numbers whole."""
    if math.isfinite(value) and float(value).is_integer() and abs(value) < WHOLE:
        return f"{int(value):,}"
    return f"{value:.4g}"


def _many(count: float, word: str) -> str:
    return word if count == 1 else f"{word}s"


def _listed(steps: Sequence[int]) -> str:
    """How often, and after which steps."""
    if not steps:
        return "never"
    times = "once" if len(steps) == 1 else f"{len(steps):,} times"
    return f"{times}, after {_many(len(steps), 'step')} {_some(steps)}"


def _some(steps: Sequence[int]) -> str:
    """The steps, or of many the first three and the last."""
    if len(steps) <= LISTED:
        return ", ".join(f"{step:,}" for step in steps)
    return f"{_some(steps[:3])}, ..., {steps[-1]:,}"


def _events(row: Row) -> str:
    return ", ".join(event for event in row.events if event in {VALIDATE, SAVE})
