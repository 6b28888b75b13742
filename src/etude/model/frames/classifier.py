"""A classifier of sequences of frames: an encoder, pooling, and a linear layer; long sequences perhaps in windows.

Legend: B sequences, T frames, F features, K outputs, N windows of all sequences, W frames of a window.
"""

from typing import Literal, NamedTuple, final

import torch
from torch import Tensor, nn

from etude.base.schedules.values import ScheduledValue
from etude.model.frames.encoders import FrameEncoder
from etude.model.frames.pooling import AttentivePooling, PoolingKind, build_pooling
from etude.model.layers.growing import GrowthParts, classes, of_linear, row_of, takes
from etude.model.layers.linear import Linear

WindowPooling = Literal["mean", "max"]


class Windows(NamedTuple):
    """How long sequences are cut, and what is made of the outputs of their windows."""

    frames: int
    shift: int
    pooling: WindowPooling = "mean"


@final
class FrameClassifier(nn.Module):
    """Frames in, outputs of whole sequences out; with `windows` the mean or the largest of a sequence's windows."""

    def __init__(
        self, encoder: FrameEncoder, outputs: int, pooling: PoolingKind = "mean", windows: Windows | None = None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = build_pooling(pooling, encoder.width)
        self.output = Linear(self.pooling.width, outputs)
        self._windows = windows

    def growth_parts(self) -> GrowthParts:
        """Classes, and what is pooled of the frames: once, or means and deviations."""
        frames = row_of(self.encoder.growth_outputs())
        pooled = [frames] * (self.pooling.width // frames.size)
        parts = of_linear("output", self.output, classes(self.output.out_features), takes(*pooled))
        if isinstance(self.pooling, AttentivePooling):
            return {**parts, "pooling.inner.weight": (None, takes(frames))}
        return parts

    def scheduled_values(self) -> list[ScheduledValue]:
        """What the encoder follows schedules by."""
        return self.encoder.scheduled_values()

    def forward(self, features_BTF: Tensor, lengths_B: Tensor) -> Tensor:
        """Outputs [B, K] of padded sequences."""
        if self._windows is None:
            return self._whole(features_BTF, lengths_B)
        windows_NWF, lengths_N, owners_N = cut(features_BTF, lengths_B, self._windows)
        outputs_NK = self._whole(windows_NWF, lengths_N)
        nothing_BK = outputs_NK.new_zeros(len(lengths_B), outputs_NK.size(1))
        if self._windows.pooling == "max":
            owners_NK = owners_N[:, None].expand_as(outputs_NK)
            return nothing_BK.scatter_reduce(0, owners_NK, outputs_NK, "amax", include_self=False)
        counts_B = torch.bincount(owners_N, minlength=len(lengths_B)).to(outputs_NK.dtype)
        return nothing_BK.index_add(0, owners_N, outputs_NK) / counts_B[:, None]

    def _whole(self, features_BTF: Tensor, lengths_B: Tensor) -> Tensor:
        pooled_BM = self.pooling(*self.encoder(features_BTF, lengths_B))
        return self.output(pooled_BM)  # type: ignore[no-any-return]


def cut(features_BTF: Tensor, lengths_B: Tensor, windows: Windows) -> tuple[Tensor, Tensor, Tensor]:
    """Windows [N, W, F] of all sequences, their lengths [N], and which sequence each is of [N].

    A sequence that is no longer than a window is one of its own length; of a longer one the last window ends where the
    sequence does.

    >>> cut(torch.arange(5.0)[None, :, None], torch.tensor([5]), Windows(3, 1))[0][:, :, 0].tolist()
    [[0.0, 1.0, 2.0], [1.0, 2.0, 3.0], [2.0, 3.0, 4.0]]
    """
    beyond_B = (lengths_B - windows.frames).clamp(min=0)
    counts_B = 1 + -(-beyond_B // windows.shift)
    owners_N = torch.repeat_interleave(counts_B)
    firsts_B = counts_B.cumsum(0) - counts_B
    places_N = torch.arange(len(owners_N), device=lengths_B.device) - firsts_B[owners_N]
    starts_N = torch.minimum(places_N * windows.shift, beyond_B[owners_N])
    frames_NW = starts_N[:, None] + torch.arange(windows.frames, device=lengths_B.device)
    frames_NW = frames_NW.clamp(max=max(features_BTF.size(1) - 1, 0))
    return features_BTF[owners_N[:, None], frames_NW], lengths_B.clamp(max=windows.frames)[owners_N], owners_N
