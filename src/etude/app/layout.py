"""How text is laid out: rows of cells in aligned columns."""

from collections.abc import Collection, Sequence


def columns(rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> list[str]:
    """Lay rows out in columns, each as wide as its widest cell; the columns numbered in `right` end together.

    >>> columns([("step", "loss"), ("10", "2.5")], right=[0])
    ['step  loss', '  10  2.5']
    """
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    shapes = [f"{'>' if number in right else '<'}{width}" for number, width in enumerate(widths)]
    return ["  ".join(map(format, row, shapes)).rstrip() for row in rows]
