"""Flags of `etude predict` that a speech recogniser takes."""

from collections.abc import Mapping

from etude.base.errors import ConfigError
from etude.tasks.flags import BEAM_SIZE, Flag

FORMAT = Flag(
    "format",
    "how transcripts are written: text, json, srt, vtt, ctm or textgrid",
    "FORM",
    refused="--format is for speech, but this run's task is {type}.",
)
STREAM = Flag(
    "stream",
    "transcribe raw samples as they come, each word as soon as it is final; for causal models",
    refused="--stream is for speech recognition, but this run's task is {type}.",
)
STREAM_FORMAT = Flag(
    "stream-format",
    "samples of --stream, one channel at the run's rate: s16le (the default) or f32le",
    "FORM",
    refused="--stream-format is for speech recognition, but this run's task is {type}.",
)
FLAGS = (BEAM_SIZE, FORMAT, STREAM, STREAM_FORMAT)


def check_stream(given: Mapping[str, object]) -> None:
    """Refuse flags that contradict each other. Raises ConfigError."""
    if "stream_format" in given and "stream" not in given:
        raise ConfigError("--stream-format says what --stream reads: give --stream as well.")
    if "stream" in given and "format" in given:
        raise ConfigError("--stream gives words as they come, or objects with --json: leave out --format.")
