"""A picture of where labels lie: a spectrogram with their spans below, as one SVG file.

The spectrogram is a PNG inside it, of one pixel a frame and a bin, which the viewer enlarges. Equal input gives equal
text.

Legend: T frames, F bins, R rows of pixels, C columns of pixels.
"""

import base64
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, final
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

WIDTH, LEFT, RIGHT = 960, 24, 24
TOP, SPECTROGRAM, STRIP, BOTTOM = 40, 240, 34, 34
WIDEST = 4096
"""Columns of pixels, at most: of a longer recording, neighbouring frames are averaged."""
TICKS = 12
"""Marks of time, at most, beside the first."""
INK, GRID, LINE = "#222222", "#dddddd", "#1f5fa8"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREYSCALE_8 = (8, 0, 0, 0, 0)
"""Bits of a pixel, colour type, compression, filter and interlace of a PNG (W3C, section 11.2.2)."""
LOUDEST, SOFTEST = 99.5, 1.0
"""Percentiles of the features that are drawn black and white."""


@final
class Mark(NamedTuple):
    """A label, and when it lies."""

    text: str
    start: float
    """In seconds."""
    end: float
    """In seconds."""


def spectrogram(features_TF: NDArray[Any], frame_seconds: float, marks: Sequence[Mark], *, title: str = "") -> str:
    """The features of a recording over time, low bins below, and labels under them, as the text of an SVG file.

    Values are drawn from white to black between two percentiles of them; what is not finite is white. Marks lie where
    their seconds are, cut off at both ends of the recording. Raises ValueError for features that are no matrix, and
    for frames that last no time.
    """
    if features_TF.ndim != 2:  # noqa: PLR2004 - frames and bins
        raise ValueError(f"A spectrogram has frames and bins, but these features have shape {features_TF.shape}.")
    if not frame_seconds > 0:
        raise ValueError(f"Frames must last a positive time, but {frame_seconds} is given.")
    scale = _Scale(len(features_TF) * frame_seconds)
    height = TOP + SPECTROGRAM + STRIP + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" fill="{INK}">',
        "<style>text { font-family: sans-serif }</style>",
        f"<title>{_safe(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(LEFT, TOP - 14, title, size=15),
        *_image(features_TF),
        *_ticks(scale),
        *(part for mark in marks for part in _marked(mark, scale)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


class _Scale(NamedTuple):
    """How long a recording is, which is as wide as the picture."""

    seconds: float

    def x(self, second: float) -> float:
        """Where a second is; the nearer end where it is outside."""
        share = min(max(second, 0.0), self.seconds) / (self.seconds or 1.0)
        return LEFT + (WIDTH - LEFT - RIGHT) * share


def _image(features_TF: NDArray[Any]) -> Iterator[str]:
    place = f'x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{SPECTROGRAM}"'
    yield f'<rect {place} fill="none" stroke="{GRID}"/>'
    if features_TF.size:
        pixels = base64.b64encode(png(_shades(features_TF))).decode("ascii")
        shown = 'preserveAspectRatio="none" style="image-rendering: pixelated"'
        yield f'<image {place} {shown} href="data:image/png;base64,{pixels}"/>'


def _ticks(scale: _Scale) -> Iterator[str]:
    """The time in seconds, below."""
    foot = TOP + SPECTROGRAM + STRIP
    step = _round_step(scale.seconds / TICKS)
    for number in range(int(scale.seconds / step + 1e-9) + 1):
        x = scale.x(number * step)
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{foot}" y2="{foot + 6}" stroke="{INK}"/>'
        yield _text(x, foot + 20, f"{number * step:.6g} s", anchor="middle", size=10)


def _round_step(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is not below `least`; 1 where that is nothing.

    >>> _round_step(0.13), _round_step(3.0), _round_step(0.0)
    (0.2, 5.0, 1.0)
    """
    if least <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(least))
    return float(next(times * power for times in (1, 2, 5, 10) if times * power >= least * (1 - 1e-9)))


def _marked(mark: Mark, scale: _Scale) -> Iterator[str]:
    """A label between two lines; the whole of it is shown when one points at it."""
    left, right = scale.x(mark.start), scale.x(max(mark.start, mark.end))
    foot = TOP + SPECTROGRAM + STRIP
    told = f"{mark.text} ({mark.start:.3f} to {mark.end:.3f} s)"
    yield f"<g><title>{_safe(told)}</title>"
    yield (
        f'<rect x="{left:.1f}" y="{TOP}" width="{right - left:.1f}" height="{SPECTROGRAM + STRIP}" '
        f'fill="{LINE}" fill-opacity="0.12" stroke="{LINE}" stroke-width="0.5"/>'
    )
    yield _text((left + right) / 2, foot - 12, mark.text, anchor="middle")
    yield "</g>"


def _text(x: float, y: float, told: str, *, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{_safe(told)}</text>'


def _safe(text: str) -> str:
    """Text that XML can hold: control characters and others that it has no way to write are replaced."""
    return escape("".join(one if _is_xml(one) else "\N{REPLACEMENT CHARACTER}" for one in text))


def _is_xml(character: str) -> bool:
    """Whether a character may stand in XML 1.0 (W3C, section 2.2, `Char`)."""
    code = ord(character)
    return code in {0x9, 0xA, 0xD} or 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or code >= 0x1_0000  # noqa: PLR2004


# -- pixels --------------------------------------------------------------------------------------------------------


def _shades(features_TF: NDArray[Any]) -> NDArray[np.uint8]:
    """Pixels [F, T]: the loud dark, the lowest bin in the last row."""
    values_TF = np.asarray(features_TF, dtype=np.float64)
    values_TF = _narrowed(np.where(np.isfinite(values_TF), values_TF, np.nan))
    known = np.isfinite(values_TF)
    low, high = np.percentile(values_TF[known], [SOFTEST, LOUDEST]) if known.any() else (0.0, 0.0)
    share_TF = np.where(known, (values_TF - low) / ((high - low) or 1.0), 0.0).clip(0.0, 1.0)
    shades: NDArray[np.uint8] = np.rint(255 * (1.0 - share_TF)).astype(np.uint8)
    return shades.T[::-1]


def _narrowed(values_TF: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same with at most `WIDEST` frames: means of neighbours, the last of those that are left."""
    each = -(-len(values_TF) // WIDEST)
    starts = np.arange(0, len(values_TF), each)
    counts = np.diff(starts, append=len(values_TF))
    means: NDArray[np.float64] = np.add.reduceat(values_TF, starts, axis=0) / counts[:, None]
    return means


def png(shades_RC: NDArray[np.uint8]) -> bytes:
    """Grey pixels, 0 black and 255 white, as a PNG file (W3C, "Portable Network Graphics", third edition)."""
    rows, columns = shades_RC.shape
    filtered = np.pad(shades_RC, ((0, 0), (1, 0)))  # each row begins with its filter, of which 0 is none
    header = struct.pack(">IIBBBBB", columns, rows, *GREYSCALE_8)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(filtered.tobytes(), 9)), (b"IEND", b"")
    return PNG_SIGNATURE + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    """Length, type, content and checksum of both."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
