"""Flags of `etude predict` that a speech recogniser takes."""

from etude.tasks.flags import BEAM_SIZE, Flag

FORMAT = Flag(
    "format",
    "how transcripts are written: text, json, srt, vtt, ctm or textgrid",
    "FORM",
    refused="--format is for speech, but this run's task is {type}.",
)
FLAGS = (BEAM_SIZE, FORMAT)
