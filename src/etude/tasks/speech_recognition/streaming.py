"""Transcribes sound as it comes: each word once nothing that follows can change it.

What is said in the end is what is said of the whole recording, by the same encoder, searched greedily.

Legend: S samples, N frames, F features, B one, T frames of the encoder, M its width.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from etude.base.errors import ConfigError, DataError
from etude.data.audio.front_end_stream import FrontEndStream
from etude.data.tokens.tokenizers import OwnTokenizer
from etude.metrics.text import one_line
from etude.model.frames.conformer import ConformerConfig
from etude.model.frames.encoders import FrameEncoder, StreamState
from etude.search import captions
from etude.search.streaming import Spoken, WordStream
from etude.search.words import Clock
from etude.tasks.speech_recognition.config import SpeechConfig
from etude.tasks.speech_recognition.heads import Searching
from etude.tasks.speech_recognition.task import SpeechTask
from etude.tasks.task_type import Asked, Questions

FORMATS: Mapping[str, np.dtype[Any]] = {"s16le": np.dtype("<i2"), "f32le": np.dtype("<f4")}
"""Samples of a stream, by the names that other tools have for them."""
USUAL = "s16le"
FULL_SCALE = 32768.0
"""What samples of 16 bits are divided by."""
FILES = {b"RIFF": "a WAV file", b"fLaC": "a FLAC file", b"OggS": "an OGG file"}
"""What recordings begin with that are no raw samples."""


@final
class Transcription:
    """What is said in one recording, word by word, as its samples come.

    Raises ConfigError for a model, features or a search that needs the whole recording.
    """

    def __init__(self, task: SpeechTask) -> None:
        check_greedy(task.config)
        self._device = next(task.model.parameters()).device
        self._encoder = _encoder(task)
        self._state: StreamState = self._encoder.stream()
        self._sound = FrontEndStream(task.front_end)
        head = next(iter(task.heads.values()))
        self._labels = head.stream(Searching(symbols_a_frame=task.config.symbols_a_frame), self._device)
        settled = isinstance(task.tokenizer, OwnTokenizer)
        self._words = WordStream(task.tokenizer.decode, Clock(task.seconds_a_frame), settled=settled)

    def push(self, samples_S: Tensor) -> list[Spoken]:
        """Take more samples, between -1 and 1 and at the run's rate; the words that are final now."""
        return self._advance(self._sound.push(samples_S), last=False)

    def end(self) -> list[Spoken]:
        """The words that are final since the recording is over."""
        found = self._advance(self._sound.end(), last=True)
        return [*found, *self._words.push(self._labels.end()), *self._words.end()]

    @torch.no_grad()
    def _advance(self, features_NF: Tensor, *, last: bool) -> list[Spoken]:
        if not len(features_NF) and not last:
            return []
        features_BNF = features_NF[None].to(self._device)
        encoded_BTM, self._state = self._encoder.advance(features_BNF, self._state, last=last)
        return self._words.push(self._labels.push(encoded_BTM))


def check_greedy(config: SpeechConfig) -> None:
    """Refuse what only a search of whole recordings does. Raises ConfigError."""
    told = "where audio comes as a stream, which is searched greedily: give"
    if config.beam_size > 1:
        raise ConfigError(f"task.beam_size must be 1 {told} --beam-size 1.")
    if config.language_model is not None:
        raise ConfigError(f"task.language_model must be false {told} --task.language_model false.")
    if config.hot_words:
        raise ConfigError(f"task.hot_words must be empty {told} --task.hot_words '[]'.")


def keeps_all(task: SpeechTask) -> bool:
    """Whether the encoder keeps all that it heard, so that memory and time of a piece grow with what came before."""
    match task.model.encoder:
        case FrameEncoder(config=ConformerConfig(left_context=None)):
            return True
    return False


def _encoder(task: SpeechTask) -> FrameEncoder:
    match task.model.encoder:
        case FrameEncoder() as encoder:
            return encoder
    raise ConfigError("A model of your own takes no audio as a stream: model.type must be conformer or blstm.")


# -- bytes and lines -------------------------------------------------------------------------------------------------


def streamed(task: SpeechTask, questions: Questions, asked: Asked) -> Iterator[str]:
    """What is written of raw samples as they come: words, or of each word an object. Raises ConfigError, DataError."""
    write = _write_object if asked.json else _writes_text(asked.safe)
    heard = Transcription(task)
    samples = Samples(str(asked.flags.get("stream_format", USUAL)))
    if keeps_all(task):
        questions.note("model.left_context is false: attention keeps all that it hears, so that a long stream is slow.")
    for piece in questions.pieces():
        yield from map(write, heard.push(samples.of(piece)))
    if samples.rest:
        questions.note(f"The last {samples.rest} of a sample's {samples.size} bytes are left out.")
    yield from map(write, heard.end())
    if not asked.json:
        yield "\n"


@final
class Samples:
    """Makes waves of the bytes of a stream, which may be cut anywhere."""

    def __init__(self, name: str) -> None:
        if name not in FORMATS:
            raise ConfigError(f"--stream-format must be {' or '.join(FORMATS)}, but is {name}.")
        self._type = FORMATS[name]
        self._kept = b""
        self._seen = 0

    @property
    def size(self) -> int:
        """Bytes of a sample."""
        return self._type.itemsize

    @property
    def rest(self) -> int:
        """Bytes of a sample that is not whole yet."""
        return len(self._kept)

    def of(self, piece: bytes) -> Tensor:
        """The samples that are whole now. Raises DataError for what is no number, or no raw sound."""
        if not self._seen:
            _refuse_files(piece)
        joined = self._kept + piece
        whole = len(joined) // self.size * self.size
        self._kept = joined[whole:]
        wave = np.frombuffer(joined[:whole], self._type).astype(np.float32)
        if self._type.kind == "i":
            wave /= FULL_SCALE
        if not np.isfinite(wave).all():
            place = self._seen + int(np.isfinite(wave).argmin())
            raise DataError(f"Sample {place + 1:,} of the sound is no number: is it {USUAL} rather than f32le?")
        self._seen += len(wave)
        return torch.from_numpy(wave)


def _refuse_files(piece: bytes) -> None:
    kind = FILES.get(piece[:4])
    if kind is not None:
        raise DataError(f"--stream takes raw samples, but {kind} is given: leave --stream out.")


def _writes_text(safe: Callable[[str], str]) -> Callable[[Spoken], str]:
    """Words as they stand in the transcript, on one line."""
    return lambda spoken: safe(one_line(spoken.before + spoken.word.text))


def _write_object(spoken: Spoken) -> str:
    written: list[Mapping[str, object]] = json.loads(captions.as_json([spoken.word]))
    return "".join(json.dumps(facts, ensure_ascii=False) + "\n" for facts in written)
