"""What decoding keeps between steps: the encoded source, and keys and values of the tokens so far.

Legend: B sentences, R rows (sentences x beam), H heads, S source time, T target time, D width of a head, L layers.
"""

from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor

from etude.model.layers.masks import EVERYWHERE

GROWTH = 16
"""Positions that a cache begins with; it doubles when full."""


class Memory(NamedTuple):
    """An encoded batch of sources."""

    hidden: Tensor
    """[B, S, M]."""
    mask: Tensor | None
    """What is added to the scores of its keys, [B, 1, 1, S]; None where nothing is padding."""


@final
class LayerCache:
    """Keys and values of one decoder layer: a view into the `Cache` that holds all layers together."""

    mask = EVERYWHERE
    """Of its own keys: each row sees all."""

    def __init__(self, cache: "Cache", layer: int, source: tuple[Tensor, Tensor]) -> None:
        self._cache = cache
        self._layer = layer
        self.source_keys, self.source_values = source

    @property
    def length(self) -> int:
        """Positions already decoded."""
        return self._cache.length

    def append(self, key_RH1D: Tensor, value_RH1D: Tensor) -> tuple[Tensor, Tensor]:
        """Store the next position; returns keys and values [R, H, T, D] up to it."""
        store = self._cache.store(key_RH1D)[self._layer]
        stop = self.length + 1
        store[0, :, :, stop - 1 : stop] = key_RH1D
        store[1, :, :, stop - 1 : stop] = value_RH1D
        return store[0, :, :, :stop], store[1, :, :, :stop]


@final
@dataclass
class Cache:
    """Keys and values of all decoder layers; the beams of a sentence share its source's."""

    width: int
    """Rows for each sentence, side by side: row = sentence * width + beam."""
    mask: Tensor | None
    """As in `Memory`."""
    length: int = 0
    """Positions decoded so far."""

    def __post_init__(self) -> None:
        self.layers: list[LayerCache] = []
        self._store = torch.empty(0)

    def store(self, key_RH1D: Tensor) -> Tensor:
        """Room [L, 2, R, H, T', D] for one more position than `length`, made like the key that is to come."""
        if self._store.numel() == 0:
            rows, heads, _, width = key_RH1D.shape
            self._store = key_RH1D.new_zeros(len(self.layers), 2, rows, heads, GROWTH, width)
        elif self.length >= self._store.size(4):
            self._store = torch.cat((self._store, torch.zeros_like(self._store)), dim=4)
        return self._store

    def reorder(self, rows: Tensor) -> None:
        """Let row i go on from what was row `rows[i]`; rows stay within their sentence."""
        if self._store.numel():
            self._store = self._store.index_select(2, rows)

    def keep(self, sentences: Tensor) -> None:
        """Go on with these sentences alone, in this order."""
        offsets = torch.arange(self.width, device=sentences.device)
        self.reorder((sentences[:, None] * self.width + offsets).flatten())
        if self.mask is not None:
            self.mask = self.mask.index_select(0, sentences)
        for layer in self.layers:
            layer.source_keys = layer.source_keys.index_select(0, sentences)
            layer.source_values = layer.source_values.index_select(0, sentences)
