"""A recogniser: an encoder of frames, and heads over it.

Legend: B sequences, T frames (after subsampling where encoded), F features, M width of the encoder.
"""

from collections.abc import Callable, Mapping
from typing import Any, final

from torch import Tensor, nn

from etude.base.schedules.values import ScheduledValue
from etude.model.layers.growing import GrowthParts, TakesFrames, TellsOutputs, takes
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

    def growth_parts(self) -> GrowthParts:
        """What the encoder gives, where the heads take it."""
        if not isinstance(self.encoder, TellsOutputs):
            return {}
        frames = takes(*self.encoder.growth_outputs())
        heads = [(name, head) for name, head in self.heads.items() if isinstance(head, TakesFrames)]
        return {f"heads.{name}.{weight}": (None, frames) for name, head in heads for weight in head.growth_inputs()}

    def forward(self, features_BTF: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Encoded frames and their lengths."""
        encode: Callable[..., Any] = self.encoder
        encoded_BTM, lengths_B = encode(features_BTF, lengths_B)
        return encoded_BTM, lengths_B
