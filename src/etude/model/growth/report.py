"""A transfer as rows, and as lines of text."""

import re
from collections.abc import Sequence
from operator import add
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
    """The line of parameters that fare alike."""
    first = group[0]
    name = _together([line.name for line in group])
    return "  ".join([f"{first.kind:<8}{name}", _shapes(first), _amount(group), *_origin(group)])


def _amount(group: Sequence[Line]) -> str:
    """How many numbers they are, and of those that grow how many are old."""
    amount = f"{sum(line.size for line in group):,} parameters"
    if group[0].kind != "grown":
        return amount
    return f"{amount}, {sum(line.kept for line in group):,} of them old"


def _origin(group: Sequence[Line]) -> list[str]:
    """What they are taken from, where that is called otherwise."""
    if group[0].source in {None, group[0].name}:
        return []
    return [f"from {_together([line.source or '' for line in group])}"]


def _shapes(line: Line) -> str:
    """The old shape and the new one, once where they are alike."""
    shapes = dict.fromkeys((line.old_shape, line.new_shape))
    return " -> ".join(_shape(shape) for shape in shapes if shape is not None)


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"


def _together(names: Sequence[str]) -> str:
    """Names in which only numbers differ as one, with the numbers that there are.

    >>> _together(["layers.0.weight", "layers.1.weight", "layers.3.weight"])
    'layers.[0-1,3].weight'
    """
    if len(names) == 1:
        return names[0]
    first, *words = NUMBER.split(names[0])
    columns = zip(*map(_numbers, names), strict=True)
    return first + "".join(map(add, map(_column, columns), words))


def _numbers(name: str) -> list[int]:
    return list(map(int, NUMBER.findall(name)))


def _column(numbers: Sequence[int]) -> str:
    """The numbers that stand at one place of the names."""
    different = sorted(set(numbers))
    if len(different) == 1:
        return str(different[0])
    return f"[{','.join(map(_range, _runs(different)))}]"


def _runs(numbers: Sequence[int]) -> list[list[int]]:
    """Numbers in order, those that follow each other together."""
    runs: list[list[int]] = []
    for number in numbers:
        if not runs or number != runs[-1][-1] + 1:
            runs.append([])
        runs[-1].append(number)
    return runs


def _range(run: Sequence[int]) -> str:
    return str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}"
