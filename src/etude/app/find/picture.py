"""A range test as a picture: SVG, the loss over the logarithm of the learning rate."""

import math
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from etude.app.find.rates import RangeTest

WIDTH, HEIGHT = 800, 460
LEFT, RIGHT, TOP, BOTTOM = 80, 24, 64, 48
INK, GRID, PLAIN, SMOOTH = "#222222", "#dddddd", "#b8cbe0", "#1f5fa8"
MARKS = {"suggested peak": "#2e7d32", "steepest fall": "#b45309", "lowest loss": "#7b1fa2"}
HIGHEST = 1.5
"""What is drawn goes no higher than the first loss and this share of what the curve falls by."""


def svg(test: RangeTest, title: str) -> str:
    """The picture, as the text of an SVG file; equal tests give equal text."""
    frame = _Frame(test)
    rates = dict(zip(MARKS, (test.suggested, test.steepest, test.lowest), strict=True))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" fill="{INK}">',
        "<style>text { font-family: sans-serif; font-size: 12px }</style>",
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(LEFT, 22, title),
        *frame.axes(),
        frame.line(test.losses, PLAIN, 1),
        frame.line(test.smoothed, SMOOTH, 2),
    ]
    for number, (name, rate) in enumerate(rates.items()):
        parts += frame.mark(rate, MARKS[name])
        parts.append(_text(LEFT + number * 220, 42, f"{name} {rate:.3g}", colour=MARKS[name]))
    return "\n".join([*parts, "</svg>"]) + "\n"


class _Frame:
    """Where rates and losses lie on the page."""

    def __init__(self, test: RangeTest) -> None:
        self._rates = test.rates
        self._low, self._high = math.log10(test.rates[0]), math.log10(max(test.rates[-1], test.suggested))
        self._foot = min(test.smoothed)
        first = test.smoothed[0]
        self._top = max(first + (HIGHEST - 1) * (first - self._foot), self._foot + 1e-12)

    def x(self, rate: float) -> float:
        """The place of a rate."""
        share = (math.log10(rate) - self._low) / max(self._high - self._low, 1e-12)
        return LEFT + (WIDTH - LEFT - RIGHT) * min(1.0, max(0.0, share))

    def y(self, loss: float) -> float:
        """The place of a loss, at the edge where it lies outside."""
        share = (loss - self._foot) / (self._top - self._foot)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(1.0, max(0.0, share))

    def line(self, losses: Sequence[float], colour: str, width: int) -> str:
        """A curve."""
        pairs = zip(self._rates, losses, strict=True)
        points = " ".join(f"{self.x(rate):.1f},{self.y(loss):.1f}" for rate, loss in pairs)
        return f'<polyline fill="none" stroke="{colour}" stroke-width="{width}" points="{points}"/>'

    def mark(self, rate: float, colour: str) -> Iterator[str]:
        """An upright line at a rate."""
        x = self.x(rate)
        yield (
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="{colour}" '
            'stroke-dasharray="4 3"/>'
        )

    def axes(self) -> Iterator[str]:
        """Powers of ten below, losses at the left."""
        foot = HEIGHT - BOTTOM
        for power in range(math.ceil(self._low), math.floor(self._high) + 1):
            x = self.x(10.0**power)
            yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{foot}" stroke="{GRID}"/>'
            yield _text(x, foot + 18, f"1e{power}", anchor="middle")
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            loss = self._foot + share * (self._top - self._foot)
            y = self.y(loss)
            yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>'
            yield _text(LEFT - 6, y + 4, f"{loss:.4g}", anchor="end")
        yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, "learning rate", anchor="middle")


def _text(x: float, y: float, told: str, *, anchor: str = "start", colour: str = INK) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(told)}</text>'
