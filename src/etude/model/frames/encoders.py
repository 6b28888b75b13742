"""Encoders of frames: features of audio, or any other vectors along time.

A sequence in a batch gives what it gives alone, but for rounding: no layer ever sees padding.

Legend: B batch, T time, F features, M width of the encoder.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias, assert_never, final

from torch import Tensor, nn

from etude.base.errors import ConfigError
from etude.base.schedules.values import ScheduledValue
from etude.model.frames.blstm import Blstm, BlstmConfig
from etude.model.frames.cnn import Cnn, CnnConfig
from etude.model.frames.conformer import Conformer, ConformerConfig
from etude.model.frames.extent import BodyState, real_frames, zeroed
from etude.model.frames.mlp import Mlp, MlpConfig
from etude.model.frames.subsampling import (
    FrontState,
    Lengths,
    StackedFront,
    StridedFront,
    SubsamplingConfig,
    build_front,
    subsampled,
)
from etude.model.layers.dropout import scheduled_rates
from etude.model.layers.growing import Nested

FrameEncoderConfig: TypeAlias = BlstmConfig | ConformerConfig | CnnConfig | MlpConfig
"""The sections that `build_encoder` takes."""


class StreamState(NamedTuple):
    """What an encoder keeps of the frames so far, where they come in pieces."""

    front: FrontState
    body: BodyState


def frames_after(config: FrameEncoderConfig, lengths: Lengths) -> Lengths:
    """How many frames an encoder makes of sequences of `lengths`, a number, an array or a tensor of whole numbers.

    ceil(length / subsampling), by the formula of each convolution: no sequence but an empty one loses all its frames.

    >>> frames_after(BlstmConfig(subsampling=4), 9)
    3
    """
    return subsampled(config, lengths) if isinstance(config, SubsamplingConfig) else lengths


@final
class Unchanged(nn.Module):
    """The beginning of an encoder that takes frames as they are."""

    def forward(self, features_BTF: Tensor, lengths_B: Tensor) -> Tensor:
        """[B, T, F], as it came."""
        del lengths_B
        return features_BTF

    def stream(self, batch: int) -> FrontState:
        """Nothing is kept."""
        del batch
        return FrontState(0, ())

    def advance(self, features_BTF: Tensor, state: FrontState, *, last: bool) -> tuple[Tensor, FrontState]:
        """The next frames, as they came."""
        del last
        return features_BTF, state


Front: TypeAlias = StridedFront | StackedFront | Unchanged
Body: TypeAlias = Blstm | Conformer | Cnn | Mlp


@final
class FrameEncoder(nn.Module):
    """Fewer frames, and layers over them."""

    def __init__(self, config: FrameEncoderConfig, front: Front, body: Body) -> None:
        super().__init__()
        self.config = config
        self.front = front
        self.body = body
        self.width = body.width
        """Of the frames it gives."""

    @property
    def subsampling(self) -> int:
        """How many frames become one."""
        return self.config.subsampling if isinstance(self.config, SubsamplingConfig) else 1

    def growth_outputs(self) -> Sequence[Nested]:
        """What its frames are made up of."""
        return self.body.growth_outputs() if isinstance(self.body, Blstm) else (self.width,)

    def lengths(self, lengths_B: Tensor) -> Tensor:
        """How many frames it makes of sequences of these lengths: `frames_after`."""
        return frames_after(self.config, lengths_B)

    def scheduled_values(self) -> list[ScheduledValue]:
        """The rates of dropout that the config gives as schedules."""
        return scheduled_rates(self, self.config, self.body.rates)

    def forward(self, features_BTF: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden frames [B, T', M], zero where padding is, and their lengths [B].

        `lengths_B` says how many of the T frames each sequence has, 0 to T; whatever stands behind them is not seen.
        """
        if features_BTF.size(1) == 0:  # convolutions and LSTMs refuse it: a frame of padding, which is taken off again
            hidden_B1M, lengths_B = self(nn.functional.pad(features_BTF, (0, 0, 0, 1)), lengths_B)
            return hidden_B1M[:, :0], lengths_B
        hidden_BTM = self.front(features_BTF, lengths_B)
        lengths_B = self.lengths(lengths_B)
        real_BT = real_frames(lengths_B, hidden_BTM.size(1), hidden_BTM.device)
        return zeroed(self.body(hidden_BTM, real_BT), real_BT), lengths_B

    def stream(self, batch: int = 1) -> StreamState:
        """The state before the first frame of `batch` sequences that come in pieces; ConfigError if not causal."""
        body = self._streaming()
        return StreamState(self.front.stream(batch), body.stream(batch))

    def advance(self, features_BTF: Tensor, state: StreamState, *, last: bool) -> tuple[Tensor, StreamState]:
        """The hidden frames [B, T', M] that the next frames complete, and the state to go on with.

        All of them together are what the whole would give. With `last` what waits is completed without more frames,
        and the sequence ends.
        """
        body = self._streaming()
        hidden_BTM, front = self.front.advance(features_BTF, state.front, last=last)
        hidden_BTM, after = body.advance(hidden_BTM, state.body, last=last)
        return hidden_BTM, StreamState(front, after)

    def _streaming(self) -> Blstm | Conformer | Mlp:
        match self.body:
            case Cnn():
                raise ConfigError(
                    'A cnn cannot take frames in pieces: take model.type = "conformer" with model.causal = true, or '
                    '"blstm" with model.bidirectional = false.'
                )
            case Conformer(config=ConformerConfig(causal=False)):
                raise ConfigError("A conformer takes frames in pieces only with model.causal = true, but it is false.")
            case Blstm(bidirectional=True):
                raise ConfigError(
                    "A blstm takes frames in pieces only with model.bidirectional = false, but it is true."
                )
        return self.body


def build_encoder(config: FrameEncoderConfig, features: int) -> FrameEncoder:
    """The encoder that a section describes, of frames of `features` numbers each."""
    match config:
        case BlstmConfig():
            front = build_front(config, features, config.d_model, causal=not config.bidirectional)
            return FrameEncoder(config, front, Blstm(config))
        case ConformerConfig():
            front = build_front(config, features, config.d_model, causal=config.causal)
            return FrameEncoder(config, front, Conformer(config))
        case CnnConfig():
            front = build_front(config, features, config.d_model, causal=False)
            return FrameEncoder(config, front, Cnn(config))
        case MlpConfig():
            return FrameEncoder(config, Unchanged(), Mlp(config, features))
        case _:
            assert_never(config)
