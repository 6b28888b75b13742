"""What every encoder of frames begins with: fewer frames, as wide as the encoder.

Of T frames, ceil(T / s) are left, by either way: a sequence of one frame keeps one, and only an empty one has none.

Legend: B batch, T time, F features, C channels, M width of the encoder.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeVar, final

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn

from etude.base.config.section import Section
from etude.model.frames.extent import real_frames, zeroed
from etude.model.layers.growing import GrowthParts, alike, given, of_linear, takes
from etude.model.layers.linear import Linear

Lengths = TypeVar("Lengths", int, Tensor, npt.NDArray[np.int64])

KERNEL = 3
"""Frames, and bins, that a strided convolution looks at."""
REDUCTION = 2
"""By how much each of them strides the features."""
STRIDES: Mapping[int, tuple[int, ...]] = {1: (), 2: (2,), 4: (2, 2), 6: (2, 3), 8: (2, 2, 2)}
"""Strides in time of the convolutions that subsample by a factor together."""


class SubsamplingConfig(Section):
    """What the sections of encoders that subsample share."""

    subsampling: Literal[1, 2, 4, 6, 8] = 4
    """How many frames become one: of T frames, T / `subsampling` are left, rounded up."""
    subsample: Literal["convolution", "stack"] = "convolution"
    """Subsample by strided convolutions over time and features, or stack neighbouring frames and project them."""
    subsample_channels: int = Field(32, ge=1)
    """Channels of these convolutions."""


class FrontState(NamedTuple):
    """What is kept of the frames so far, where they come in pieces."""

    seen: int
    """Frames so far."""
    tails: tuple[Tensor, ...]
    """Of each convolution, the last frames that it took in; of a stack, those that are not yet enough for one."""


def strides_of(config: SubsamplingConfig) -> tuple[int, ...]:
    """The strides in time, one after the other."""
    return STRIDES[config.subsampling] if config.subsample == "convolution" else (config.subsampling,)


def subsampled(config: SubsamplingConfig, lengths: Lengths) -> Lengths:
    """The frames that are left of `lengths`."""
    for stride in strides_of(config):
        lengths = strided(lengths, stride)
    return lengths


def strided(lengths: Lengths, stride: int) -> Lengths:
    """floor((T + padding - kernel) / stride) + 1, where padding is kernel - 1: ceil(T / stride)."""
    return (lengths + (stride - 1)) // stride


@final
class Convolution(nn.Conv2d):
    """`nn.Conv2d` that keeps the size of what a ReLU makes of it (He et al. 2015); biases begin at zero."""

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)


@final
class StridedConvolution(nn.Module):
    """A convolution over time and features, strided in both, and a ReLU; causal: over this frame and earlier ones."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, causal: bool) -> None:
        super().__init__()
        self.stride = stride
        self.before = KERNEL - 1 if causal else 0
        """Frames of zeros in front, beside those that a convolution that is not causal has on either side."""
        half = (KERNEL - 1) // 2
        padding = (0 if causal else half, half)
        self.convolution = Convolution(inputs, outputs, KERNEL, (stride, REDUCTION), padding=padding)

    def forward(self, hidden_BCTF: Tensor, lengths_B: Tensor) -> Tensor:
        """[B, C, T, F] to [B, C', ceil(T / stride), ceil(F / 2)]; padding is never seen."""
        real_BT = real_frames(lengths_B, hidden_BCTF.size(2), hidden_BCTF.device)
        masked = hidden_BCTF.masked_fill(~real_BT[:, None, :, None], 0.0)
        if self.before:
            masked = nn.functional.pad(masked, (0, 0, self.before, 0))
        return self.convolution(masked).relu()  # type: ignore[no-any-return]

    def advance(self, hidden_BCTF: Tensor, tail_BCtF: Tensor, seen: int) -> tuple[Tensor, Tensor]:
        """What the next frames give, after `seen` ones that ended with the tail, and the new tail."""
        skipped = -seen % self.stride
        joined = torch.cat((tail_BCtF, hidden_BCTF), dim=2)
        tail = joined[:, :, joined.size(2) - (KERNEL - 1) :]
        if hidden_BCTF.size(2) <= skipped:
            bins = strided(joined.size(3), REDUCTION)
            return joined.new_zeros(joined.size(0), self.convolution.out_channels, 0, bins), tail
        return self.convolution(joined[:, :, skipped:]).relu(), tail


