"""What is done to features once they are extracted: normalising, deltas, stacking; never across recordings.

Frames of all recordings lie one after another, and `lengths` says how many each has; a recording gets the same alone
and beside others. Legend: N frames of all recordings, F features, R recordings.
"""

from collections.abc import Mapping, Sequence
from math import log
from typing import Any, Final, TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from etude.base.errors import DataError
from etude.data.audio.config import FeaturesConfig
from etude.data.audio.features import FLOOR, within

Floats: TypeAlias = NDArray[np.float64]

LEAST_DEVIATION: Final = 1e-3
"""What is divided by is never less: a feature that does not vary stays near 0, rounding included."""
EVERYBODY: Final = ""
"""The name under which statistics of all speakers stand."""
DELTA_WINDOW: Final = 2
"""Frames to either side that a delta looks at."""
_SILENT: Final = log(FLOOR) + 1e-4


@final
class Statistics:
    """Count, mean and squared distances from the mean of each feature, gathered over any number of frames.

    Joined by the formulas of Chan, Golub and LeVeque (1979) in float64, so that no digits are lost over many frames.
    """

    def __init__(self, count: int, mean: Floats, squares: Floats) -> None:
        self.count = count
        self.mean = mean
        """[F]"""
        self.squares = squares
        """Sums of squared distances from the mean, [F]."""

    @classmethod
    def empty(cls, width: int) -> "Statistics":
        """Begin with no frame of `width` features."""
        return cls(0, np.zeros(width), np.zeros(width))

    @property
    def deviation(self) -> Floats:
        """The deviation of each feature, [F]; of no frame at all it is 0."""
        return np.sqrt(self.squares / max(self.count, 1))

    @property
    def deviation_of_all(self) -> float:
        """One deviation for all features: the root of the mean of their variances."""
        return float(np.sqrt(self.squares.mean() / max(self.count, 1)))

    def accumulate(self, features_NF: Tensor) -> None:
        """Take more frames in, [N, F]."""
        frames = features_NF.cpu().double().numpy()
        if len(frames):
            mean = frames.mean(0)
            self.join(Statistics(len(frames), mean, np.square(frames - mean).sum(0)))

    def join(self, other: "Statistics") -> None:
        """Take in what others have gathered."""
        if not other.count:
            return
        count = self.count + other.count
        apart = other.mean - self.mean
        self.squares = self.squares + other.squares + apart**2 * (self.count * other.count / count)
        self.mean = self.mean + apart * (other.count / count)
        self.count = count

    def as_json(self) -> dict[str, Any]:
        """Give everything as JSON has it, without loss."""
        return {"count": self.count, "mean": self.mean.tolist(), "squares": self.squares.tolist()}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> "Statistics":
        """Make them again of what `as_json` gave."""
        return cls(int(kept["count"]), np.array(kept["mean"], float), np.array(kept["squares"], float))


def sounding(features_NF: Tensor, config: FeaturesConfig) -> Tensor:
    """Say of each frame whether it is more than digital silence, bool [N].

    Every energy of a silent frame lies on the floor of the extractor, whatever the recording's level.
    """
    if config.type == "mfcc":
        level_N = features_NF[:, 0] if config.energy else features_NF[:, 0] / config.mel_bins**0.5
        return level_N > _SILENT
    return features_NF.amax(1) > _SILENT


def gather(
    known: dict[str, Statistics],
    features_NF: Tensor,
    lengths: Sequence[int],
    speakers: Sequence[str],
    config: FeaturesConfig,
) -> None:
    """Take the frames of recordings that are heard into the statistics of their speakers, and of everybody.

    `known` holds statistics by speaker, and those of everybody under ""; it gets what it lacks.
    """
    heard_N = sounding(features_NF, config)
    sizes = list(lengths)
    parts = zip(torch.split(features_NF, sizes), torch.split(heard_N, sizes), speakers, strict=True)
    for frames, heard, speaker in parts:
        for name in {speaker, EVERYBODY}:
            known.setdefault(name, Statistics.empty(features_NF.size(1))).accumulate(frames[heard])


