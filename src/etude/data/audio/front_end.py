"""From waves to what a model sees: features, normalised, with deltas and stacked.

Legend: N frames of all recordings, F features.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from etude.data.audio.config import FeaturesConfig
from etude.data.audio.features import Extractor
from etude.data.audio.normalise import EVERYBODY, Normaliser, Statistics, finished, gather, stacked_lengths

Ints: TypeAlias = NDArray[np.int64]
BySpeaker: TypeAlias = dict[str, Statistics]
"""Of the training data, by speaker, and under "" those of everybody."""


@final
class FrontEnd:
    """Makes features as `[data.features]` says, at one rate."""

    def __init__(self, config: FeaturesConfig, rate: int, statistics: Mapping[str, Statistics] | None = None) -> None:
        self.config, self.rate, self.statistics = config, rate, statistics
        self.extractor = Extractor(config, rate)
        self._normaliser = Normaliser(config, statistics)

    def __str__(self) -> str:
        return f"Features: {self.extractor}."

    @property
    def width(self) -> int:
        """Features of a frame."""
        return self.config.output_width

    @property
    def least_samples(self) -> int:
        """What a recording must have for one frame."""
        return self.extractor.window

    @property
    def seconds_a_frame(self) -> float:
        """From one frame to the next."""
        return self.extractor.shift * self.config.stack / self.rate

    def frames(self, samples: Ints) -> Ints:
        """Give how many frames recordings of so many samples have."""
        return stacked_lengths(self.extractor.frames_of(samples), self.config.stack)

    def features(
        self, waves: Sequence[Tensor], speakers: Sequence[str] = (), *, warps: Sequence[float] | None = None
    ) -> tuple[Tensor, list[int]]:
        """Give normalised features of all recordings' frames [N, F], and how many frames each has."""
        features_NF, lengths = self.extractor.extract(waves, warps)
        return self.normalised(features_NF, lengths, speakers), lengths

    def normalised(self, features_NF: Tensor, lengths: Sequence[int], speakers: Sequence[str] = ()) -> Tensor:
        """Normalise the features of recordings; without speakers as everybody."""
        return self._normaliser(features_NF, lengths, speakers or [EVERYBODY] * len(lengths))

    def finished(self, features_NF: Tensor, lengths: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Append deltas and stack, once nothing else is changed."""
        return finished(features_NF, lengths, self.config)

    def made(self, waves: Sequence[Tensor], speakers: Sequence[str] = ()) -> tuple[Tensor, list[int]]:
        """Give what a model sees of all recordings [N, F], and how many frames each has."""
        return self.finished(*self.features(waves, speakers))


def add_recordings(
    known: BySpeaker, config: FeaturesConfig, rate: int, waves: Sequence[Tensor], speakers: Sequence[str]
) -> None:
    """Take recordings into the statistics of everybody and, where it matters, of their speakers."""
    features_NF, lengths = Extractor(config, rate).extract(waves)
    names = speakers if config.normalise == "speaker" else [EVERYBODY] * len(waves)
    gather(known, features_NF, lengths, names, config)


def as_json(statistics: Mapping[str, Statistics] | None) -> dict[str, Any] | None:
    """Give statistics as JSON has them."""
    return None if statistics is None else {name: one.as_json() for name, one in statistics.items()}


def from_json(kept: Mapping[str, Any] | None) -> BySpeaker | None:
    """Give what `as_json` gave back."""
    return None if kept is None else {name: Statistics.from_json(one) for name, one in kept.items()}
