"""A plan as text: what the run is, a table of the steps that matter, and a chart of each value."""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

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
    about = {name: "about " if name in plan.estimated else "" for name in ("steps", "epochs", "tokens")}
    yield (
        f"{plan.run}: {about['steps']}{plan.steps:,} {_many(plan.steps, 'step')}, "
        f"{about['epochs']}{_number(round(plan.epochs, 4))} {_many(plan.epochs, 'epoch')}, "
        f"{about['tokens']}{plan.tokens:,} tokens"
    )
    yield f"ends      {plan.reason or f'not with step {plan.steps:,}, where this plan stops'}"
    horizon = plan.horizon
    if horizon.steps is not None and horizon.steps != plan.steps:
        yield f"horizon   {horizon.steps:,.0f} steps: what schedules that reach to the end of the run are drawn to"
    for name, steps in plan.moments.items():
        yield f"{name:<8}  {_listed(steps)}"
    for name in plan.following:
        yield f"note      {short(name)} follows validations: shown without any fall."
    yield from (f"note      {note}" for note in plan.notes)


def table(plan: Plan) -> Iterator[str]:
    """The steps that matter, with the values that they are taken with."""
    names = plan.names
    heads = ["step", "epoch", *map(short, names), ""]
    rows = [
        [f"{row.step:,}", f"{row.epoch:.2f}", *(_number(row.values[name]) for name in names), _events(row)]
        for row in chosen(plan)
    ]
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads) - 1)]
    for row in [heads, *rows]:
        cells = [f"{cell:>{size}}" for cell, size in zip(row, widths, strict=False)]
        yield "  ".join([*cells, row[-1]]).rstrip()


def chosen(plan: Plan) -> list[Row]:
    """The rows to show: begin and end, every turn, then epochs, validations and saves, and some between."""
    rows = {row.step: row for row in plan.rows}
    epochs = [after.step for row, after in pairwise(plan.rows) if int(after.epoch) > int(row.epoch)]
    steps = {1, plan.steps}
    for wanted in (
        plan.turns,
        [step for step in plan.moments[VALIDATE] if step in rows],
        [step for step in plan.moments[SAVE] if step in rows],
        epochs,
    ):
        steps.update(thinned([step for step in wanted if step not in steps], max(0, LINES - len(steps))))
    between = [step for step in rows if step not in steps]
    steps.update(thinned(between, max(0, BETWEEN - len(steps))))
    return [rows[step] for step in sorted(steps)]


def chart(plan: Plan, name: str, *, width: int, plain: bool) -> Iterator[str]:
    """One value over the run, higher where it is more; a constant in one line."""
    values = [(row.step, row.values[name]) for row in plan.rows if math.isfinite(row.values[name])]
    low, high = min((v for _, v in values), default=0.0), max((v for _, v in values), default=0.0)
    if low == high:
        yield f"{short(name)}: {_number(high)} throughout" if values else f"{short(name)}: never a finite number"
        return
    yield short(name)
    low = min(low, 0.0) if low > 0 and low < high / 2 else low
    columns = sampled(values, plan.steps, max(10, min(width, plan.steps + MARGIN) - MARGIN))
    levels = SHARP if plain else BLOCKS
    for line in reversed(range(HEIGHT)):
        cells = (_cell((value - low) / (high - low) * HEIGHT - line, levels) for value in columns)
        label = _number(high) if line == HEIGHT - 1 else _number(low) if line == 0 else ""
        yield f"{label:>{MARGIN - 2}} {'|' if plain else '│'}{''.join(cells)}".rstrip()
    end = f"step {plan.steps:,}"
    yield " " * MARGIN + f"{'1':<{max(2, len(columns) - len(end))}}{end}"


def sampled(values: Sequence[tuple[int, float]], steps: int, columns: int) -> list[float]:
    """The value in the middle of each column: that of the last step known before it."""
    found, index = [], 0
    for column in range(columns):
        step = 1 + (steps - 1) * (2 * column + 1) / (2 * columns)
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
    shown: Iterable[str] = (f"{step:,}" for step in steps)
    if len(steps) > LISTED:
        shown = (*(f"{step:,}" for step in steps[:3]), "...", f"{steps[-1]:,}")
    times = "once" if len(steps) == 1 else f"{len(steps):,} times"
    return f"{times}, after {_many(len(steps), 'step')} {', '.join(shown)}"


def _events(row: Row) -> str:
    return ", ".join(event for event in row.events if event in {VALIDATE, SAVE})
