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


def batches(count: int) -> str:
    """So many batches, in words.

    >>> batches(1), batches(1200)
    ('1 batch', '1,200 batches')
    """
    return "1 batch" if count == 1 else f"{count:,} batches"
