"""Where a token stands: learned, sinusoidal and rotary positions.

Legend: B batch, T time, H heads, D width of a head, M width of the model.
"""

import math
from typing import Literal, NamedTuple, final

import torch
from torch import Tensor, nn

from etude.base.errors import DataError
from etude.model.exact import exact, exact_dtype
from etude.model.layers.growing import GrowthParts, classes, gives

Positions = Literal["learned", "sinusoidal", "rotary"]
"""The kinds that an encoder may have, and an encoder with a decoder."""


def check_width(positions: str, d_model: int, heads: int) -> None:
    """Raise ValueError for a width that heads do not divide, or that cannot be halved where positions need it."""
    if d_model % heads:
        raise ValueError(f"heads must divide d_model = {d_model}, but is {heads}")
    if positions == "sinusoidal" and d_model % 2:
        raise ValueError(f"d_model must be even for sinusoidal positions, but is {d_model}")
    if positions == "rotary" and d_model // heads % 2:
        raise ValueError(f"d_model / heads must be even for rotary positions, but is {d_model // heads}")


def _angles(length: int, pairs: int, device: torch.device) -> Tensor:
    """Position times frequency [T, pairs]; frequencies fall from 1 to nearly 1 / 10,000. In float64.

    `turn_by` takes another road to the same numbers; each keeps its own, whose last bits runs depend on.
    """
    places = torch.arange(length, dtype=torch.float64, device=device)
    frequencies = torch.exp(torch.arange(pairs, dtype=torch.float64, device=device) * (-math.log(10_000.0) / pairs))
    return torch.outer(places, frequencies)


class _Tables:
    """Tables that depend on the length alone, made once for each device and made anew when they grow."""

    def __init__(self, pairs: int) -> None:
        self.pairs = pairs
        self._sine = torch.empty(0)
        self._cosine = torch.empty(0)

    def rows(self, start: int, length: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Sine and cosine [length, pairs] of the positions from `start` on."""
        stop = start + length
        if self._sine.size(0) < stop or self._sine.device != device or self._sine.dtype != dtype:
            with torch.inference_mode(False):  # a search may come first; training uses the tables too
                angles = _angles(max(2 * stop, 128), self.pairs, device)
                self._sine, self._cosine = angles.sin().to(dtype), angles.cos().to(dtype)
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
        sine, cosine = self._tables.rows(start, embedded_BTM.size(1), embedded_BTM.device, embedded_BTM.dtype)
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

    def growth_parts(self) -> GrowthParts:
        """Positions, and their vectors."""
        return {"weight": (classes(self.limit), gives(self.weight.size(1)))}

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


class Turn(NamedTuple):
    """By how much queries and keys are turned, made once for each batch (Su et al. 2021, RoFormer): [T, D / 2] each,
    or [B or 1, 1, T, D / 2].
    """

    sine: Tensor
    cosine: Tensor

    def __call__(self, value_BHTD: Tensor) -> Tensor:
        """Turn in float32 or better, in halves as in GPT-NeoX and Llama."""
        first, second = exact(value_BHTD).chunk(2, dim=-1)
        turned = torch.cat((first * self.cosine - second * self.sine, second * self.cosine + first * self.sine), dim=-1)
        return turned.to(value_BHTD.dtype)


@final
class Rotary:
    """Turns queries and keys by their position; the numbers are looked up in tables."""

    def __init__(self, head_width: int) -> None:
        self._tables = _Tables(head_width // 2)

    def turn(self, start: int, length: int, like: Tensor) -> Turn:
        """The turn of `length` positions from `start` on, of queries and keys as wide as `like` or less."""
        return Turn(*self._tables.rows(start, length, like.device, exact_dtype(like)))


@final
class Unturned:
    """Leaves queries and keys as they are."""

    def turn(self, start: int, length: int, like: Tensor) -> None:
        """No turn."""
        del start, length, like


def added(positions: Positions, width: int, longest: int) -> Learned | Sinusoidal | Unplaced:
    """What adds positions to embeddings of a width, of sequences of at most `longest` tokens where they are learned."""
    match positions:
        case "learned":
            return Learned(width, longest)
        case "sinusoidal":
            return Sinusoidal(width)
        case "rotary":
            return Unplaced()


def turning(positions: Positions, head_width: int) -> Rotary | Unturned:
    """What turns queries and keys of a head by their positions."""
    return Rotary(head_width) if positions == "rotary" else Unturned()


def turn_by(positions: Tensor, head_width: int, base: float, like: Tensor) -> Turn:
    """The turn of each of `positions` ([T] or [B, T]); angles are computed in float64."""
    pairs = head_width // 2
    frequencies = base ** (-torch.arange(pairs, dtype=torch.float64, device=positions.device) / pairs)
    angles = (positions.double()[..., None] * frequencies).unsqueeze(-3)
    dtype = exact_dtype(like)
    return Turn(angles.sin().to(dtype), angles.cos().to(dtype))


def sinusoids(positions: Tensor, width: int, deviation: float, like: Tensor) -> Tensor:
    """Sines and cosines of each of `positions` ([T] or [B, T]), as large as embeddings of that deviation.

    Vaswani et al. 2017, section 3.5, with halves instead of interleaved.
    """
    sine, cosine = turn_by(positions, width, 10_000.0, like)
    return torch.cat((sine, cosine), dim=-1).squeeze(-3) * (deviation * math.sqrt(2.0))
