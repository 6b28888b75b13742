"""Keys and values that a decoder keeps while it generates: room for all of them at once, rows of different lengths.

Legend: L layers, R rows, K heads of keys, T time, S slots, D width of a head.
"""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from etude.model.layers.masks import EVERYWHERE, Mask


@final
class KeyValueCache:
    """Keys and values of all layers in one piece of memory, made once.

    Row r has seen `lengths[r]` tokens of its context; token n lies in slot n modulo the room, so that beyond the room
    the newest takes the place of the oldest. What autocast made narrower is kept in the type of `like`, which holds it
    exactly. Memory: layers x 2 x rows x heads of keys x room x width of a head.
    """

    def __init__(self, layers: int, heads: int, room: int, like: Tensor) -> None:
        """`like` [R, ..., D] says rows, width, type and device."""
        self.store = like.new_zeros(layers, 2, like.size(0), heads, room, like.size(-1))
        self.lengths: list[int] = [0] * like.size(0)
        self._slots: Tensor | None = None
        self._rows: Tensor | None = None
        self._used = 0
        self.mask = EVERYWHERE
        """What hides the slots that a row has not filled yet, [R, 1, 1, S]."""

    @property
    def room(self) -> int:
        """Slots of a row."""
        return self.store.size(4)

    def of(self, layer: int, rows: Tensor | None = None) -> "RowsOfLayer":
        """What one layer sees of it; `rows` (None: all) are those that it will `fill`."""
        return RowsOfLayer(self, layer, rows)

    def fill(self, layer: int, keys_RKTD: Tensor, values_RKTD: Tensor, rows: Tensor | None) -> None:
        """Store the beginning of `rows` (None: of all), which is no longer than the room."""
        stop = keys_RKTD.size(2)
        for part, given in enumerate((keys_RKTD, values_RKTD)):
            if rows is None:
                self.store[layer, part, :, :, :stop] = given
            else:
                self.store[layer, part, rows, :, :stop] = given.to(self.store.dtype)

    def advance(self) -> None:
        """Make a place for the next token of every row; called once a step, before the layers `append`."""
        lengths = self.lengths
        self._used = min(max(lengths) + 1, self.room)
        self.mask, self._slots = EVERYWHERE, None
        if min(lengths) < max(lengths):
            self._advance_unevenly(lengths)

    def _advance_unevenly(self, lengths: Sequence[int]) -> None:
        device = self.store.device
        self._slots = torch.tensor([length % self.room for length in lengths], device=device)
        if min(lengths) + 1 < self._used:
            seen = torch.tensor(lengths, device=device)[:, None]
            hidden = torch.arange(self._used, device=device) > seen
            zeros = self.store.new_zeros(hidden.shape)
            self.mask = Mask(zeros.masked_fill_(hidden, -torch.inf)[:, None, None, :])
        if self._rows is None or len(self._rows) != len(lengths):
            self._rows = torch.arange(len(lengths), device=device)

    def append(self, layer: int, key_RK1D: Tensor, value_RK1D: Tensor) -> tuple[Tensor, Tensor]:
        """Store a layer's next key and value; returns all of its keys and values [R, K, S, D]."""
        store = self.store[layer]
        slot = self.lengths[0] % self.room
        for part, given in enumerate((key_RK1D, value_RK1D)):
            if self._slots is None:
                store[part, :, :, slot] = given[:, :, 0]
            else:
                store[part, self._rows, :, self._slots] = given[:, :, 0].to(store.dtype)
        return store[0, :, :, : self._used], store[1, :, :, : self._used]

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order; a row may be taken several times."""
        if list(rows) == list(range(len(self.lengths))):
            return
        self.store = self.store.index_select(2, torch.tensor(rows, device=self.store.device))
        self.lengths = [self.lengths[row] for row in rows]
        self._rows = None


@final
class RowsOfLayer:
    """Keys and values of one layer: a view into the cache, which holds all layers together and keeps no view."""

    def __init__(self, cache: KeyValueCache, layer: int, rows: Tensor | None) -> None:
        self._cache = cache
        self._layer = layer
        self._rows = rows

    @property
    def mask(self) -> Mask:
        """What hides the slots that a row has not filled yet."""
        return self._cache.mask

    def fill(self, keys_RKTD: Tensor, values_RKTD: Tensor) -> None:
        """Store the beginning of these rows."""
        self._cache.fill(self._layer, keys_RKTD, values_RKTD, self._rows)

    def append(self, key_RK1D: Tensor, value_RK1D: Tensor) -> tuple[Tensor, Tensor]:
        """Store the next position of all rows; returns all keys and values [R, K, S, D]."""
        return self._cache.append(self._layer, key_RK1D, value_RK1D)
