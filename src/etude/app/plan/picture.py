"""A plan as a picture: SVG, one panel a value, with the steps of validations and saves below."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from xml.sax.saxutils import escape

from etude.app.plan.plan import SAVE, VALIDATE, Plan
from etude.app.plan.text import base, ends_of_epochs, facts, finite, short, span
from etude.app.plan.turns import thinned

WIDTH, LEFT, RIGHT = 960, 96, 24
PANEL, GAP, TOP, STRIP = 120, 44, 76, 18
MARKS = 400
"""Ticks of a strip, at most."""
EPOCHS, NUMBERED = 24, 12
"""Lines of epochs, and of their numbers, at most."""
INK, GRID, LINE = "#222222", "#dddddd", "#1f5fa8"
COLOURS = {VALIDATE: "#2e7d32", SAVE: "#b45309"}


def svg(plan: Plan) -> str:
    """The picture, as the text of an SVG file; equal plans give equal text."""
    names = plan.names
    height = TOP + len(names) * (PANEL + GAP) + len(COLOURS) * STRIP + 56
    title, ending = _headline(plan)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" fill="{INK}">',
        "<style>text { font-family: sans-serif }</style>",
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(LEFT, 26, title, size=15),
        _text(LEFT, 46, ending),
    ]
    bottom = TOP + len(names) * (PANEL + GAP)
    parts += _epochs(plan, bottom)
    for number, name in enumerate(names):
        parts += _panel(plan, name, TOP + number * (PANEL + GAP))
    for number, (name, colour) in enumerate(COLOURS.items()):
        parts += _strip(plan, name, colour, bottom + number * STRIP)
    below = bottom + len(COLOURS) * STRIP + 16
    parts += [_text(LEFT, below, "step 1"), _text(WIDTH - RIGHT, below, f"step {plan.steps:,}", anchor="end")]
    parts += _numbered(plan, below + 16)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _headline(plan: Plan) -> tuple[str, str]:
    """What the run is, and what ends it."""
    lines = facts(plan)
    return next(lines), " ".join(next(lines).split())


def _x(plan: Plan, step: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (step - 1) / max(1, plan.steps - 1)


def _epochs(plan: Plan, bottom: float) -> Iterator[str]:
    """A line at the end of each epoch, or of some."""
    for _, step in thinned(ends_of_epochs(plan), EPOCHS):
        x = _x(plan, step)
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}" stroke="{GRID}"/>'


def _numbered(plan: Plan, y: float) -> Iterator[str]:
    """The number of each epoch, or of some, below its end."""
    ends = ends_of_epochs(plan)
    for epoch, step in thinned(thinned(ends, EPOCHS), NUMBERED):
        yield _text(_x(plan, step), y, f"epoch {epoch:,}", anchor="middle")


def _panel(plan: Plan, name: str, top: float) -> Iterator[str]:
    """One value over the steps."""
    points = finite(plan, name)
    follows = " (follows validations; shown without a reduction)" if name in plan.following else ""
    yield _text(LEFT, top - 6, short(name) + follows)
    yield (f'<rect x="{LEFT}" y="{top}" width="{WIDTH - LEFT - RIGHT}" height="{PANEL}" fill="none" stroke="{GRID}"/>')
    if points:
        yield from _curve(plan, points, top)


def _curve(plan: Plan, points: Sequence[tuple[int, float]], top: float) -> Iterator[str]:
    """The line through the values, and what its upper and lower edge stand for."""
    low, high = span(points)
    foot = base(low, high)
    place = [(_x(plan, step), top + PANEL * (1 - _share(value, foot, high))) for step, value in stairs(points)]
    if len(place) == 1:
        place.append((WIDTH - RIGHT, place[0][1]))
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in place)
    yield f'<polyline fill="none" stroke="{LINE}" stroke-width="1.5" points="{path}"/>'
    edges = {top + PANEL / 2 + 4: high} if foot == high else {top + 10: high, top + PANEL: foot}
    for y, value in edges.items():
        yield _text(LEFT - 6, y, f"{value:.4g}", anchor="end")


def stairs(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """The corners of a line on which each value holds until the next takes its place.

    >>> stairs([(1, 0.5), (2, 0.5), (3, 0.9)])
    [(1, 0.5), (3, 0.5), (3, 0.9)]
    """
    corners = [points[0]]
    for (_, before), (step, value) in pairwise(points):
        if value != before:
            corners += [(step, before), (step, value)]
    return corners if corners[-1] == points[-1] else [*corners, points[-1]]


def _share(value: float, low: float, high: float) -> float:
    """How far a value is up from the lowest; a constant stands in the middle."""
    return (value - low) / (high - low) if high - low else 0.5


def _strip(plan: Plan, name: str, colour: str, top: float) -> Iterator[str]:
    """A tick at each moment, or at some."""
    steps: Sequence[int] = plan.moments[name]
    yield _text(LEFT - 6, top + 11, name, anchor="end")
    for step in thinned(steps, MARKS):
        x = _x(plan, step)
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{top + 12}" stroke="{colour}" stroke-width="2"/>'


def _text(x: float, y: float, told: str, *, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(told)}</text>'