@final
class Normaliser:
    """Takes means off features and divides by deviations, as `[data.features]` says.

    `statistics` are those of the training split by speaker, and under "" those of everybody; they are needed where
    `normalise` is "global" or "speaker" (see `gather`). A speaker who is not among them is normalised as everybody.
    Frames of digital silence stay far below all others then; for "utterance" they are as the quietest that is heard.
    """

    def __init__(self, config: FeaturesConfig, statistics: Mapping[str, Statistics] | None = None) -> None:
        self._config = config
        self._statistics = statistics or {}
        if config.normalise in {"global", "speaker"} and EVERYBODY not in self._statistics:
            raise DataError(f'data.features.normalise = "{config.normalise}" needs statistics of the training split.')
        self._tables = {name: self._table(known) for name, known in self._statistics.items()}

    def __call__(self, features_NF: Tensor, lengths: Sequence[int], speakers: Sequence[str] = ()) -> Tensor:
        """Normalise frames, [N, F]; of each recording its number of frames and, where it matters, its speaker."""
        match self._config.normalise:
            case None:
                return features_NF
            case "utterance":
                heard_N = sounding(features_NF, self._config)
                return by_utterance(features_NF, lengths, heard_N, self._config.deviation)
            case "global":
                return self._by_tables(features_NF, lengths, [EVERYBODY] * len(lengths))
            case "speaker":
                return self._by_tables(features_NF, lengths, speakers)

    def _by_tables(self, features_NF: Tensor, lengths: Sequence[int], names: Sequence[str]) -> Tensor:
        known = [name if name in self._tables else EVERYBODY for name in names]
        if len(known) != len(lengths):
            raise DataError(f"{len(lengths)} recordings must have a speaker each, but {len(known)} speakers are given.")
        if not known:
            return features_NF
        tables = torch.stack([self._tables[name] for name in known]).to(features_NF)
        mean_RF, scale_RF = tables.unbind(1)
        return (features_NF - spread(mean_RF, lengths)) * spread(scale_RF, lengths)

    def _table(self, known: Statistics) -> Tensor:
        """Mean and scale of each feature, [2, F]."""
        deviations = {
            None: np.ones_like(known.mean),
            "bin": known.deviation,
            "all": np.full_like(known.mean, known.deviation_of_all),
        }
        scale = 1 / np.maximum(deviations[self._config.deviation], LEAST_DEVIATION)
        return torch.from_numpy(np.stack([known.mean, scale])).float()


def by_utterance(features_NF: Tensor, lengths: Sequence[int], heard_N: Tensor, deviation: str | None) -> Tensor:
    """Give each recording mean 0 in every feature, and deviation 1 in each ("bin") or over all of them ("all").

    Mean and deviation are those of the frames that are heard. The others are taken as the quietest that is heard, in
    each feature: what a file is filled up with then moves nothing. A recording without any that is heard becomes 0.
    """
    heard_N1 = heard_N[:, None].to(features_NF.dtype)
    counts_R1 = segment_sums(heard_N1, lengths).clamp_(min=1)
    lifted_NF = features_NF
    if not heard_N.all():
        quietest_RF = _quietest(features_NF, lengths, heard_N)
        lifted_NF = torch.where(heard_N[:, None], features_NF, spread(quietest_RF, lengths))
    mean_RF = segment_sums(lifted_NF * heard_N1, lengths) / counts_R1
    centred_NF = lifted_NF - spread(mean_RF, lengths)
    if deviation is None:
        return centred_NF
    variance_RF = segment_sums(centred_NF.square() * heard_N1, lengths) / counts_R1
    if deviation == "all":
        variance_RF = variance_RF.mean(1, keepdim=True)
    return centred_NF / spread(variance_RF.sqrt().clamp_(min=LEAST_DEVIATION), lengths)


