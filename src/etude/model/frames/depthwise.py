"""Convolutions in time that look at each channel alone, and the norm of groups of channels over real frames.

Legend: B batch, T time, M width, G groups.
"""

from typing import final

import torch
from torch import Tensor, nn

from etude.model.exact import exact
from etude.model.frames.extent import zeroed
from etude.model.layers.growing import GrowthParts, Part, gives, taps


@final
class Depthwise(nn.Module):
    """Of each channel, a weighted sum over `kernel` frames around each one, or, causal, over it and those before."""

    def __init__(self, width: int, kernel: int, *, causal: bool) -> None:
        super().__init__()
        self.kernel = kernel
        self.before = kernel - 1 if causal else 0
        """Frames of zeros in front."""
        self.around = 0 if causal else (kernel - 1) // 2
        """Frames of zeros on either side."""
        self.convolution = nn.Conv1d(width, width, kernel, groups=width)

    def growth_parts(self) -> GrowthParts:
        """The frames that are looked at, which a wider kernel has more of before, and, not causal, behind."""
        return {"convolution.weight": (None, None, taps(self.kernel, self.before + self.around))}

    def forward(self, hidden_BTM: Tensor, real_BT: Tensor) -> Tensor:
        """[B, T, M] to [B, T, M]; padding is never seen."""
        hidden_BTM = zeroed(hidden_BTM, real_BT)
        if self.before:
            hidden_BTM = nn.functional.pad(hidden_BTM, (0, 0, self.before, 0))
        return self._convolved(hidden_BTM, self.around)

    def advance(self, hidden_BTM: Tensor, tail_BtM: Tensor) -> tuple[Tensor, Tensor]:
        """What the next frames give, after a tail of kernel - 1 (zeros before the first), and the new tail."""
        joined = torch.cat((tail_BtM, hidden_BTM), dim=1)
        return self._convolved(joined, 0), joined[:, joined.size(1) - (self.kernel - 1) :]

    def _convolved(self, hidden_BTM: Tensor, around: int) -> Tensor:
        # As an image one pixel wide, whose channels lie side by side as they do here: half the time of torch's own
        # convolution in one dimension on a processor, which copies them apart and back.
        image_BMT1 = hidden_BTM.transpose(1, 2)[..., None].contiguous(memory_format=torch.channels_last)
        weight_M1k1, bias_M = self.convolution.weight[..., None], self.convolution.bias
        groups = self.convolution.groups
        convolved = nn.functional.conv2d(image_BMT1, weight_M1k1, bias_M, padding=(around, 0), groups=groups)
        return convolved[..., 0].transpose(1, 2)


@final
class FramesGroupNorm(nn.Module):
    """Group norm (Wu and He 2018) whose mean and variance are those of the real frames of a sequence."""

    def __init__(self, groups: int, width: int, epsilon: float) -> None:
        super().__init__()
        self.groups, self.epsilon = groups, epsilon
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def reset_parameters(self) -> None:
        """Neither scale nor shift."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def growth_parts(self) -> GrowthParts:
        """Channels, normalised in groups."""
        width = self.weight.size(0)
        return dict.fromkeys(("weight", "bias"), (gives(Part(width, group=width // self.groups)),))

    def forward(self, hidden_BTM: Tensor, real_BT: Tensor) -> Tensor:
        """[B, T, M] to [B, T, M], computed in float32 or better."""
        grouped_BTGm = exact(hidden_BTM).unflatten(-1, (self.groups, -1))  # type: ignore[no-untyped-call]
        real_BT11 = real_BT[:, :, None, None]
        count_B111 = (real_BT11.sum(1, keepdim=True) * grouped_BTGm.size(-1)).clamp(min=1)
        mean = grouped_BTGm.masked_fill(~real_BT11, 0.0).sum((1, 3), keepdim=True) / count_B111
        centred = (grouped_BTGm - mean).masked_fill(~real_BT11, 0.0)
        variance = centred.square().sum((1, 3), keepdim=True) / count_B111
        normed_BTM = (centred * (variance + self.epsilon).rsqrt()).flatten(2)
        return (normed_BTM * self.weight + self.bias).to(hidden_BTM.dtype)  # type: ignore[no-any-return]
