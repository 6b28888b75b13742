"""Decoder layers a step at a time: what every decoder over an encoded source does the same.

Legend: R rows (sequences x beam), M width of the decoder.
"""

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from etude.model.layers.beam_cache import Cache, LayerCache, Memory
from etude.model.layers.blocks import DecoderLayer
from etude.model.layers.masks import EVERYWHERE, Mask
from etude.model.layers.positions import Rotary, Unturned


def begun(layers: nn.ModuleList, memory: Memory, width: int) -> Cache:
    """An empty cache for `width` beams a sequence; keys and values of the source are computed here, once."""
    cache = Cache(width, memory.mask)
    for i, layer in enumerate(_decoders(layers)):
        cache.layers.append(LayerCache(cache, i, layer.cross.keys_values(memory.hidden)))
    return cache


def stepped(layers: nn.ModuleList, hidden_R1M: Tensor, cache: Cache, rotary: Rotary | Unturned) -> Tensor:
    """What the layers make of one place more [R, M], which the cache takes in (in place)."""
    source_mask = EVERYWHERE if cache.mask is None else Mask(cache.mask)
    turn = rotary.turn(cache.length, 1, hidden_R1M)
    for layer, layer_cache in zip(_decoders(layers), cache.layers, strict=True):
        hidden_R1M = layer.step(hidden_R1M, layer_cache, turn, source_mask)
    cache.length += 1
    return hidden_R1M[:, 0]


def _decoders(layers: nn.ModuleList) -> Sequence[DecoderLayer]:
    return cast("Sequence[DecoderLayer]", layers)
