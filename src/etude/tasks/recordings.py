"""Recordings for a run, whatever is to be found in them: `[data]` of a task over audio, and how splits are opened."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from etude.base.config.fields import PathField, PathOr, Switch
from etude.base.config.meaning import means
from etude.base.config.section import Section
from etude.base.errors import ConfigError
from etude.base.files import make_folder
from etude.base.says import Say, unheard
from etude.base.schedules.values import ScheduledValue
from etude.data.audio.augment import Augment
from etude.data.audio.config import AugmentConfig, FeaturesConfig
from etude.data.audio.features import Extractor
from etude.data.audio.front_end import BySpeaker, FrontEnd, add_recordings, as_json, from_json
from etude.data.audio.reading import Channel, Listening
from etude.data.feeds.table_feed import TableFeed
from etude.data.files.header import Choice
from etude.data.files.manifests import Columns, Manifest, open_manifest
from etude.data.files.named import files_named
from etude.data.files.names import ColumnField, Roles, audio_corpus_names, labelled_audio_corpus_names
from etude.data.files.skipped import AllowanceField, Policy
from etude.data.files.table_file import TableForm
from etude.data.order.joined import Joining
from etude.data.store.recordings import KEPT_SECONDS, SPEAKER, Waves, Wishes, files_of, rate_of, seconds_of
from etude.tasks.config import Config, DataSection


def _corpora() -> list[str]:
    return audio_corpus_names() + labelled_audio_corpus_names()


Source = Annotated[Path | str, PathOr(_corpora)] | Annotated[tuple[PathField, ...], Field(min_length=1)]
"""What holds one part of the data: a manifest, several, a folder of Kaldi's files, or a generated corpus by name."""
SPLITS: tuple[Literal["train", "val", "test"], ...] = ("train", "val", "test")
HEARD = 64
"""Recordings that statistics are counted of at a time."""
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class JoinConfig(Section):
    """`[data.join]`: several recordings of the same split, one after the other, are one sample."""

    least: int = Field(1, ge=1)
    """Fewest recordings of a sample; ..."""
    most: int = Field(ge=1)
    """... and most. The first is the sample's own, the others are any, drawn anew in each epoch of training."""
    pause: tuple[Seconds, Seconds] = (0.0, 0.0)
    """Shortest and longest silence before each recording and at the end, in seconds."""
    between: str = " "
    """What stands between their transcripts."""
    splits: list[Literal["train", "val", "test"]] = Field(default_factory=lambda: list(SPLITS))
    """The splits whose recordings are joined."""

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if self.least > self.most:
            raise ValueError(f"least must be at most most, {self.most}, but is {self.least}")
        if self.pause[0] > self.pause[1]:
            raise ValueError("pause must go from the shortest to the longest")
        return self

    def at(self, rate: int) -> Joining:
        """The same in samples of sound."""
        shortest, longest = self.pause
        return Joining(self.least, self.most, (round(shortest * rate), round(longest * rate)))


