"""Flags of `etude predict` that a classification takes: none but those of every task."""

from collections.abc import Sequence

from etude.tasks.flags import Flag

FLAGS: Sequence[Flag] = ()
