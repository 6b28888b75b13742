"""Recordings as waves: what their headers say, and their samples at one rate, through libsndfile and soxr.

Formats are those of libsndfile: WAV, FLAC, OGG, MP3 and more. Samples are float32, full scale is 1.
"""

import math
import re
import struct
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from etude.base.errors import ConfigError
from etude.data.files.lines import shown

Wave = NDArray[np.float32]
Channel = Literal["mean"] | int | None
"""Which channel of a recording is heard: their mean, one by its number from 1 on, or the only one."""
LARGEST_RATE = 768_000
STREAMED = (0, 0x7FFFFFFF, 0xFFFFFFFF)
"""Sizes of what was written before its length was known."""
LEAST_STREAMED = 0x7F000000
"""In containers other than RIFF, the least of such sizes."""
PROMISED = re.compile(r": (\d+) \(should be (\d+)\)")
"""What libsndfile notes of a size in a header that is not that of the file."""


class BadAudioError(ValueError):
    """A recording that cannot be used; the message is a clause that says why."""


class Header(NamedTuple):
    """What the header of a file says."""

    rate: int
    """Samples a second of each channel."""
    samples: int
    """Of each channel."""
    channels: int

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.samples / self.rate


class Cut(NamedTuple):
    """A part of a file, in seconds of it."""

    start: float = 0.0
    end: float | None = None
    """None is the end of the file."""


WHOLE = Cut()


class Listening(NamedTuple):
    """How files are heard."""

    rate: int
    """Samples a second of what is given."""
    resample: bool = False
    """Whether a file of another rate is resampled, or bad."""
    channel: Channel = None
    """Of a file with several; None says that such a file is bad."""


def need_library() -> None:
    """Raise ConfigError where soundfile is missing."""
    if find_spec("soundfile") is None:
        raise ConfigError("Audio is read by soundfile, which is not installed: run pip install 'etude[audio]'.")


def header_of(path: Path) -> Header:
    """Read the header of a file. Raises BadAudioError where it has none, or promises more than the file holds."""
    need_library()
    import soundfile

    try:
        with path.open("rb") as file:
            _check_whole(file, path.stat().st_size)
        found = soundfile.info(path, verbose=True)
    except OSError as error:
        raise BadAudioError(_unreadable(path, error)) from error
    except soundfile.LibsndfileError as error:
        raise BadAudioError(f"{shown(path)} is not audio that can be read ({_said(error)})") from error
    if found.format not in {"WAV", "WAVEX"}:
        _check_promises(found.extra_info)
    if not 0 < found.samplerate <= LARGEST_RATE:
        raise BadAudioError(f"{shown(path)} has a sample rate of {found.samplerate:,} Hz")
    return Header(found.samplerate, found.frames, found.channels)


def samples_of(header: Header, cut: Cut, how: Listening) -> int:
    """Give how many samples `read_wave` will give. Raises BadAudioError where it will give none."""
    if header.rate != how.rate and not how.resample:
        raise BadAudioError(
            f"it has {header.rate:,} samples a second, but {how.rate:,} are expected; data.resample = true resamples"
        )
    if how.channel is None and header.channels != 1:
        raise BadAudioError(f'it has {header.channels} channels, but must have one; data.channel = "mean" mixes them')
    if isinstance(how.channel, int) and how.channel > header.channels:
        raise BadAudioError(f"it has {header.channels} channels, but data.channel asks for number {how.channel}")
    first, stop = _span(header, cut)
    return resampled_length(stop - first, header.rate, how.rate)


def resampled_length(samples: int, rate: int, wanted: int) -> int:
    """Give how many samples become of some at another rate: as long, rounded."""
    return samples if rate == wanted else (2 * samples * wanted + rate) // (2 * rate)


def read_wave(path: Path, cut: Cut, how: Listening) -> Wave:
    """Read the samples of a part of a file, as many as `samples_of` says of its header; the file is opened once.

    Raises BadAudioError where the file holds fewer than its header says, or what is no number.
    """
    header, read = _decoded(path, cut, how)
    wanted = samples_of(header, cut, how)
    first, stop = _span(header, cut)
    wave = _mono(read, how.channel)
    if len(wave) < stop - first:
        raise BadAudioError(
            f"{shown(path)} is truncated: its header promises {header.samples:,} samples, but it has "
            f"{first + len(wave):,}"
        )
    if not np.isfinite(wave).all():
        raise BadAudioError(f"{shown(path)} has samples that are no numbers")
    return wave if header.rate == how.rate else resampled(wave, header.rate, how.rate, wanted)