def _quietest(features_NF: Tensor, lengths: Sequence[int], heard_N: Tensor) -> Tensor:
    """Give the least of each feature over the frames that are heard, [R, F]; 0 where none is."""
    sizes = torch.tensor(lengths, device=features_NF.device)
    upper_NF = features_NF.masked_fill(~heard_N[:, None], torch.inf)
    least_RF = torch.segment_reduce(upper_NF, "min", lengths=sizes, axis=0)
    return least_RF.masked_fill(least_RF.isinf(), 0.0)


def segment_sums(values_NF: Tensor, lengths: Sequence[int]) -> Tensor:
    """Add up the rows of each recording, [R, F], in an order that other recordings do not change.

    In float64, since a recording may have a hundred thousand frames.
    """
    sizes = torch.tensor(lengths, device=values_NF.device)
    return torch.segment_reduce(values_NF.double(), "sum", lengths=sizes, axis=0, initial=0).to(values_NF.dtype)


def spread(values_RF: Tensor, lengths: Sequence[int]) -> Tensor:
    """Give each frame its recording's row, [N, F]."""
    return values_RF.repeat_interleave(torch.tensor(lengths, device=values_RF.device), 0)


def deltas(features_NF: Tensor, lengths: Sequence[int], orders: int) -> Tensor:
    """Append regression deltas of so many orders, [N, (1 + orders) * F].

    The slope of a line through five frames; the frames at the ends are repeated. An order's weights are those of the
    order before convolved with the first's, as in Kaldi (`add-deltas`) and HTK (Young et al. 2006, section 5.9).
    """
    slope = np.arange(-DELTA_WINDOW, DELTA_WINDOW + 1) / (2 * sum(j * j for j in range(DELTA_WINDOW + 1)))
    weights = np.ones(1)
    places, last = _places(lengths)
    parts = [features_NF]
    for _ in range(orders):
        weights = np.convolve(weights, slope)
        parts.append(_filtered(features_NF, places, last, weights))
    return torch.cat(parts, 1)


def _places(lengths: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each frame's place in its recording, and the last place there."""
    sizes = np.asarray(lengths, dtype=np.int64)
    return within(sizes), np.repeat(sizes - 1, sizes)


def _filtered(features_NF: Tensor, places: NDArray[np.int64], last: NDArray[np.int64], weights: Floats) -> Tensor:
    total_NF = torch.zeros_like(features_NF)
    here = np.arange(len(places))
    reach = len(weights) // 2
    for offset, weight in zip(range(-reach, reach + 1), weights.tolist(), strict=True):
        there = torch.from_numpy(here + np.clip(places + offset, 0, last) - places).to(features_NF.device)
        total_NF += weight * features_NF[there]
    return total_NF


def stacked_lengths(lengths: Sequence[int] | NDArray[np.int64], stack: int) -> NDArray[np.int64]:
    """Give how many frames recordings have once `stack` of theirs are one: rounded up."""
    return -(-np.asarray(lengths, dtype=np.int64) // stack)


def stack(features_NF: Tensor, lengths: Sequence[int], size: int) -> tuple[Tensor, list[int]]:
    """Make `size` frames one, without overlap: [frames, size * F], and how many each recording has then.

    The last frame of a recording is repeated where its frames do not fill the last one.
    """
    if size == 1:
        return features_NF, list(lengths)
    counts = stacked_lengths(lengths, size)
    sizes = np.asarray(lengths, dtype=np.int64)
    wanted = within(counts)[:, None] * size + np.arange(size)
    rows = np.minimum(wanted, np.repeat(sizes - 1, counts)[:, None])
    rows += np.repeat(np.cumsum(sizes) - sizes, counts)[:, None]
    index = torch.from_numpy(rows.reshape(-1)).to(features_NF.device)
    return features_NF[index].reshape(len(rows), size * features_NF.size(1)), counts.tolist()


def finished(features_NF: Tensor, lengths: Sequence[int], config: FeaturesConfig) -> tuple[Tensor, list[int]]:
    """Append deltas and stack, as `[data.features]` says, to what is normalised and perhaps masked."""
    if config.deltas:
        features_NF = deltas(features_NF, lengths, config.deltas)
    return stack(features_NF, lengths, config.stack)
