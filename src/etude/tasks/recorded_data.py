"""The splits of a run over recordings: what is the same whatever is found in them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar, cast

from etude.base.says import Say
from etude.base.schedules.values import ScheduledValue
from etude.data.audio.augment import Augment
from etude.data.audio.front_end import FrontEnd
from etude.data.feeds.recorded import FrameBatch, RecordedSamples, recorded_feed
from etude.data.feeds.table_feed import TableFeed
from etude.data.files.manifests import Manifest
from etude.data.store.features import prepare_features
from etude.data.store.recordings import PATH, Waves, folder_of
from etude.data.store.table import Table
from etude.tasks.config import Config
from etude.tasks.recordings import RecordingsSection, Sound, augment_of, scheduled_strengths
from etude.tasks.tables import TableData, TableSplit
from etude.tasks.task_type import Columns, Processor

RecordedSplit = TableSplit[Manifest]
"""One split: its recordings, and what was prepared of them."""


class Hears(Processor, Protocol):
    """What a run over recordings keeps."""

    @property
    def sound(self) -> Sound:
        """How it hears."""


P = TypeVar("P", bound=Hears)


@dataclass
class RecordedData(TableData[P, RecordedSplit]):
    """The recordings of a run."""

    unit = "recordings"

    config: Config
    processor: P
    splits: dict[str, RecordedSplit] = field(default_factory=dict)
    front_end: FrontEnd = field(init=False)
    augment: Augment | None = field(init=False)
    _kept: dict[Path, Table] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.front_end = self.processor.sound.front_end(self.recordings)
        self.augment = augment_of(self.recordings, self.processor.sound.rate)

    @property
    def recordings(self) -> RecordingsSection:
        """What `[data]` says of them."""
        return cast("RecordingsSection", self.config.data)

    def feed(self, split: str, *, training: bool = False, say: Say) -> TableFeed:
        """Batches of a split: each recording once or, for training, in the order of the seed, and augmented."""
        batching = self.batching(split, self.recordings.workers, say, training=training)
        changed = training and self.config.train.overfit is None
        return recorded_feed(self.finished(split, changed=changed, say=say), batching)

    def scheduled_values(self, feed: TableFeed) -> Sequence[ScheduledValue]:
        """The size of batches and the strengths of augmentation, where schedules drive them."""
        return [*super().scheduled_values(feed), *scheduled_strengths(self.augment, feed)]

    def beside(self, split: str, batch: object) -> Columns:
        """Each sample's number in its files, its path, and what is true of it."""
        if not isinstance(batch, FrameBatch):
            return {}
        held, rows = self.held(split), batch.indices.numpy()
        return {
            "sample": [held.table.origin(row) for row in rows.tolist()],
            "path": held.table.texts(PATH, rows),
            **self.true_of(split, rows.tolist()),
        }

    def waves(self, split: str) -> Waves:
        """The sound of what a split is judged on."""
        held = self.held(split)
        return Waves(held.table, self.recordings.listening(self.processor.sound.rate), folder_of(held.source))

    def kept(self, split: str) -> Table | None:
        """The features of what a split is judged on, prepared once; None where batches compute them."""
        if not self.recordings.keep_features:
            return None
        held = self.held(split)
        if held.table.folder not in self._kept:
            prepared = prepare_features(self.waves(split), held.source, self.front_end, self.config.cache)
            self._kept[held.table.folder] = prepared
        return self._kept[held.table.folder]

    def samples(self, split: str, *, changed: bool) -> RecordedSamples:
        """The recordings of a split as samples; `changed` as training hears them."""
        raise NotImplementedError

    def finished(self, split: str, *, changed: bool, say: Say) -> RecordedSamples:
        """The same with all that a loss asks for."""
        del say
        return self.samples(split, changed=changed)

    def true_of(self, split: str, rows: Sequence[int]) -> Columns:
        """For saved outputs: what is true of samples, as far as no task knows it."""
        raise NotImplementedError