class RecordingsSection(DataSection):
    """Recordings, and what to do about bad ones."""

    replaced_whole = ("train", "val", "test")
    roles: ClassVar[Roles]

    train: Switch[Source] = None
    """Training data: a manifest (.csv, .tsv, .jsonl), a list of them, a folder of Kaldi's files (wav.scp, text), or a
    generated corpus by name."""

    val: Annotated[Switch[Source], means("validation", shared="always", governs=("stopping",))] = None
    """Validation data, given like `train`."""

    test: Annotated[Switch[Source], means("none", shared="always")] = None
    """Test data, given like `train`."""

    path: ColumnField = "path"
    """The column of a recording's file: WAV, FLAC, OGG or MP3; relative to the manifest's folder."""

    start: ColumnField = "start"
    """The column of where a recording begins in its file, in seconds, where there is one."""

    end: ColumnField = "end"
    """The column of where it ends, where there is one."""

    speaker: ColumnField = "speaker"
    """The column of who speaks, where there is one."""

    root: Switch[PathField] = None
    """The folder that paths of a manifest must not lead out of; that of the manifest unless it is given."""

    header: Choice = "auto"
    """Whether the first line of a table names its columns."""

    quotes: Choice = "auto"
    """Whether cells of a table may stand in quotes, as spreadsheets write them."""

    sample_rate: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Samples a second that features are computed from; `"auto"` takes that of the first training recording. A run
    keeps it: recordings of another rate are bad, or are resampled."""

    resample: bool = False
    """Whether recordings of another rate are resampled (by soxr)."""

    channel: Switch[Literal["mean"] | Annotated[int, Field(ge=1)]] = None
    """Of recordings with several channels: their mean, or one by its number; without it they are bad."""

    keep_waves: Choice = "auto"
    """Whether decoded audio is kept in the cache, 4 bytes a sample, rather than read from its files for each batch;
    `"auto"` keeps up to 20 hours."""

    keep_features: bool = False
    """Whether features are computed once and kept in the cache, rather than for each batch: for training that changes
    no sound, masks apart. What is trained is the same to the bit."""

    max_seconds: Switch[Annotated[float, Field(gt=0, allow_inf_nan=False)]] = None
    """Longest recording; a longer one is a bad sample."""

    join: Switch[JoinConfig] = None
    """Join several recordings of a split to one sample."""

    features: FeaturesConfig = FeaturesConfig()
    augment: AugmentConfig = AugmentConfig()

    workers: Annotated[int, means("none", shared="always")] = Field(default=0, ge=0)
    """Processes that load batches in parallel with training; 0 loads in the training process."""

    on_bad_sample: Literal["error", "skip"] = "error"
    """What to do with a bad sample: end the run with its place and reason, or leave it out and list it."""

    max_skipped: AllowanceField = "1%"
    """How many samples may be left out, as a number or as a share of the data; more are an error."""

    @model_validator(mode="after")
    def _keeps_what_stays(self) -> Self:
        changed = "join" if self.join is not None else self.augment.changes_sound
        if self.keep_features and changed:
            key = changed if changed == "join" else f"augment.{changed}"
            raise ValueError(
                f"keep_features is of recordings as they are, but {key} makes others of them: turn one off"
            )
        return self

    @property
    def text_column(self) -> str | int:
        """The column of what is said in a recording, or of what it is."""
        raise NotImplementedError

    @property
    def policy(self) -> Policy:
        """What the section says about bad samples."""
        return Policy(None, self.on_bad_sample, self.max_skipped)

    def listening(self, rate: int) -> Listening:
        """How files are heard by a run of this rate."""
        channel: Channel = self.channel
        return Listening(rate, self.resample, channel)


@dataclass(frozen=True)
class Sound:
    """What a run keeps of how it hears."""

    rate: int
    """Samples a second."""
    statistics: BySpeaker | None = None
    """Those of the features of the training data, where the config normalises by them."""

    def front_end(self, data: RecordingsSection) -> FrontEnd:
        """From waves to features, as the config says."""
        return FrontEnd(data.features, self.rate, self.statistics)

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return {"rate": self.rate, "statistics": as_json(self.statistics)}

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """From what `facts` gave."""
        return cls(int(facts["rate"]), from_json(facts["statistics"]))


def heard(data: Mapping[str, Any]) -> dict[str, Any]:
    """What of `[data]`, as plain values, a model is used with: how it hears."""
    return {name: data[name] for name in ("features", "resample", "channel")}


def open_recordings(
    config: Config, data: RecordingsSection, name: str, say: Say, *, further: tuple[str | int, ...] = ()
) -> Manifest:
    """The recordings of one split, as `[data]` names them.

    Raises ConfigError where the config names none, DataError where its files cannot be used.
    """
    split = {"train": data.train, "val": data.val, "test": data.test}[name]
    if split is None:
        raise ConfigError(f"data.{name} is not set: name a manifest, as in --data.{name} recordings.csv.")
    make_folder(config.cache)
    columns = Columns(data.path, data.text_column, data.start, data.end, data.speaker, further)
    return open_manifest(
        split,
        columns=columns,
        root=data.root,
        form=TableForm(data.header, data.quotes),
        cache=config.cache,
        notice=say,
        key=f"data.{name}",
        roles=data.roles,
    )


def files_heard(config: Config, data: RecordingsSection, name: str) -> Iterator[Path]:
    """The files of one split: its manifests and the recordings that they list; none of a generated corpus.

    Raises DataError where a manifest is not there, or cannot be read.
    """
    split = data.split_of(name)
    yield from files_named(split, f"data.{name}")
    if isinstance(split, Path | tuple):
        yield from files_of(open_recordings(config, data, name, unheard))


def augment_of(data: RecordingsSection, rate: int) -> Augment | None:
    """What is changed of recordings in training; None where nothing is."""
    return Augment(data.augment, rate) if data.augment.changes else None


def scheduled_strengths(augment: Augment | None, feed: TableFeed) -> list[ScheduledValue]:
    """The strengths of augmentation that follow schedules, taken up where an epoch begins."""
    if augment is None:
        return []
    return [value._replace(apply=_taken_up(value, feed)) for value in augment.scheduled_values("data.augment")]


def _taken_up(value: ScheduledValue, feed: TableFeed) -> Callable[[Any], object]:
    """Set a value, and let processes that make batches go, whose copy has the one before: others take their place."""

    def apply(number: float) -> None:
        value.apply(number)
        feed.close()

    return apply


def chosen_rate(data: RecordingsSection, manifest: Manifest, say: Say) -> int:
    """The rate of a run, as the config says or as the first recording has it."""
    if data.sample_rate != "auto":
        return data.sample_rate
    rate = rate_of(manifest)
    say(f"Audio is at {rate:,} Hz, as that of the first recording is.")
    return rate


def wishes_of(data: RecordingsSection, manifest: Manifest, rate: int) -> Wishes:
    """How recordings are prepared."""
    keep = data.keep_waves
    if keep == "auto":
        keep = seconds_of(manifest, KEPT_SECONDS) <= KEPT_SECONDS
    window = Extractor(data.features, rate).window
    return Wishes(data.listening(rate), keep, window, data.max_seconds)


def learned_statistics(data: RecordingsSection, waves: Waves, rate: int) -> BySpeaker | None:
    """Statistics of the features of all recordings of a table, where the config normalises by them."""
    if data.features.normalise not in {"global", "speaker"}:
        return None
    found: BySpeaker = {}
    for first in range(0, len(waves.table), HEARD):
        rows = np.arange(first, min(first + HEARD, len(waves.table)))
        sounds = [torch.from_numpy(wave) for wave in waves.of(rows)]
        add_recordings(found, data.features, rate, sounds, waves.table.texts(SPEAKER, rows))
    return found
