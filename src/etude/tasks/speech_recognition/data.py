"""Transcribed recordings for a run: the files of each split, tokenizer, prepared tables, and feeds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from etude.base.says import Say
from etude.data.audio.features import Extractor
from etude.data.audio.reading import need_library
from etude.data.feeds.frame_targets import WithFrames
from etude.data.feeds.recorded import RecordedSamples, with_transcripts
from etude.data.files.manifests import Manifest, Recording
from etude.data.store.recordings import Waves, folder_of, prepare_recordings
from etude.data.store.table import Table
from etude.data.store.transcripts import Transcripts, fit_transcripts
from etude.data.tokens.tokenizers import Tokenizer
from etude.tasks.recorded_data import RecordedData, RecordedSplit
from etude.tasks.recordings import (
    Sound,
    chosen_rate,
    learned_statistics,
    open_recordings,
    wishes_of,
)
from etude.tasks.speech_recognition.aligned_data import aligned_fingerprint, frame_targets
from etude.tasks.speech_recognition.config import SpeechConfig, SpeechRun
from etude.tasks.speech_recognition.feasible import say_infeasible
from etude.tasks.speech_recognition.joint_memory import say_joint
from etude.tasks.speech_recognition.processor import SpeechProcessor
from etude.tasks.speech_recognition.task import SpeechTask
from etude.tasks.task_type import Columns
from etude.train.task import Task


@dataclass
class Speech(RecordedData[SpeechProcessor]):
    """The recordings of a run."""

    config: SpeechRun

    def finished(self, split: str, *, changed: bool, say: Say) -> RecordedSamples:
        """The samples, with the classes of their frames where the loss asks for them."""
        samples = self.samples(split, changed=changed)
        held = split if split in self.splits and self.config.train.overfit is None else "train"
        as_it_is, source = self.samples(split, changed=False), self.held(split).source
        targets = frame_targets(self.config, self.processor, held, as_it_is, source, say)
        return samples if targets is None else replace(samples, finish=WithFrames(targets))

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
        held, places = self.held(split), np.array(indices, dtype=np.int64)
        joined = self.samples(split, changed=False).joined(places)
        texts = [_text(held.source, held.table.origin(row)) for row in joined.parts.tolist()]
        between = "" if self.config.data.join is None else self.config.data.join.between
        ends = np.cumsum(joined.counts)
        spans = zip((ends - joined.counts).tolist(), ends.tolist(), strict=True)
        return [between.join(texts[begin:end]) for begin, end in spans]

    def true_of(self, split: str, rows: Sequence[int]) -> Columns:
        """The transcripts."""
        return {"target": self.transcripts(split, rows)}

    def samples(self, split: str, *, changed: bool) -> RecordedSamples:
        """The recordings of a split, perhaps joined; `changed` as training hears them."""
        join = self.config.data.join
        samples = RecordedSamples(
            self.waves(split),
            self.front_end,
            with_transcripts,
            self.config.run.drawn_from if changed else self.config.run.seed,
            training=changed,
            augment=self.augment if changed else None,
            kept=self.kept(split),
        )
        if join is None or split not in join.splits:
            return samples
        between = tuple(self.processor.tokenizer.encode(join.between))
        return replace(samples, joining=join.at(self.processor.sound.rate), between=between)


def _text(manifest: Manifest, number: int) -> str:
    """The transcript of one recording; nothing of one that cannot be read any more."""
    match next(manifest.rows(number, number + 1)):
        case Recording(text=text):
            return text.strip()
    return ""


def prepare(config: SpeechRun, splits: Sequence[str], say: Say, processor: SpeechProcessor | None = None) -> Speech:
    """Open and read splits; without a `processor` tokenizer, rate and statistics are those of the train split."""
    sources = {name: _opened(config, name, say) for name in splits}
    if processor is None:
        processor = _learned(config, sources.get("train") or _opened(config, "train", say), say)
    speech = Speech(config, processor)
    for name, manifest in sources.items():
        table = _prepared(config, manifest, processor.tokenizer, processor.sound.rate, say)
        speech.splits[name] = RecordedSplit(manifest, table)
        if config.data.join is None:
            say_infeasible(config, speech.samples(name, changed=False), name, manifest, say)
    if "train" in sources:
        say_joint(config, speech.samples("train", changed=False), processor.tokenizer.size, say)
    return speech


def _opened(config: SpeechRun, name: str, say: Say) -> Manifest:
    by = _by(config)
    return open_recordings(config, config.data, name, say, further=() if by is None else (by,))


def _by(config: SpeechRun) -> str | int | None:
    """The column that error rates are by."""
    match config.task:
        case SpeechConfig(by=by):
            return by
    return None


def _learned(config: SpeechRun, manifest: Manifest, say: Say) -> SpeechProcessor:
    need_library()
    data = config.data
    rate = chosen_rate(data, manifest, say)
    between = "" if data.join is None else data.join.between
    tokenizer = fit_transcripts(config.tokenizer, manifest, config.cache, data.policy, between=between, notice=say)
    say(f"Features are {Extractor(data.features, rate)}.")
    waves = Waves(_prepared(config, manifest, tokenizer, rate, say), data.listening(rate), folder_of(manifest))
    return SpeechProcessor(tokenizer, Sound(rate, learned_statistics(data, waves, rate)))


def _prepared(config: SpeechRun, manifest: Manifest, tokenizer: Tokenizer, rate: int, say: Say) -> Table:
    data = config.data
    targets = Transcripts(tokenizer, data.max_length, grouped=_by(config) is not None)
    wishes = wishes_of(data, manifest, rate)
    return prepare_recordings(manifest, targets, wishes, config.cache, data.policy, notice=say)
