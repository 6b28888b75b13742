"""Where a token stands: learned, sinusoidal and rotary positions.

Legend: B batch, T time, H heads, D width of a head, M width of the model.
"""

import math
from typing import final

import torch
from torch import Tensor, nn

from etude.base.errors import DataError


def _angles(length: int, pairs: int, device: torch.device) -> Tensor:
    """Position times frequency [T, pairs]; frequencies fall from 1 to nearly 1 / 10,000. In float64."""
    places = torch.arange(length, dtype=torch.float64, device=device)
    frequencies = torch.exp(torch.arange(pairs, dtype=torch.float64, device=device) * (-math.log(10_000.0) / pairs))
    return torch.outer(places, frequencies)


class _Tables:
    """Tables that depend on the length alone, made once for each device and made anew when they grow."""

    def __init__(self, pairs: int) -> None:
        self.pairs = pairs
        self._sine = torch.empty(0)
        self._cosine = torch.empty(0)

    def rows(self, start: int, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Sine and cosine [length, pairs] of the positions from `start` on, on the device of `like`."""
        stop = start + length
        if self._sine.size(0) < stop or self._sine.device != like.device or self._sine.dtype != like.dtype:
            with torch.inference_mode(False):  # a search may come first; training uses the tables too
                angles = _angles(max(2 * stop, 128), self.pairs, like.device)
                self._sine, self._cosine = angles.sin().to(like.dtype), angles.cos().to(like.dtype)
        return self._sine[start:stop], self._cosine[start:stop]


@final
class Sinusoidal(nn.Module):
    """Add sines and cosines of the position (Vaswani et al. 2017, section 3.5; halves instead of interleaved)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self._tables = _Tables(width // 2)

    def forward(self, embedded_BTM: Tensor, start: int = 0) -> Tensor:
        """[B, T, M], whose first position is `start`."""
        sine, cosine = self._tables.rows(start, embedded_BTM.size(1), embedded_BTM)
        return embedded_BTM + torch.cat((sine, cosine), dim=-1)


@final
class Learned(nn.Module):
    """Add a learned vector for each of the first `limit` positions."""

    def __init__(self, width: int, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.weight = nn.Parameter(torch.empty(limit, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Unit normal: the size that scaled token embeddings have."""
        nn.init.normal_(self.weight)

    def forward(self, embedded_BTM: Tensor, start: int = 0) -> Tensor:
        """[B, T, M]; DataError where a position lies beyond the limit."""
        stop = start + embedded_BTM.size(1)
        if stop > self.limit:
            raise DataError(
                f"A sequence of {stop} tokens does not fit model.max_positions = {self.limit}; "
                "raise it, lower data.max_length, or take model.positions = 'rotary'."
            )
        return embedded_BTM + self.weight[start:stop]


@final
class Unplaced(nn.Module):
    """Add nothing: with rotary positions, attention itself knows them."""

    def forward(self, embedded_BTM: Tensor, start: int = 0) -> Tensor:
        """[B, T, M], as it came."""
        del start
        return embedded_BTM


@final
class Rotary(nn.Module):
    """Turn queries and keys by their position (Su et al. 2021, RoFormer; halves as in GPT-NeoX)."""

    def __init__(self, head_width: int) -> None:
        super().__init__()
        self._tables = _Tables(head_width // 2)

    def forward(self, value_BHTD: Tensor, start: int = 0) -> Tensor:
        """[B, H, T, D], whose first position is `start`; turned in float32 or better."""
        wide = value_BHTD if value_BHTD.dtype == torch.float64 else value_BHTD.float()
        sine, cosine = self._tables.rows(start, value_BHTD.size(2), wide)
        first, second = wide.chunk(2, dim=-1)
        turned = torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)
        return turned.to(value_BHTD.dtype)


@final
class Unturned(nn.Module):
    """Leave queries and keys as they are."""

    def forward(self, value_BHTD: Tensor, start: int = 0) -> Tensor:
        """[B, H, T, D], as it came."""
        del start
        return value_BHTD
