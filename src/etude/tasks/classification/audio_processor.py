"""What a run over recordings keeps: how it hears, and what recordings are labelled with."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self, TypeVar, final

import torch
from torch import nn

from etude.base.errors import DataError, RefusedError, StorageError
from etude.base.files import read_json, whole_folder, write_json
from etude.data.audio.front_end import FrontEnd
from etude.data.audio.reading import Wave
from etude.data.files.lines import is_blank
from etude.data.store.targets import Targets, targets_of
from etude.model.frames.classifier import FrameClassifier
from etude.model.frames.encoders import build_encoder
from etude.tasks.classification.audio_config import Pooled, SoundDataConfig
from etude.tasks.classification.inputs import SampleProcessor
from etude.tasks.classification.task import Inputs, Reader
from etude.tasks.recordings import Sound
from etude.tasks.sounds import Asked, Ears
from etude.tasks.task_type import Missing, Questions

SOUND = "sound.json"
WINDOW = 64
"""Recordings of a manifest that are read ahead."""
A = TypeVar("A")


@final
@dataclass(frozen=True)
class SoundProcessor(SampleProcessor):
    """Rate and statistics of audio, and what is predicted."""

    sound: Sound
    targets: Targets
    data: SoundDataConfig
    """How the run hears; of the config, not kept here."""

    def save(self, folder: Path) -> None:
        """Write both, all or nothing; a run keeps those it began with."""
        if folder.is_dir():
            return
        with whole_folder(folder, "write", replace=True) as part:
            write_json(part / SOUND, {**self.sound.facts(), "targets": self.targets.plain()})

    @classmethod
    def stored(cls, folder: Path, data: SoundDataConfig) -> Self:
        """What `save` wrote. Raises RefusedError where it is not there, StorageError where it is damaged."""
        path = folder / SOUND
        if not path.exists():
            raise RefusedError(f"{folder} does not hold what a run over recordings keeps: {SOUND} is missing.")
        facts = read_json(path)
        try:
            return cls(Sound.of(facts), targets_of(facts["targets"]), data)
        except (KeyError, TypeError, ValueError) as error:
            raise StorageError(f"{path} is damaged: {error!r}.") from error

    @property
    def front_end(self) -> FrontEnd:
        """From waves to features."""
        return self.sound.front_end(self.data)

    def reader(self) -> Reader:
        """Reads a recording a line, by its path."""
        return SoundReader(Ears(self.data, self.sound.rate), self.front_end)

    def offered(self) -> Mapping[str, object]:
        """How many features a frame has."""
        return {"features": self.data.features.output_width, "front_end": self.front_end}

    def model(self, config: Any, outputs: int) -> nn.Module:
        """The classifier of the config's encoder."""
        given: Pooled = config.model
        encoder = build_encoder(config.model, self.data.features.output_width)
        return FrameClassifier(encoder, outputs, given.pooling, given.cut)

    def sizes(self, config: Any) -> str:
        """The type of the model."""
        return f'The sizes of model.type = "{config.model.type}"'


@final
class SoundReader(Reader):
    """Recordings, given by their paths."""

    def __init__(self, ears: Ears, front_end: FrontEnd) -> None:
        self._ears, self._front_end = ears, front_end
        self._listed: dict[str, Asked] = {}
        """What a manifest lists, of the window in hand."""

    def windows(self, questions: Questions) -> Iterator[list[str]]:
        """The paths of lines; or of a file that was named itself, or what it lists."""
        if questions.path is None:
            yield from questions.lines()
            return
        sounds = self._ears.questions(questions)
        while window := list(islice(sounds, WINDOW)):
            self._listed = {str(sound): sound for sound in window}
            yield [str(sound) for sound in window]

    def answered(
        self, lines: Sequence[str], batch_size: int, answer: Callable[[Inputs], Sequence[A]], nothing: A
    ) -> Sequence[A]:
        """Answer recordings in batches, in order; `nothing` of a line that is blank.

        Raises DataError for a recording that cannot be used.
        """
        found = [nothing] * len(lines)
        sounds = [(place, self._asked(line)) for place, line in enumerate(lines) if not is_blank(line)]
        for begin in range(0, len(sounds), batch_size):
            batch = sounds[begin : begin + batch_size]
            answers = answer(self._inputs([_heard(one) for _, one in batch]))
            for (place, _), one in zip(batch, answers, strict=True):
                found[place] = one
        return found

    def _asked(self, line: str) -> Asked:
        return self._listed.get(line) or self._ears.file(line)

    def _inputs(self, waves: Sequence[Wave]) -> Inputs:
        short = next((wave for wave in waves if len(wave) < self._front_end.least_samples), None)
        if short is not None:
            raise DataError(f"It has {len(short):,} samples, fewer than one window.")
        features_NF, counts = self._front_end.made([torch.from_numpy(wave) for wave in waves])
        rows = list(torch.split(features_NF, counts))
        return nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor(counts)


def _heard(asked: Asked) -> Wave:
    """The wave that was read. Raises DataError where there is none."""
    match asked.wave:
        case Missing(error=why):
            raise DataError(f"{why}.")
        case wave:
            return wave
