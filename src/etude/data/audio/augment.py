"""All that `[data.augment]` changes of a recording, drawn from (seed, epoch, sample).

What changes a recording's length is drawn first and by itself, for any number of recordings at once: batches are
planned by lengths before any audio is read.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from etude.base.randomness import generator, uniform_each
from etude.base.schedules import ScheduleSection
from etude.base.schedules.values import ScheduledValue
from etude.data.audio import masks, perturb
from etude.data.audio.config import AugmentConfig
from etude.data.audio.perturb import Floats, Ints

DIRECT = (0.0, 12.0)
"""Decibels by which a room's sound lies below the direct one, from the least to the most."""


class Keys(NamedTuple):
    """What decides everything that is drawn for recordings."""

    seed: int
    epoch: int
    samples: Ints
    """[B]: the recordings' numbers in their split."""

    def generators(self, name: str) -> list[np.random.Generator]:
        """Give each recording one of its own."""
        return [generator(self.seed, name, self.epoch, sample) for sample in self.samples.tolist()]


class Mix(NamedTuple):
    """What recordings are mixed with."""

    others: Ints
    """[B]: the number of the other recording; its own where nothing is mixed in."""
    shares: Floats
    """[B]: how much is the recording's own, from a half to 1."""


@final
class Augment:
    """Changes recordings at one rate; its strengths may be moved on the way.

    It remembers nothing of what it has changed: the same key and strengths give the same, in any process.
    """

    def __init__(self, config: AugmentConfig, rate: int) -> None:
        self._config = config
        self._rate = rate
        self._values = {name: _constant(spec) for name, spec in config.strengths()}

    def set(self, name: str, value: float) -> None:
        """Bring a strength into force. Raises KeyError for one that there is not."""
        if name not in self._values:
            raise KeyError(name)
        self._values[name] = float(value)

    def scheduled_values(self, key: str = "augment") -> list[ScheduledValue]:
        """Give what follows a schedule; all of it is taken up where an epoch begins, for lengths are planned by it.

        A strength that does is 0 until it is set.
        """
        found = []
        for name, spec in self._config.strengths():
            if isinstance(spec, ScheduleSection):
                found.append(ScheduledValue(f"{key}.{name}", spec, partial(self.set, name), when="epoch"))
        return found

    def lengths(self, seed: int, epoch: int, samples: Ints, lengths: Ints) -> Ints:
        """Give how long recordings are once their speed and tempo are changed; `samples` are their numbers."""
        faster = perturb.length_after(lengths, self.speeds(seed, epoch, samples))
        return perturb.length_after(faster, self.tempos(seed, epoch, samples))

    def speeds(self, seed: int, epoch: int, samples: Ints) -> Floats:
        """Give the factors of speed of recordings by their numbers."""
        return self._factors("speed", seed, epoch, samples)

    def tempos(self, seed: int, epoch: int, samples: Ints) -> Floats:
        """Give the factors of tempo of recordings by their numbers."""
        return self._factors("tempo", seed, epoch, samples)

    def warps(self, keys: Keys) -> Floats:
        """Give the vocal-tract factors of recordings, for their mel filters."""
        return self._factors("warp", *keys)

    def mixes(self) -> bool:
        """Whether recordings are mixed now."""
        return self._values["mix"] > 0

    def partners(self, seed: int, epoch: int, samples: Ints, size: int) -> Mix:
        """Draw what is mixed into recordings by their numbers, of `size` in their split: never the recording itself."""
        others, shares = samples.copy(), np.ones(len(samples))
        chosen = uniform_each(samples, seed, "mix", epoch) < self._values["mix"]
        for place in np.flatnonzero(chosen & (size > 1)).tolist():
            chance = generator(seed, "mixed with", epoch, int(samples[place]))
            others[place] = (samples[place] + 1 + chance.integers(size - 1)) % size
            share = chance.beta(self._config.mix_alpha, self._config.mix_alpha)
            shares[place] = max(share, 1 - share)
        return Mix(others, shares)

    def waves(self, waves: Sequence[Tensor], keys: Keys) -> list[Tensor]:
        """Change recordings, [samples] each; one that nothing is changed of is given back as it is."""
        speeds, tempos = self.speeds(*keys).tolist(), self.tempos(*keys).tolist()
        return [
            self._changed(perturb.retimed(perturb.resampled(wave, speed), tempo, self._rate), chance)
            for wave, speed, tempo, chance in zip(waves, speeds, tempos, keys.generators("augment waves"), strict=True)
        ]

    def mask(self, features_NF: Tensor, lengths: Sequence[int], keys: Keys) -> None:
        """Mask the normalised features of recordings, so many frames each, in place, before deltas and stacking."""
        policies = {"fixed": masks.fixed, "adaptive": masks.adaptive}
        if self._config.masks is None:
            return
        sizes = masks.Masks(
            time_masks=self._values["time_masks"],
            time_share=self._values["time_share"],
            frequency_masks=self._values["frequency_masks"],
            frequency_bins=self._values["frequency_bins"],
            time_frames=self._config.time_frames,
        )
        rows = torch.split(features_NF, list(lengths))
        for row, chance in zip(rows, keys.generators("augment features"), strict=True):
            policies[self._config.masks](row.numpy(), sizes, chance)

    def _changed(self, wave: Tensor, chance: np.random.Generator) -> Tensor:
        # All draws come first, so that one strength does not change what is drawn for another.
        draws = chance.random(8).tolist()
        wave = self._moved(wave, draws[0])
        wave = self._in_a_room(wave, draws[1:4], chance)
        wave = self._amplified(wave, draws[4])
        return self._noisy(wave, draws[5:8], chance)

    def _factors(self, name: str, seed: int, epoch: int, samples: Ints) -> Floats:
        return perturb.drawn_factors(self._values[name], samples, seed, name, epoch)

    def _moved(self, wave: Tensor, draw: float) -> Tensor:
        samples = round(_between(-1, 1, draw) * self._values["shift"] * self._rate)
        return perturb.shifted(wave, samples) if samples else wave

    def _in_a_room(self, wave: Tensor, draws: list[float], chance: np.random.Generator) -> Tensor:
        if draws[0] >= self._values["reverberation"]:
            return wave
        rt60, direct = _between(*self._config.rt60, draws[1]), _between(*DIRECT, draws[2])
        return perturb.reverberated(wave, perturb.response(self._rate, rt60, direct, chance))

    def _amplified(self, wave: Tensor, draw: float) -> Tensor:
        decibels = _between(-1, 1, draw) * self._values["gain"]
        return perturb.amplified(wave, decibels) if decibels else wave

    def _noisy(self, wave: Tensor, draws: list[float], chance: np.random.Generator) -> Tensor:
        if draws[0] >= self._values["noise"]:
            return wave
        snr = _between(self._values["snr_low"], self._values["snr_high"], draws[1])
        colour = _between(*self._config.noise_colour, draws[2])
        return perturb.noisy(wave, perturb.noise(len(wave), colour, chance), snr)


def _constant(spec: float | ScheduleSection) -> float:
    return 0.0 if isinstance(spec, ScheduleSection) else float(spec)


def _between(low: float, high: float, draw: float) -> float:
    return low + (high - low) * draw
