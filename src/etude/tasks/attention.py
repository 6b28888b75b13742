"""What the tokens of a prediction look at in its source, and a picture of it: SVG, a heat map for each layer.

Legend: L layers, H heads, T target tokens, S source tokens.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final
from xml.sax.saxutils import escape

from torch import Tensor

from etude.data.files.lines import shown

CELL, MARGIN, GAP, HEAD, CAPTION = 18, 16, 28, 48, 22
SIGN = 7.5
"""Width of a sign, by estimate: what a font really takes is not known here."""
LONGEST = 24
"""Signs of a token that are shown."""
LEAST = 0.005
"""A weight below it is left white."""
TITLE_WIDTH = 480
INK, GRID, HEAT = "#222222", "#dddddd", "#1f5fa8"
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""What a space is shown as, as SentencePiece does."""


@final
@dataclass(frozen=True, eq=False)
class Attention:
    """The attention of one prediction to its source."""

    source: tuple[str, ...]
    """The S tokens of the source, `<eos>` included."""
    target: tuple[str, ...]
    """The T tokens of the prediction, `<eos>` included."""
    weights: Tensor
    """[L, H, T, S] in float32, on the processor: how much of each source token is taken where a target token is
    predicted. Each row sums to 1.
    """

    def svg(self) -> str:
        """A heat map for each layer, the mean of its heads: source tokens across, target tokens down.

        It is the text of an SVG file; equal attentions give equal text.
        """
        return "\n".join(_lines(self)) + "\n"


def _lines(attention: Attention) -> Iterator[str]:
    """The lines of the picture."""
    across, down = list(map(label, attention.source)), list(map(label, attention.target))
    left, above = MARGIN + _longest(down) + 6, CAPTION + _longest(across) + 6
    step = above + len(down) * CELL + GAP
    layers, heads = attention.weights.shape[:2]
    width, height = max(left + len(across) * CELL + MARGIN, TITLE_WIDTH), HEAD + layers * step
    title = f"Attention to the source, mean of {heads} head{'s' * (heads > 1)}"
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" fill="{INK}">'
    yield "<style>text { font-family: sans-serif }</style>"
    yield f"<title>{title}</title>"
    yield f'<rect width="{width:g}" height="{height:g}" fill="#ffffff"/>'
    yield _text(MARGIN, 26, title, size=15)
    yield _text(MARGIN, 44, "source tokens across, target tokens down; darker is more, and each row sums to 1")
    for number, weights in enumerate(attention.weights.mean(1).tolist()):
        top = HEAD + number * step
        yield _text(MARGIN, top + CAPTION, f"layer {number + 1}")
        yield from _panel(weights, across, down, (left, top + above))
    yield "</svg>"


def _panel(
    weights: Sequence[Sequence[float]], across: Sequence[str], down: Sequence[str], corner: tuple[float, float]
) -> Iterator[str]:
    """The heat map of a layer, whose upper left corner is there, with its tokens."""
    left, top = corner
    for place, told in enumerate(across):
        x = left + place * CELL + CELL / 2 + 4
        yield f'<text transform="translate({x:g} {top - 6:g}) rotate(-90)" font-size="12">{escape(told)}</text>'
    for place, told in enumerate(down):
        yield _text(left - 6, top + place * CELL + CELL / 2 + 4, told, anchor="end")
    for row, values in enumerate(weights):
        yield from _row(values, left, top + row * CELL)
    size = f'width="{len(across) * CELL}" height="{len(down) * CELL}"'
    yield f'<rect x="{left:g}" y="{top:g}" {size} fill="none" stroke="{GRID}"/>'


def _row(values: Sequence[float], left: float, y: float) -> Iterator[str]:
    """The cells of a target token."""
    for column, value in enumerate(values):
        if value >= LEAST:
            place = f'x="{left + column * CELL:g}" y="{y:g}" width="{CELL}" height="{CELL}"'
            yield f'<rect {place} fill="{HEAT}" fill-opacity="{value:.2f}"/>'


def label(token: str) -> str:
    r"""A token as it is shown: spaces to be seen, control characters escaped, a long one cut.

    >>> label(" two\n")
    '▁two\\n'
    """
    told = shown(token.replace(" ", SPACE), limit=10 * LONGEST)
    return told if len(told) <= LONGEST else f"{told[: LONGEST - 1]}…"


def _longest(labels: Sequence[str]) -> float:
    """The width of the widest."""
    return SIGN * max(sum(map(_signs, told)) for told in labels)


def _signs(sign: str) -> int:
    """How many times as wide as most a sign is."""
    return 2 if unicodedata.east_asian_width(sign) in "WF" else 1


def _text(x: float, y: float, told: str, *, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}">{escape(told)}</text>'
