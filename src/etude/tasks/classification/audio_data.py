"""Recordings for a run that tells what they are: the files of each split, prepared tables, and feeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from etude.base.says import Say
from etude.data.audio.features import Extractor
from etude.data.audio.reading import need_library
from etude.data.feeds.recorded import RecordedSamples, WithTargets
from etude.data.files.manifests import Manifest, Recording
from etude.data.files.records import Cell
from etude.data.store.recordings import Waves, folder_of, prepare_recordings
from etude.data.store.sounds import SoundTargets, cells_of
from etude.data.store.table import Table
from etude.data.store.targets import Numbers, OneLabel, SeveralLabels, Targets
from etude.tasks.classification.audio_config import SoundRun
from etude.tasks.classification.audio_processor import SoundProcessor
from etude.tasks.classification.config import ClassificationConfig
from etude.tasks.recorded_data import RecordedData, RecordedSplit
from etude.tasks.recordings import (
    Sound,
    chosen_rate,
    learned_statistics,
    open_recordings,
    wishes_of,
)
from etude.tasks.task_type import Columns


@dataclass
class Sounds(RecordedData[SoundProcessor]):
    """The recordings of a run."""

    config: SoundRun

    def told(self) -> str:
        """What a run begins with: its splits, their sizes, and the labels."""
        targets = self.processor.targets
        return f"{super().told()} with {len(targets.names):,} {targets.unit}"

    def true_of(self, split: str, rows: Sequence[int]) -> Columns:
        """The labels, where there is one each."""
        match self.processor.targets:
            case OneLabel(names=names) as targets:
                numbers = targets.of_rows(self.held(split).table, np.array(rows, dtype=np.int64))
                return {"target": [names[number] for number in numbers.tolist()]}
        return {}

    def samples(self, split: str, *, changed: bool) -> RecordedSamples:
        """The recordings of a split; `changed` as training hears them."""
        return RecordedSamples(
            self.waves(split),
            self.front_end,
            WithTargets(self.processor.targets),
            self.config.run.drawn_from if changed else self.config.run.seed,
            training=changed,
            augment=self.augment if changed else None,
            kept=self.kept(split),
        )


def prepare(config: SoundRun, splits: Sequence[str], say: Say, processor: SoundProcessor | None = None) -> Sounds:
    """Open and read splits; without a `processor` labels, rate and statistics are those of the train split."""
    sources = {name: _opened(config, name, say) for name in splits}
    if processor is None:
        processor = _learned(config, sources.get("train") or _opened(config, "train", say), say)
    sounds = Sounds(config, processor)
    for name, manifest in sources.items():
        table = _prepared(config, manifest, processor.targets, processor.sound.rate, say)
        sounds.splits[name] = RecordedSplit(manifest, table)
    return sounds


def _opened(config: SoundRun, name: str, say: Say) -> Manifest:
    by = _by(config)
    further = (*config.data.predicted, *([] if by is None else [by]))
    return open_recordings(config, config.data, name, say, further=further)


def _by(config: SoundRun) -> str | int | None:
    """The column that metrics are by."""
    match config.task:
        case ClassificationConfig(by=by):
            return by
    return None


def _learned(config: SoundRun, manifest: Manifest, say: Say) -> SoundProcessor:
    need_library()
    data = config.data
    rate = chosen_rate(data, manifest, say)
    targets = _targets(config, manifest)
    say(targets.told())
    say(f"Features are {Extractor(data.features, rate)}.")
    waves = Waves(_prepared(config, manifest, targets, rate, say), data.listening(rate), folder_of(manifest))
    return SoundProcessor(Sound(rate, learned_statistics(data, waves, rate)), targets, data)


def _targets(config: SoundRun, manifest: Manifest) -> Targets:
    """What the recordings of the training data are labelled with."""
    names, file = config.data.predicted, manifest.place(0)[0]
    cells = [cells_of(row, len(names)) for row in manifest.rows(0, len(manifest)) if isinstance(row, Recording)]
    match config.predicts:
        case "labels":
            separator = config.data.separator if len(names) == 1 else ""
            return SeveralLabels.learned(names, separator, cells, file)
        case "numbers":
            return Numbers.learned(names, cells, file)
    firsts: list[Cell] = [row[0] for row in cells]
    return OneLabel.learned(names[0], firsts, file)


def _prepared(config: SoundRun, manifest: Manifest, targets: Targets, rate: int, say: Say) -> Table:
    data = config.data
    encoder = SoundTargets(targets, grouped=_by(config) is not None)
    wishes = wishes_of(data, manifest, rate)
    return prepare_recordings(manifest, encoder, wishes, config.cache, data.policy, notice=say)
