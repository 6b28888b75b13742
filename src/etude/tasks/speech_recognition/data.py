"""Transcribed recordings for a run: the files of each split, tokenizer, prepared tables, and feeds."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from etude.base.says import Say
from etude.base.schedules.values import ScheduledValue
from etude.data.audio.augment import Augment
from etude.data.audio.features import Extractor
from etude.data.audio.reading import need_library
from etude.data.feeds.frame_targets import FrameTargets, WithFrames
from etude.data.feeds.recorded import FrameBatch, RecordedSamples, recorded_feed, with_transcripts
from etude.data.feeds.table_feed import TableFeed
from etude.data.files.manifests import Manifest, Recording
from etude.data.store.recordings import PATH, Waves, prepare_recordings
from etude.data.store.table import Table
from etude.data.store.transcripts import Transcripts, fit_transcripts
from etude.data.tokens.tokenizers import Tokenizer
from etude.tasks.recordings import (
    Sound,
    augment_of,
    chosen_rate,
    learned_statistics,
    open_recordings,
    scheduled_strengths,
    wishes_of,
)
from etude.tasks.speech_recognition.aligned_data import aligned_fingerprint, frame_targets
from etude.tasks.speech_recognition.config import SpeechRun
from etude.tasks.speech_recognition.feasible import say_infeasible
from etude.tasks.speech_recognition.processor import SpeechProcessor
from etude.tasks.speech_recognition.task import SpeechTask
from etude.tasks.tables import TableData, TableSplit
from etude.tasks.task_type import Columns
from etude.train.task import Task

SpeechSplit = TableSplit[Manifest]
"""One split: its recordings, and what was prepared of them."""


@dataclass
class Speech(TableData[SpeechProcessor, SpeechSplit]):
    """The recordings of a run."""

    unit = "recordings"

    config: SpeechRun
    processor: SpeechProcessor
    splits: dict[str, SpeechSplit] = field(default_factory=dict)
    augment: Augment | None = field(init=False)

    def __post_init__(self) -> None:
        self.augment = augment_of(self.config.data, self.processor.sound.rate)

    def scheduled_values(self, feed: TableFeed) -> Sequence[ScheduledValue]:
        """The size of batches and the strengths of augmentation, where schedules drive them."""
        return [*super().scheduled_values(feed), *scheduled_strengths(self.augment, feed)]

    def feed(self, split: str, *, training: bool = False, say: Say) -> TableFeed:
        """Batches of a split: each recording once or, for training, in the order of the seed, and augmented."""
        batching = self.batching(split, self.config.data.workers, say, training=training)
        changed = training and self.config.train.overfit is None
        samples = self.samples(split, changed=changed)
        targets = self._frame_targets(split, say)
        return recorded_feed(samples if targets is None else replace(samples, finish=WithFrames(targets)), batching)

    def _frame_targets(self, split: str, say: Say) -> FrameTargets | None:
        """The classes of the frames of what `split` is judged on, where the loss asks for them."""
        held = split if split in self.splits and self.config.train.overfit is None else "train"
        samples, source = self.samples(split, changed=False), self._held(split).source
        return frame_targets(self.config, self.processor, held, samples, source, say)

    def fingerprints(self) -> dict[str, str]:
        """What tells one split's content, and the alignments that it is trained on, from another's."""
        return {name: aligned_fingerprint(self.config, name, one) for name, one in super().fingerprints().items()}

    def attend(self, task: Task, *, judged: str = "val") -> None:
        """Let evaluation compare with the raw transcripts."""
        match task:
            case SpeechTask():
                for name, split in {"val": judged, "test": "test"}.items():
                    if split in self.splits or "train" in self.splits:
                        task.use_references(name, partial(self.transcripts, split))

    def transcripts(self, split: str, indices: Sequence[int]) -> list[str]:
        """The raw transcripts of samples, those of joined recordings one after the other."""
        held, places = self._held(split), np.array(indices, dtype=np.int64)
        joined = self.samples(split, changed=False).joined(places)
        texts = [_text(held.source, held.table.origin(row)) for row in joined.parts.tolist()]
        between = "" if self.config.data.join is None else self.config.data.join.between
        ends = np.cumsum(joined.counts)
        spans = zip((ends - joined.counts).tolist(), ends.tolist(), strict=True)
        return [between.join(texts[begin:end]) for begin, end in spans]

    def beside(self, split: str, batch: object) -> Columns:
        """Each sample's number in its files, its path and its transcript."""
        if not isinstance(batch, FrameBatch):
            return {}
        held, rows = self._held(split), batch.indices.numpy()
        return {
            "sample": [held.table.origin(row) for row in rows.tolist()],
            "path": held.table.texts(PATH, rows),
            "target": self.transcripts(split, rows.tolist()),
        }

    def _held(self, split: str) -> SpeechSplit:
        """What `split` is judged on: the one fixed set of `overfit`, which is of the training data, or its own."""
        if "train" in self.splits and (self.config.train.overfit is not None or split not in self.splits):
            return self.splits["train"]
        return self.splits[split]

    def samples(self, split: str, *, changed: bool) -> RecordedSamples:
        """The recordings of a split, perhaps joined; `changed` as training hears them."""
        data, sound, join = self.config.data, self.processor.sound, self.config.data.join
        joins = join is not None and split in join.splits
        return RecordedSamples(
            Waves(self._held(split).table, data.listening(sound.rate)),
            sound.front_end(data),
            with_transcripts,
            self.config.run.seed,
            training=changed,
            augment=self.augment if changed else None,
            joining=join.at(sound.rate) if join is not None and joins else None,
            between=tuple(self.processor.tokenizer.encode(join.between)) if join is not None and joins else (),
        )


def _text(manifest: Manifest, number: int) -> str:
    """The transcript of one recording; nothing of one that cannot be read any more."""
    match next(manifest.rows(number, number + 1)):
        case Recording(text=text):
            return text.strip()
    return ""


def prepare(config: SpeechRun, splits: Sequence[str], say: Say, processor: SpeechProcessor | None = None) -> Speech:
    """Open and read splits; without a `processor` tokenizer, rate and statistics are those of the train split."""
    sources = {name: open_recordings(config, config.data, name, say) for name in splits}
    if processor is None:
        processor = _learned(config, sources.get("train") or open_recordings(config, config.data, "train", say), say)
    speech = Speech(config, processor)
    for name, manifest in sources.items():
        table = _prepared(config, manifest, processor.tokenizer, processor.sound.rate, say)
        speech.splits[name] = SpeechSplit(manifest, table)
        if config.data.join is None:
            say_infeasible(config, speech.samples(name, changed=False), name, manifest, say)
    return speech


def _learned(config: SpeechRun, manifest: Manifest, say: Say) -> SpeechProcessor:
    need_library()
    data = config.data
    rate = chosen_rate(data, manifest, say)
    between = "" if data.join is None else data.join.between
    tokenizer = fit_transcripts(config.tokenizer, manifest, config.cache, data.policy, between=between, notice=say)
    say(f"Features are {Extractor(data.features, rate)}.")
    waves = Waves(_prepared(config, manifest, tokenizer, rate, say), data.listening(rate))
    return SpeechProcessor(tokenizer, Sound(rate, learned_statistics(data, waves, rate)))


def _prepared(config: SpeechRun, manifest: Manifest, tokenizer: Tokenizer, rate: int, say: Say) -> Table:
    data = config.data
    targets = Transcripts(tokenizer, data.max_length)
    wishes = wishes_of(data, manifest, rate)
    return prepare_recordings(manifest, targets, wishes, config.cache, data.policy, notice=say)
