"""The data of a run, opened before its first step: of one kind, but other files or limits in other epochs, perhaps."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, final

from etude.app.runs.folder import check_data, has_checkpoint
from etude.base.config.loading import plain_data
from etude.base.errors import ConfigError
from etude.base.horizon import Horizon
from etude.base.says import Say, unheard
from etude.base.schedules.values import ScheduledValue
from etude.data.feeds.feed import Feed
from etude.tasks.config import Config, LoadedConfig
from etude.tasks.kept import keep_processor, stored_processor
from etude.tasks.own import task_type
from etude.tasks.task_type import SKIPPED, TOKENIZERS, Data, Processor, TaskType
from etude.train.fit import as_durations
from etude.train.length import expect, mean_horizon
from etude.train.task import Task


@final
class Phase:
    """The data of some epochs; with `train.overfit` a run is judged on what it is trained on."""

    def __init__(self, config: Config, kind: TaskType[Any, Any], data: Data[Any], say: Say) -> None:
        self.config, self.kind, self.data = config, kind, data
        self._say = say
        self._judged = "val" if config.train.overfit is None else "train"
        self.train = data.feed("train", training=True, say=say)
        self.val = data.feed(self._judged, say=say) if self._judged in data.splits else None

    @cached_property
    def planned(self) -> Sequence[ScheduledValue]:
        """What the batches of an epoch are planned by; that epochs differ by it is said."""
        values, feed, train = self.data.scheduled_values(self.train), self.train, self.config.train
        if values:
            expect(feed, values, as_durations(train.max_duration), train.accumulate)
            self._say(
                f"Epochs differ with {' and '.join(value.key for value in values)}: on average {feed.batches:,} "
                f"batches and {feed.samples:,} samples. Schedules to the end of the run use this estimate."
            )
        return values

    def again(self) -> dict[str, Callable[[], Feed]]:
        """What makes, for each split of the run, the batches of one more pass."""
        held = {"train": "train"} if self.val is None else {"train": "train", "val": self._judged}
        return {name: partial(self.data.feed, split, say=self._say) for name, split in held.items()}


@final
class Held:
    """The phases of a run's data, and which of them is the run's now."""

    def __init__(self, loaded: LoadedConfig, folder: Path, say: Say, others: Mapping[str, str]) -> None:
        self._loaded = loaded
        self._folder = folder
        self._say = say
        self.contents = dict(others)
        """Hashes of all that the run reads, those of other things than data among them."""
        self.now = self._opened(loaded.config)
        self._phases = {_about(loaded.config): self.now}
        for later in loaded.later:
            if _about(later.config) not in self._phases:
                self._phases[_about(later.config)] = self._opened_later(later.config)

    def of(self, config: Config) -> Phase:
        """The data of a config of this run."""
        return self._phases[_about(config)]

    def take_up(self, config: Config) -> Phase:
        """The same, from now on those of the run."""
        self.now = self.of(config)
        return self.now

    def bare(self, config: Config) -> Task:
        """The task of a config, for its structure alone."""
        phase = self.of(config)
        return phase.kind.task(config, phase.data.processor)

    def beside(self, split: str, batch: object) -> Mapping[str, Any]:
        """What stands beside a batch in the data that are the run's now."""
        return self.now.data.beside(split, batch)

    def sources(self) -> list[object]:
        """The parts of all data that may have events."""
        return [source for phase in self._phases.values() for source in phase.data.sources()]

    def horizon(self, epochs: int) -> Horizon | None:
        """How long a run of so many epochs is, where they have other data; None where all have the same."""
        if len(self._phases) == 1:
            return None
        train = self._loaded.config.train
        parts = [(1, self.of(self._loaded.at(epoch).config).train) for epoch in range(epochs)]
        return mean_horizon(parts, as_durations(train.max_duration), train.accumulate)

    def _opened(self, config: Config) -> Phase:
        """The data that the run begins with: what it keeps of them is in its folder, and is what it has begun with."""
        kind, folder = task_type(config), self._folder
        kept = folder / TOKENIZERS
        processor = stored_processor(kind, config, kept) if has_checkpoint(folder) and kept.is_dir() else None
        data = kind.open(config, _splits(config), self._say, processor)
        self._check(data.fingerprints())
        keep_processor(data.processor, kept, made=processor is None)
        data.write_skipped(folder / SKIPPED)
        return Phase(config, kind, data, self._say)

    def _opened_later(self, config: Config) -> Phase:
        """The data of later epochs, read with what the run has begun with."""
        kind = task_type(config)
        self._refuse_another_kind(config)
        processor: Processor = self.now.data.processor
        data = kind.open(config, _splits(config), unheard, processor)
        if data.skipped:
            self._say(f"{data.skipped} bad samples of the data from epoch {config.epoch} on were left out.")
        given = data.fingerprints().items()
        self._check({f"{name} from epoch {config.epoch} on": content for name, content in given})
        return Phase(config, kind, data, self._say)

    def _check(self, contents: Mapping[str, str]) -> None:
        """Refuse contents that changed since the run began; a run that has saved nothing notes them all anew."""
        self.contents |= contents
        check_data(self._folder, self.contents)

    def _refuse_another_kind(self, config: Config) -> None:
        first = self._loaded.config
        if type(config) is not type(first):
            raise ConfigError(
                f"task.type is {config.task.type} from epoch {config.epoch} on, but reads data of another kind than "
                f"{first.task.type}, with which the run begins; train it as a stage of its own."
            )


def _splits(config: Config) -> list[str]:
    return ["train", "val"] if config.has_val else ["train"]


def _about(config: Config) -> str:
    """What the data of a config hang on."""
    plain = plain_data(config)
    return repr([plain["task"], plain["data"]])
