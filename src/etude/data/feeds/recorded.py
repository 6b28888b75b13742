"""Batches of recordings: features of each, with what is said in it or what it is.

Shapes: B samples, T frames of the longest, F features of a frame, L labels of the longest transcript.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Protocol, Self, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from etude.data.audio import perturb
from etude.data.audio.augment import Augment, Keys, Mix
from etude.data.audio.front_end import FrontEnd
from etude.data.audio.reading import Wave
from etude.data.feeds.batching import Batching
from etude.data.feeds.table_feed import Samples, TableFeed
from etude.data.order.joined import Joined, Joiner, Joining
from etude.data.order.plan import Ints
from etude.data.store.features import FEATURES
from etude.data.store.recordings import GROUP, SAMPLES, SPEAKER, TARGET, Waves
from etude.data.store.table import Table
from etude.data.store.targets import Targets
from etude.data.tokens.tokenizers import PAD


@dataclass(frozen=True, eq=False, slots=True)
class FrameBatch:
    """Features of recordings, padded with zeros at the end."""

    features: Tensor
    """[B, T, F] float32."""
    lengths: Tensor
    """[B] int64: frames of each."""
    indices: Tensor
    """[B] int64: which sample of the table each row is."""

    def __len__(self) -> int:
        return self.features.shape[0]

    @property
    def padding(self) -> float:
        """The share of the frames that is padding."""
        cells = self.features.shape[0] * self.features.shape[1]
        return 1 - int(self.lengths.sum()) / cells if cells else 0.0

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:  # noqa: FBT001, FBT002 - as Tensor.to
        """Give the batch with every tensor on `device`."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Give the batch in page-locked memory."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(value) for name, value in held.items() if isinstance(value, Tensor)})


@final
@dataclass(frozen=True, eq=False, slots=True)
class SpeechBatch(FrameBatch):
    """Recordings and the labels of what is said in them."""

    targets: Tensor
    """[B, L] int64, padded at the end."""
    target_lengths: Tensor
    """[B] int64."""
    frame_targets: Tensor | None = None
    """[B, T'] int64: the class of each frame that the model makes, -1 where there is none; for frame-wise losses."""
    groups: tuple[str, ...] = ()
    """What metrics are by, of each sample, where they are: of joined recordings as of the first."""


