"""Flags of `etude predict` that a translation takes."""

import os.path

from etude.tasks.flags import BEST_LINES, Flag

ATTENTION = Flag(
    "attention",
    "draw what the first line's translation attends to in it (SVG); lines without a translation are passed over",
    "FILE",
    kind=os.path.expanduser,
    refused="--attention is for translations, but this run's task is {type}.",
)
FLAGS = (*BEST_LINES, ATTENTION)
