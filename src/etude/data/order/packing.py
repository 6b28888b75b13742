"""Documents into rows of a fixed length, little of which stays empty."""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def packed(lengths: Ints, width: int) -> list[Ints]:
    """Pack sequences into rows of `width`; give the places of each row's sequences, longest first.

    Best fit, decreasing (Johnson 1973, "Near-optimal bin packing algorithms"): each sequence, from the longest to the
    shortest, goes into the fullest row that has room. How many rows there are depends on the lengths alone, whatever
    their order; at most 11/9 of the fewest possible, and one. No length may exceed `width`.
    """
    rows: list[list[int]] = []
    room: list[list[int]] = [[] for _ in range(width + 1)]  # rows by how much they can still take
    some = 0  # bit r is set where there is a row with room r
    order = np.argsort(-lengths, kind="stable")
    for place, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        fitting = some >> length
        if fitting:
            left = length + (fitting & -fitting).bit_length() - 1
            row = room[left].pop()
            if not room[left]:
                some ^= 1 << left
            rows[row].append(place)
        else:
            left, row = width, len(rows)
            rows.append([place])
        left -= length
        if left:
            room[left].append(row)
            some |= 1 << left
    return [np.array(row, dtype=np.int64) for row in rows]