@final
@dataclass(frozen=True, eq=False, slots=True)
class SoundBatch(FrameBatch):
    """Recordings and what each is."""

    targets: Tensor
    """[B] int64 of one label, else [B, K] float32; shares of labels [B, K] where recordings are mixed."""
    groups: tuple[str, ...] = ()
    """What metrics are by, of each sample; empty where they are of all."""

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What a model is called with."""
        return self.features, self.lengths

    @property
    def told(self) -> dict[str, Tensor]:
        """Further columns of saved outputs."""
        return {"frames": self.lengths}


class Finish(Protocol):
    """Makes a batch of features and of the targets of samples."""

    def __call__(self, frames: FrameBatch, samples: "RecordedSamples", joined: Joined) -> FrameBatch:
        """Give the batch."""


@final
@dataclass(frozen=True)
class RecordedSamples(Samples):
    """The rows of a table of recordings, or several joined to one, as samples."""

    waves: Waves
    front_end: FrontEnd
    finish: Finish
    """Adds the targets; where workers are not forked it must pickle."""
    seed: int
    training: bool
    """Whether recordings are changed, and what is joined is drawn anew for each epoch."""
    augment: Augment | None = None
    """What is changed of recordings in training."""
    kept: Table | None = None
    """The features of all rows, where they are prepared; then nothing may change waves or join them."""
    joining: Joining | None = None
    between: tuple[int, ...] = ()
    """Labels that stand between those of joined recordings."""
    epoch: int = 0

    @property
    def table(self) -> Table:
        """The rows."""
        return self.waves.table

    def __len__(self) -> int:
        return len(self.table)

    @property
    def unit(self) -> str:
        """Recordings are as long as their frames."""
        return "frames"

    @property
    def drawn(self) -> bool:
        """Whether epochs change what a sample is."""
        return self.training and (self.joining is not None or self.augment is not None)

    def at(self, epoch: int) -> "RecordedSamples":
        """Give the samples as an epoch has them."""
        return replace(self, epoch=epoch) if self.drawn else self

    def lengths(self, indices: Ints) -> tuple[Ints, Ints]:
        """Give how many frames samples have, and how many labels: [B] each."""
        samples = self.samples(indices)
        if self.augment is not None:
            samples = self.augment.lengths(self.seed, self.epoch, indices, samples)
        return self.front_end.frames(samples), self._labels(indices)

    def samples(self, indices: Ints) -> Ints:
        """Give how many samples of sound there are before their speed is changed: [B]."""
        known = self.table.values(SAMPLES, np.arange(len(self.table)) if self.joining else indices)
        if self.joining is None:
            return known
        return self._joiner.lengths(indices, known)

    def joined(self, indices: Ints) -> Joined:
        """Give the rows that samples are made of; where none are joined, each of one without pauses."""
        if self.joining is None:
            ones = np.ones(len(indices), dtype=np.int64)
            return Joined(ones, indices, np.zeros(2 * len(indices), dtype=np.int64))
        return self._joiner.of(indices)

    def batch(self, indices: Ints) -> FrameBatch:
        """Make a batch of samples."""
        joined = self.joined(indices)
        features, lengths = self._heard(joined, indices) if self.kept is None else self._kept(self.kept, indices)
        return self.finish(framed(features, lengths, indices), self, joined)

    def targets(self, indices: Ints) -> int:
        """Count the targets of samples: each is one, or not known where some cannot be learned."""
        return len(indices)

    def expected(self, samples: int) -> float | None:
        """Estimate the targets of so many samples."""
        return float(samples)

    @property
    def mix(self) -> Callable[[Ints], Mix] | None:
        """What tells which recordings others are mixed into; None where none are."""
        if self.augment is None or not self.augment.mixes():
            return None
        return partial(self.augment.partners, self.seed, self.epoch, size=len(self))

    @property
    def _joiner(self) -> Joiner:
        assert self.joining is not None
        return Joiner(self.joining, len(self.table), self.seed, self.epoch)

    def _labels(self, indices: Ints) -> Ints:
        if TARGET not in self.table.columns or not self.table.columns[TARGET].varies:
            return np.ones(len(indices), dtype=np.int64)
        joined = self.joined(indices)
        owners = np.repeat(np.arange(len(indices)), joined.counts)
        lengths = self.table.lengths(TARGET)[joined.parts]
        total = np.bincount(owners, weights=lengths, minlength=len(indices)).astype(np.int64)
        return total + len(self.between) * (joined.counts - 1)

    def _kept(self, kept: Table, indices: Ints) -> tuple[Tensor, list[int]]:
        """Give the features of all frames that were prepared, in training masked, and how many each sample has."""
        values, counts = kept.gather(FEATURES, indices)
        features, lengths = torch.from_numpy(values), counts.tolist()
        if self.augment is not None:
            self.augment.mask(features, lengths, Keys(self.seed, self.epoch, indices))
        return self.front_end.finished(features, lengths)

    def _heard(self, joined: Joined, indices: Ints) -> tuple[Tensor, list[int]]:
        """Give the features of all frames that are computed now, and how many each sample has."""
        waves = self._sounds(joined)
        if self.mix is not None:
            waves = self._mixed(waves, self.mix(indices))
        return self._features(waves, self._speakers(joined), indices)

    def _features(self, waves: list[Tensor], speakers: list[str], indices: Ints) -> tuple[Tensor, list[int]]:
        """Give the features of all frames, and how many each sample has; in training of what became of the samples."""
        augment = self.augment
        if augment is None:
            return self.front_end.made(waves, speakers)
        keys = Keys(self.seed, self.epoch, indices)
        changed, warps = augment.waves(waves, keys), augment.warps(keys)
        # Recordings of one warp lie together: their filters are then applied at once.
        order = np.argsort(warps, kind="stable")
        features, lengths = self.front_end.features(
            [changed[place] for place in order],
            [speakers[place] for place in order],
            warps=warps[order].tolist(),
        )
        augment.mask(features, lengths, keys._replace(samples=indices[order]))
        rows = torch.split(features, lengths)
        back = [rows[place] for place in np.argsort(order)]
        return self.front_end.finished(torch.cat([features[:0], *back]), list(map(len, back)))

    def _sounds(self, joined: Joined) -> list[Tensor]:
        """Give the wave of each sample, its parts one after the other with silence between."""
        if self.joining is None:
            return self.waves.tensors(joined.parts)
        return list(map(torch.from_numpy, _laid_out(self.waves.of(joined.parts), joined)))

    def _mixed(self, waves: list[Tensor], mix: Mix) -> list[Tensor]:
        """Mix waves with others, at their own levels."""
        found, places = list(waves), np.flatnonzero(mix.shares < 1)
        for place, other in zip(places.tolist(), self.waves.tensors(mix.others[places]), strict=True):
            levelled = perturb.levelled(other, waves[place])
            found[place] = perturb.mixed(waves[place], levelled, float(mix.shares[place]))
        return found

    def _speakers(self, joined: Joined) -> list[str]:
        """Give who speaks first in each sample."""
        firsts = np.cumsum(joined.counts) - joined.counts
        return self.table.texts(SPEAKER, joined.parts[firsts])


def _laid_out(waves: list[Wave], joined: Joined) -> list[Wave]:
    """Join waves with pauses before each, and one at the end."""
    found: list[Wave] = []
    part = pause = 0
    for count in joined.counts.tolist():
        pieces: list[Wave] = []
        for place in range(count):
            pieces += [np.zeros(joined.pauses[pause + place], np.float32), waves[part + place]]
        pieces.append(np.zeros(joined.pauses[pause + count], np.float32))
        found.append(np.concatenate(pieces))
        part, pause = part + count, pause + count + 1
    return found


def framed(features: Tensor, lengths: list[int], indices: Ints) -> FrameBatch:
    """Pad the features of all frames [N, F], so many of each recording, to a batch."""
    rows = list(torch.split(features, lengths))
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True) if rows else features[None][:0]
    return FrameBatch(padded, torch.tensor(lengths, dtype=torch.int64), torch.from_numpy(np.array(indices)))


def with_transcripts(frames: FrameBatch, samples: RecordedSamples, joined: Joined) -> SpeechBatch:
    """Add the labels of what is said in each recording."""
    ids, lengths = samples.table.gather(TARGET, joined.parts)
    parts = np.split(ids, np.cumsum(lengths)[:-1])
    rows = [_between(parts[end - count : end], samples.between) for count, end in _spans(joined.counts)]
    width = max(map(len, rows), default=0)
    targets = np.full((len(rows), width), PAD, dtype=np.int64)
    for target, row in zip(targets, rows, strict=True):
        target[: len(row)] = row
    counts = torch.tensor([len(row) for row in rows], dtype=torch.int64)
    held = frames.features, frames.lengths, frames.indices
    return SpeechBatch(*held, torch.from_numpy(targets), counts, groups=_groups(samples, frames.indices.numpy()))


@final
@dataclass(frozen=True)
class WithTargets:
    """Adds what each recording is."""

    kinds: Targets

    def __call__(self, frames: FrameBatch, samples: RecordedSamples, joined: Joined) -> SoundBatch:
        """Give the batch."""
        del joined
        rows = frames.indices.numpy()
        values = self.kinds.of_rows(samples.table, rows)
        if samples.mix is not None:
            others, shares = samples.mix(rows)
            values = _shared(values, self.kinds.of_rows(samples.table, others), shares, len(self.kinds.names))
        targets = torch.from_numpy(np.ascontiguousarray(values))
        return SoundBatch(frames.features, frames.lengths, frames.indices, targets, _groups(samples, rows))


def _groups(samples: RecordedSamples, rows: Ints) -> tuple[str, ...]:
    """Give what metrics are by; the first of joined recordings is the sample's own."""
    return tuple(samples.table.texts(GROUP, rows)) if GROUP in samples.table.columns else ()


def _shared(values: NDArray[Any], others: NDArray[Any], shares: NDArray[np.float64], width: int) -> NDArray[np.float32]:
    """Give the share of each label [B, K] where those of two recordings are mixed; NaN where one of them is."""
    if values.ndim == 1:
        values, others = np.eye(width)[values], np.eye(width)[others]
    own = shares[:, None]
    return np.where(own < 1, own * values + (1 - own) * others, values).astype(np.float32)


def _spans(counts: Ints) -> list[tuple[int, int]]:
    return list(zip(counts.tolist(), np.cumsum(counts).tolist(), strict=True))


def _between(parts: list[NDArray[Any]], sign: tuple[int, ...]) -> NDArray[np.int64]:
    """Lay the labels of several recordings one after the other, with others between."""
    pieces = [np.asarray(parts[0], dtype=np.int64)]
    for part in parts[1:]:
        pieces += [np.array(sign, dtype=np.int64), np.asarray(part, dtype=np.int64)]
    return np.concatenate(pieces)


def recorded_feed(samples: RecordedSamples, batching: Batching) -> TableFeed:
    """Make a feed of recordings; a budget counts their frames."""
    return TableFeed(samples, batching)