def resampled(wave: Wave, rate: int, wanted: int, samples: int) -> Wave:
    """Resample a whole wave to exactly so many samples."""
    if find_spec("soxr") is None:
        raise ConfigError("Audio is resampled by soxr, which is not installed: run pip install 'etude[audio]'.")
    import soxr

    made: Wave = np.asarray(soxr.resample(wave, rate, wanted), dtype=np.float32)[:samples]
    return np.pad(made, (0, samples - len(made)))


def _decoded(path: Path, cut: Cut, how: Listening) -> tuple[Header, Wave]:
    """Read the samples of a part, of all channels: [samples, channels]; perhaps fewer than the header promises."""
    need_library()
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            header = Header(file.samplerate, file.frames, file.channels)
            samples_of(header, cut, how)
            first, stop = _span(header, cut)
            if first:
                file.seek(first)
            read: Wave = file.read(stop - first, dtype="float32", always_2d=True)
    except OSError as error:
        raise BadAudioError(_unreadable(path, error)) from error
    except (soundfile.LibsndfileError, RuntimeError) as error:
        if not path.exists():
            raise BadAudioError(f"{shown(path)} does not exist") from error
        raise BadAudioError(f"{shown(path)} cannot be decoded ({_said(error)})") from error
    return header, read


def _mono(wave: Wave, channel: Channel) -> Wave:
    match channel:
        case "mean":
            mixed: Wave = wave.mean(1)
            return mixed
        case int():
            return wave[:, channel - 1]
    return wave[:, 0]


def _span(header: Header, cut: Cut) -> tuple[int, int]:
    """Give the first sample of a part, and the one behind its last. Raises BadAudioError where there is none."""
    start, end = cut.start, header.seconds if cut.end is None else cut.end
    if not (math.isfinite(start) and math.isfinite(end)):
        raise BadAudioError("start and end must be numbers of seconds")
    if start < 0 or end < start:
        raise BadAudioError(f"start must be 0 or more and not behind end, but they are {start:g} and {end:g} seconds")
    first, stop = round(start * header.rate), round(end * header.rate)
    # Times in a list are rounded: half a hundredth of a second beyond the end is the end.
    stop = min(stop, header.samples) if end <= header.seconds + 0.005 else stop
    if stop > header.samples:
        raise BadAudioError(f"end is {end:g} seconds, but the file has {header.seconds:g}")
    if first >= stop:
        raise BadAudioError("it holds no sample")
    return first, stop


def _check_whole(file: BinaryIO, size: int) -> None:
    """Find a WAV file that has been cut short, which libsndfile reads without a word."""
    if not size:
        raise BadAudioError("the file is empty")
    order = {b"RIFF": "<", b"RIFX": ">"}.get(file.read(4))
    if order is None:
        return
    place = 12
    while place + 8 <= size:
        file.seek(place)
        name, length = struct.unpack(f"{order}4sI", file.read(8))
        if name == b"data":
            if length not in STREAMED and place + 8 + length > size:
                raise BadAudioError(
                    f"it is truncated: its header promises {length:,} bytes of samples, but {size - place - 8:,} "
                    "are there"
                )
            return
        place += 8 + length + length % 2


def _check_promises(noted: str) -> None:
    """Find another file that has been cut short, by what libsndfile notes of its header without refusing it."""
    for promised, there in PROMISED.findall(noted):
        if int(there) < int(promised) < LEAST_STREAMED:
            raise BadAudioError(
                f"it is truncated: its header promises {int(promised):,} bytes, but {int(there):,} are there"
            )


def _unreadable(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{shown(path)} does not exist"
    return f"{shown(path)} cannot be read ({error.strerror})"


def _said(error: Exception) -> str:
    """What the library says, without the path that it begins with."""
    said = " ".join(str(error).split())
    return said.rpartition("': ")[2].rstrip(".") or "no reason given"
