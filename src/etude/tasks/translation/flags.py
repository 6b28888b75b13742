"""Flags of `etude predict` that a translation takes."""

from etude.tasks.flags import BEST_LINES

FLAGS = BEST_LINES
