"""A transfer as rows, and as lines of text."""

import re
from collections.abc import Sequence
from typing import NamedTuple

NUMBER = re.compile(r"\d+")


class Line(NamedTuple):
    """What became of one parameter."""

    kind: str
    name: str
    source: str | None
    old_shape: tuple[int, ...] | None
    new_shape: tuple[int, ...] | None
    size: int
    kept: int


def plain(line: Line) -> dict[str, object]:
    """A row that JSON can hold."""
    row = line._asdict()
    for key in ("old_shape", "new_shape"):
        row[key] = None if row[key] is None else list(row[key])
    return row


def lines(found: Sequence[Line]) -> list[str]:
    """Lines of text; parameters of which nothing but a number in the name differs are one."""
    groups: dict[tuple[object, ...], list[Line]] = {}
    for line in found:
        key = (line.kind, _pattern(line.name), _pattern(line.source or ""), line.old_shape, line.new_shape)
        groups.setdefault(key, []).append(line)
    ordered = sorted(groups.values(), key=lambda group: ORDER.index(group[0].kind))
    return list(map(_text, ordered))


ORDER = ("copied", "grown", "new", "dropped")


def _pattern(name: str) -> str:
    return NUMBER.sub("*", name)


def _text(group: Sequence[Line]) -> str:
    first = group[0]
    name = first.name if len(group) == 1 else _together([line.name for line in group])
    size = sum(line.size for line in group)
    words = [f"{first.kind:<8}{name}", _shapes(first), f"{size:,} parameters"]
    if first.kind == "grown":
        words[-1] = f"{size:,} parameters, {sum(line.kept for line in group):,} of them old"
    if first.source is not None and first.source != first.name:
        words.append(f"from {first.source if len(group) == 1 else _together([line.source or '' for line in group])}")
    return "  ".join(words)


def _shapes(line: Line) -> str:
    shapes = [line.old_shape, line.new_shape]
    if shapes[0] == shapes[1]:
        shapes = shapes[:1]
    return " -> ".join(_shape(shape) for shape in shapes if shape is not None)


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"


def _together(names: Sequence[str]) -> str:
    """Names in which only numbers differ as one, with the numbers that there are.

    >>> _together(["layers.0.weight", "layers.1.weight", "layers.3.weight"])
    'layers.[0-1,3].weight'
    """
    words, numbers = NUMBER.split(names[0]), [list(map(int, NUMBER.findall(name))) for name in names]
    columns = [sorted(set(column)) for column in zip(*numbers, strict=True)]
    text = words[0]
    for column, word in zip(columns, words[1:], strict=True):
        text += (str(column[0]) if len(column) == 1 else f"[{_ranges(column)}]") + word
    return text


def _ranges(numbers: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