@final
class StridedFront(nn.Module):
    """Strided convolutions, and a projection of channels and bins to the encoder's width."""

    def __init__(self, config: SubsamplingConfig, features: int, width: int, *, causal: bool) -> None:
        super().__init__()
        self.bins = [features]
        self.channels = [1]
        layers = []
        for stride in strides_of(config):
            layers.append(StridedConvolution(self.channels[-1], config.subsample_channels, stride, causal=causal))
            self.bins.append(strided(self.bins[-1], REDUCTION))
            self.channels.append(config.subsample_channels)
        self.layers = nn.ModuleList(layers)
        self.output = Linear(self.channels[-1] * self.bins[-1], width)

    def growth_parts(self) -> GrowthParts:
        """Channels, of each of which the bins stand side by side."""
        bins = alike(self.channels[-1], given(self.bins[-1]))
        return of_linear("output", self.output, None, takes(bins))

    def forward(self, features_BTF: Tensor, lengths_B: Tensor) -> Tensor:
        """[B, T, F] to [B, ceil(T / s), M]; what stands where padding does means nothing."""
        hidden_BCTF = features_BTF[:, None]
        for layer in self.layers:
            hidden_BCTF = layer(hidden_BCTF, lengths_B)
            lengths_B = strided(lengths_B, layer.stride)  # type: ignore[arg-type]
        return self._projected(hidden_BCTF)

    def stream(self, batch: int) -> FrontState:
        """The state before the first frame."""
        like = self.output.weight
        sizes = zip(self.layers, self.channels, self.bins, strict=False)
        tails = tuple(like.new_zeros(batch, channels, KERNEL - 1, bins) for _, channels, bins in sizes)
        return FrontState(0, tails)

    def advance(self, features_BTF: Tensor, state: FrontState, *, last: bool) -> tuple[Tensor, FrontState]:
        """What the next frames give, and the state behind them; `last` changes nothing, for nothing waits."""
        del last
        hidden_BCTF, seen, tails = features_BTF[:, None], state.seen, []
        for layer, before in zip(self.layers, state.tails, strict=True):
            hidden_BCTF, tail = layer.advance(hidden_BCTF, before, seen)  # type: ignore[operator]
            seen = strided(seen, layer.stride)  # type: ignore[arg-type]
            tails.append(tail)
        after = FrontState(state.seen + features_BTF.size(1), tuple(tails))
        return self._projected(hidden_BCTF), after

    def _projected(self, hidden_BCTF: Tensor) -> Tensor:
        return self.output(hidden_BCTF.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


@final
class StackedFront(nn.Module):
    """Neighbouring frames side by side, zeros where the last are missing, projected to the encoder's width."""

    def __init__(self, config: SubsamplingConfig, features: int, width: int) -> None:
        super().__init__()
        self.count, self.features = config.subsampling, features
        self.output = Linear(self.count * features, width)

    def growth_parts(self) -> GrowthParts:
        """Frames, of each of which the features stand side by side."""
        return of_linear("output", self.output, None, takes(*[given(self.features)] * self.count))

    def forward(self, features_BTF: Tensor, lengths_B: Tensor) -> Tensor:
        """[B, T, F] to [B, ceil(T / s), M]; what stands where padding does means nothing."""
        real_BT = real_frames(lengths_B, features_BTF.size(1), features_BTF.device)
        return self._stacked(zeroed(features_BTF, real_BT))

    def stream(self, batch: int) -> FrontState:
        """The state before the first frame."""
        return FrontState(0, (self.output.weight.new_zeros(batch, 0, self.features),))

    def advance(self, features_BTF: Tensor, state: FrontState, *, last: bool) -> tuple[Tensor, FrontState]:
        """What the next frames give, and the state behind them; the `last` ones are stacked with zeros."""
        joined_BTF = torch.cat((state.tails[0], features_BTF), dim=1)
        whole = joined_BTF.size(1) if last else joined_BTF.size(1) // self.count * self.count
        after = FrontState(state.seen + features_BTF.size(1), (joined_BTF[:, whole:],))
        return self._stacked(joined_BTF[:, :whole]), after

    def _stacked(self, features_BTF: Tensor) -> Tensor:
        if self.count > 1:
            missing = -features_BTF.size(1) % self.count
            features_BTF = nn.functional.pad(features_BTF, (0, 0, 0, missing))
            features_BTF = features_BTF.unflatten(1, (-1, self.count)).flatten(2)  # type: ignore[no-untyped-call]
        return self.output(features_BTF)  # type: ignore[no-any-return]


def build_front(config: SubsamplingConfig, features: int, width: int, *, causal: bool) -> StridedFront | StackedFront:
    """The beginning of an encoder of frames of `features` numbers each."""
    if strides_of(config) and config.subsample == "convolution":
        return StridedFront(config, features, width, causal=causal)
    return StackedFront(config, features, width)
