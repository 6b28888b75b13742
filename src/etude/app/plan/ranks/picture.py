"""A plan for many ranks as a picture: SVG, a bar of memory for each number of ranks and strategy."""

from collections.abc import Iterator
from xml.sax.saxutils import escape

from etude.app.plan.ranks.ranks import Memory, Rank, Ranks
from etude.app.plan.ranks.text import facts, seconds, size

WIDTH, LEFT, RIGHT, TOP = 960, 130, 250, 96
BAR, GAP = 22, 12
INK = "#222222"
COLOURS = {
    "parameters": "#1f5fa8",
    "gradients": "#7aa6d6",
    "optimizer": "#b45309",
    "average": "#e0b070",
    "activations": "#2e7d32",
    "gathered": "#8a5a9e",
}


def svg(plan: Ranks) -> str:
    """The picture, as the text of an SVG file; equal plans give equal text."""
    lines = facts(plan)
    title, batch = next(lines), next(lines)
    height = TOP + len(plan.ranks) * (BAR + GAP) + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" fill="{INK}">',
        "<style>text { font-family: sans-serif }</style>",
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(16, 26, title, size=15),
        _text(16, 46, " ".join(batch.split())),
        *_legend(),
    ]
    most = max(rank.memory.total for rank in plan.ranks)
    for number, rank in enumerate(plan.ranks):
        parts += _bar(rank, TOP + number * (BAR + GAP), most)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _legend() -> Iterator[str]:
    """What each colour stands for."""
    x = 16.0
    for name, colour in COLOURS.items():
        yield _box(x, 62, 12, 12, colour)
        yield _text(x + 16, 72, name)
        x += 16 + 8 * len(name) + 20


def _bar(rank: Rank, top: float, most: int) -> Iterator[str]:
    """The memory of a rank, part by part, and its sum, with how long a step takes."""
    name = "1 rank" if rank.world == 1 else f"{rank.world:,} ranks, {rank.strategy}"
    yield _text(LEFT - 6, top + BAR - 7, name, anchor="end")
    x = float(LEFT)
    for part, count in zip(Memory._fields, rank.memory, strict=True):
        width = (WIDTH - LEFT - RIGHT) * count / most
        if width:
            yield _box(x, top, width, BAR, COLOURS[part])
        x += width
    told = size(rank.memory.total)
    if rank.time.most is not None:
        told += f", a step {seconds(rank.time.least)} to {seconds(rank.time.most)}"
    yield _text(x + 6, top + BAR - 7, told)


def _box(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'


def _text(x: float, y: float, told: str, *, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(told)}</text>'
