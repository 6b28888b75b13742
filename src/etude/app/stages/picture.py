"""The graph of a pipeline as a picture: SVG, a box a stage, its colour how it stands."""

from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from etude.app.stages.done import DAMAGED, FINISHED, INTERRUPTED, RUNNING, STALE, Standing
from etude.app.stages.node import Node

BOX, HIGH, ACROSS, DOWN, EDGE = 176, 52, 56, 24, 24
"""Width and height of a box, what is between boxes, and around all."""
INK, LINE = "#222222", "#888888"
COLOURS = {
    FINISHED: "#d7ecd9",
    STALE: "#fbe8c8",
    DAMAGED: "#f6cfcf",
    INTERRUPTED: "#fbe8c8",
    RUNNING: "#d3e3f5",
}
OTHER = "#eeeeee"
Place = tuple[float, float]


def svg(title: str, stands: Sequence[tuple[Node, Standing]]) -> str:
    """The picture, as the text of an SVG file; equal graphs give equal text."""
    places = dict(_placed([node for node, _ in stands]))
    width = 2 * EDGE + max(x for x, _ in places.values()) + BOX
    height = 3 * EDGE + max(y for _, y in places.values()) + HIGH
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" fill="{INK}">',
        "<style>text { font-family: sans-serif }</style>",
        f"<title>{escape(title)}</title>",
        f'<rect width="{width:g}" height="{height:g}" fill="#ffffff"/>',
        _text(EDGE, EDGE, title, size=15),
    ]
    for node, _ in stands:
        parts += [_line(places[name], places[node.name]) for name in node.stage.inputs()]
    for node, found in stands:
        parts += _box(places[node.name], node, found)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _placed(nodes: Sequence[Node]) -> Iterator[tuple[str, Place]]:
    """Where each box lies: as far to the right as there are stages before it."""
    columns: dict[str, int] = {}
    filled: dict[int, int] = {}
    for node in nodes:
        column = 1 + max((columns[name] for name in node.stage.inputs()), default=-1)
        columns[node.name], row = column, filled.get(column, 0)
        filled[column] = row + 1
        yield node.name, (EDGE + column * (BOX + ACROSS), 2 * EDGE + row * (HIGH + DOWN))


def _box(place: Place, node: Node, found: Standing) -> Iterator[str]:
    x, y = place
    colour = COLOURS.get(found.state, OTHER)
    yield f'<rect x="{x:g}" y="{y:g}" width="{BOX}" height="{HIGH}" rx="6" fill="{colour}" stroke="{LINE}"/>'
    yield _text(x + 10, y + 21, node.name, size=14)
    yield _text(x + 10, y + 40, f"{node.do}: {found.state}")


def _line(one: Place, other: Place) -> str:
    """From the right side of a box to the left side of another."""
    (x, y), (to_x, to_y) = one, other
    ends = f'x1="{x + BOX:g}" y1="{y + HIGH / 2:g}" x2="{to_x:g}" y2="{to_y + HIGH / 2:g}"'
    return f'<line {ends} stroke="{LINE}" stroke-width="1.5"/>'


def _text(x: float, y: float, told: str, *, size: int = 12) -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}">{escape(told)}</text>'
