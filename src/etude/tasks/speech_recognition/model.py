"""A recogniser: an encoder of frames, and heads over it.

Legend: B sequences, T frames (after subsampling where encoded), F features, M width of the encoder.
"""

from collections.abc import Callable, Mapping
from typing import Any, final

from torch import Tensor, nn

from etude.base.schedules.values import ScheduledValue
from etude.train.task import Tells


@final
class SpeechModel(nn.Module):
    """`encoder` maps (features [B, T, F], lengths [B]) to frames [B, T, M] with their lengths [B]; `heads` by name."""

    def __init__(self, encoder: nn.Module, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleDict(heads)

    def scheduled_values(self) -> list[ScheduledValue]:
        """What the encoder and the heads follow schedules by."""
        parts = [part for part in (self.encoder, *self.heads.values()) if isinstance(part, Tells)]
        return [value for part in parts for value in part.scheduled_values()]

    def forward(self, features_BTF: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Encoded frames and their lengths."""
        encode: Callable[..., Any] = self.encoder
        encoded_BTM, lengths_B = encode(features_BTF, lengths_B)
        return encoded_BTM, lengths_B
