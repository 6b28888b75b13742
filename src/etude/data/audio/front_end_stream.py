"""Features of one recording as its samples come: what a front end makes of the whole, frame by frame.

Legend: N frames, F features.
"""

from typing import final

import torch
from torch import Tensor

from etude.base.errors import ConfigError
from etude.data.audio.features import StreamExtractor
from etude.data.audio.front_end import FrontEnd
from etude.data.audio.normalise import DELTA_WINDOW, deltas, stack


@final
class FrontEndStream:
    """Gives each frame once no sample that comes can change it; end to end they are those of the whole.

    Deltas wait for the frames that they look at. Speakers are unknown: all are normalised as everybody. Raises
    ConfigError where the config looks at a whole recording.
    """

    def __init__(self, front_end: FrontEnd) -> None:
        if front_end.config.normalise == "utterance":
            raise ConfigError(
                'data.features.normalise must be "global" or false where audio comes as a stream, but is "utterance", '
                "which needs the whole recording: train with one of them."
            )
        self._front_end = front_end
        self._extractor = StreamExtractor(front_end.extractor)
        self._deltas = _Deltas(front_end.config.width, front_end.config.deltas)
        self._stack = _Stack(front_end.config.width * (1 + front_end.config.deltas), front_end.config.stack)

    def push(self, samples: Tensor) -> Tensor:
        """Take more samples, [samples]; give the frames that are complete now, [N, F]."""
        features_NF = self._extractor.push(samples)
        return self._stack.push(self._deltas.push(self._front_end.normalised(features_NF, [len(features_NF)])))

    def end(self) -> Tensor:
        """Give the last frames, as where the recording ends."""
        return torch.cat([self._stack.push(self._deltas.end()), self._stack.end()])


class _Deltas:
    """Frames with their deltas, once the frames that those look at have come."""

    def __init__(self, width: int, orders: int) -> None:
        self._orders = orders
        self._reach = DELTA_WINDOW * orders
        """Frames to either side that deltas look at."""
        self._kept_NF = torch.zeros(0, width)
        self._given = 0
        """Frames at the beginning of what is kept that have been given."""

    def push(self, features_NF: Tensor) -> Tensor:
        self._kept_NF = torch.cat([self._kept_NF, features_NF])
        whole_NF = deltas(self._kept_NF, [len(self._kept_NF)], self._orders)
        ready = max(self._given, len(whole_NF) - self._reach)
        found_NF = whole_NF[self._given : ready]
        past = max(0, ready - self._reach)
        self._kept_NF, self._given = self._kept_NF[past:].clone(), ready - past
        return found_NF

    def end(self) -> Tensor:
        return deltas(self._kept_NF, [len(self._kept_NF)], self._orders)[self._given :]


class _Stack:
    """Frames of which several are one, once all of these have come."""

    def __init__(self, width: int, size: int) -> None:
        self._size = size
        self._kept_NF = torch.zeros(0, width)

    def push(self, features_NF: Tensor) -> Tensor:
        joined_NF = torch.cat([self._kept_NF, features_NF])
        whole = len(joined_NF) // self._size * self._size
        self._kept_NF = joined_NF[whole:].clone()
        return stack(joined_NF[:whole], [whole], self._size)[0]

    def end(self) -> Tensor:
        return stack(self._kept_NF, [len(self._kept_NF)], self._size)[0]
